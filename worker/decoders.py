"""A decoder for every set of inputs that an engine may want, chosen by the columns that are to be filled.       (pure)

Engines of one worker may take different fields of the same event: a simple backup needs less than the model that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from worker.decode import Columns, Decoded, Decoder
from worker.records import Records


class Decoders:
    """Decodes into whichever engine's columns it is given.

    make: the decoder for a model's inputs by name: values per row, None for a scalar.
    """

    def __init__(self, make: Callable[[Mapping[str, int | None]], Decoder]) -> None:
        self._make = make
        self._made: dict[frozenset[tuple[str, tuple[int, ...]]], Decoder] = {}

    def decode(self, records: Records, columns: Columns, start: int) -> Decoded:
        """See `Decoder.decode`. Raises `ContractError` too, if the columns don't fit the schema."""
        layout = frozenset((name, column.shape[1:]) for name, column in columns.items())
        decoder = self._made.get(layout)
        if decoder is None:
            decoder = self.prepare(
                {name: column.shape[1] if column.ndim > 1 else None for name, column in columns.items()}
            )
        return decoder.decode(records, columns, start)

    def prepare(self, inputs: Mapping[str, int | None]) -> Decoder:
        """The decoder for `inputs`. Raises `ContractError` if they don't fit the schema: better now than at the first event."""
        layout = frozenset((name, () if width is None else (width,)) for name, width in inputs.items())
        decoder = self._made.get(layout) or self._make(inputs)
        self._made[layout] = decoder
        return decoder

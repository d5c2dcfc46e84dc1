"""What was sold, by key and day: from a Parquet file, or from the histories inside feature events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.avro import Schema, record_type_from_schema
from worker.decode import Decoder
from worker.errors import ConfigurationError, SchemaUnavailableError, UnreachableError
from worker.framed_reader import FramedReader
from worker.framing import Framing, Refusal
from worker.records import Record, Records

KEY_SEPARATOR = "|"
SALES = "sales"
AS_OF = "as_of"

_DATE_BITS = 24
_DATE_SHIFT = 1 << (_DATE_BITS - 1)
_BATCH_RECORDS = 4096
_PENDING_CELLS = 4_000_000


class Actuals:
    """Sales of days, by key. A later entry of the same key and day replaces an earlier one.

    12 bytes for each key and day, sorted; looking up is a binary search for all at once.
    """

    def __init__(self) -> None:
        self._codes: dict[bytes, int] = {}
        self._places: NDArray[np.int64] = np.empty(0, np.int64)
        self._sales: NDArray[np.float32] = np.empty(0, np.float32)
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self._pending_cells = 0

    def __len__(self) -> int:
        self._settle()
        return len(self._places)

    def add(self, keys: Sequence[bytes], days: NDArray[np.int64], sales: NDArray[np.float32]) -> None:
        """One cell for each element. days: since 1970. What isn't finite is left out."""
        codes = np.fromiter((self._codes.setdefault(key, len(self._codes)) for key in keys), np.int64, len(keys))
        kept = np.isfinite(sales) & (np.abs(days) < _DATE_SHIFT)
        if not kept.any():
            return
        self._pending.append((_places(codes, days)[kept], sales[kept]))
        self._pending_cells += int(kept.sum())
        if self._pending_cells > _PENDING_CELLS:
            self._settle()

    def of(self, keys: Sequence[bytes], as_of: NDArray[np.int64], days: int) -> NDArray[np.float32]:
        """float32[n, days]: sales on each of the days after each `as_of`; NaN where nothing is known."""
        self._settle()
        codes = np.fromiter((self._codes.get(key, -1) for key in keys), np.int64, len(keys))
        wanted = _places(codes[:, None], as_of[:, None] + np.arange(1, days + 1)[None, :])
        found = np.full(wanted.shape, np.nan, np.float32)
        if len(self._places):
            at = np.minimum(np.searchsorted(self._places, wanted), len(self._places) - 1)
            is_there = self._places[at] == wanted
            found[is_there] = self._sales[at[is_there]]
        return found

    def _settle(self) -> None:
        if not self._pending:
            return
        places = np.concatenate([self._places, *(each for each, _ in self._pending)])
        sales = np.concatenate([self._sales, *(each for _, each in self._pending)])
        order = np.argsort(places, kind="stable")
        places, sales = places[order], sales[order]
        is_last = np.append(places[1:] != places[:-1], [True])
        self._places, self._sales = places[is_last], sales[is_last]
        self._pending, self._pending_cells = [], 0


def actuals_from_parquet(path: Path, key_fields: Sequence[str]) -> Actuals:
    """From columns named after the key's fields, `date` and `sales`; other columns don't matter.

    Raises `ConfigurationError` if pyarrow isn't installed, the file can't be read, or a column is missing or of another
    kind.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra that only this needs
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "--actuals needs pyarrow to read Parquet, which isn't installed; install forecast-worker[tools]"
        ) from error
    wanted = [*key_fields, "date", SALES]
    actuals = Actuals()
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in wanted if name not in file.schema_arrow.names]
            if missing:
                raise ConfigurationError(
                    f"--actuals {path}: got columns {', '.join(file.schema_arrow.names)}, expected {', '.join(wanted)}"
                )
            for batch in file.iter_batches(batch_size=1 << 17, columns=wanted):
                actuals.add(*_cells(pa, batch, key_fields))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ConfigurationError(
            f"--actuals {path}: {error}; expected a Parquet file with {', '.join(wanted)}, a date and a number the last two"
        ) from error
    return actuals


def _cells(
    pa: Any,  # noqa: ANN401 - pyarrow has no types
    batch: Any,  # noqa: ANN401
    key_fields: Sequence[str],
) -> tuple[list[bytes], NDArray[np.int64], NDArray[np.float32]]:
    """Key, day and sales of each row; NaN sales where something is null."""
    texts = [batch.column(name).cast(pa.string()).to_pylist() for name in key_fields]
    keys = [KEY_SEPARATOR.join(map(str, parts)).encode() for parts in zip(*texts, strict=True)]
    days = batch.column("date").cast(pa.date32())
    sales = batch.column(SALES).cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)
    return keys, days.cast(pa.int32()).fill_null(_DATE_SHIFT).to_numpy(zero_copy_only=False).astype(np.int64), sales


def actuals_from_events(
    records: Iterable[Record], *, schema: Schema, framing: Framing, key_fields: Sequence[str], max_value_bytes: int
) -> Actuals:
    """From the histories of feature events: `sales`, the last element on `as_of`. Events that can't be used are left out.

    Raises `ConfigurationError` if the feature schema has no such fields, `UnreachableError` if the registry can't be asked.
    """
    fields = record_type_from_schema(schema)
    if fields.field(SALES) is None or fields.field(AS_OF) is None:
        raise ConfigurationError(
            f"--actuals from a topic: the feature schema has no {SALES} or no {AS_OF}, expected both: sales per day, the "
            "last one on as_of; give a Parquet file instead"
        )
    actuals = Actuals()
    decoder: Decoder | None = None
    columns: dict[str, NDArray[np.float32]] = {}
    for batch in batches(records, _BATCH_RECORDS):
        if decoder is None:
            days = _history_days(batch, FramedReader(schema, framing))
            if not days:
                continue
            decoder = Decoder(
                reader_schema=schema,
                inputs={SALES: days, AS_OF: None},  # as a float32 a day is exact for 45,000 years
                key_fields=key_fields,
                echo_fields=(),
                framing=framing,
                max_value_bytes=max_value_bytes,
            )
            columns = {SALES: np.empty((_BATCH_RECORDS, days), np.float32), AS_OF: np.empty(_BATCH_RECORDS, np.float32)}
        _add_events(actuals, decoder, columns, batch)
    return actuals


def _add_events(
    actuals: Actuals, decoder: Decoder, columns: dict[str, NDArray[np.float32]], batch: Sequence[Record]
) -> None:
    try:
        decoded = decoder.decode(Records.of(batch), columns, 0)
    except SchemaUnavailableError as error:
        raise UnreachableError(f"{error}; check registry.url and whether the registry is up") from error
    sales = columns[SALES][: decoded.rows]
    history = np.arange(1 - sales.shape[1], 1)
    days = columns[AS_OF][: decoded.rows].astype(np.int64)[:, None] + history[None, :]
    keys = [key for key in decoded.keys for _ in range(sales.shape[1])]
    actuals.add(keys, days.ravel(), sales.ravel().copy())


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Lists of `size` records, the last one of what is left."""
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _history_days(batch: Sequence[Record], reader: FramedReader) -> int:
    """Length of the first history that can be read; 0 if none can."""
    for record in batch:
        content = None if record.value is None else reader.read(record.value)
        sales = None if content is None or isinstance(content, Refusal) else content[SALES]
        if isinstance(sales, list) and sales:
            return len(sales)
    return 0


def _places(codes: NDArray[np.int64], days: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for key and day, so that both are sorted and searched at once. Unknown keys (-1) are below all."""
    return np.asarray((codes << _DATE_BITS) | (days + _DATE_SHIFT))

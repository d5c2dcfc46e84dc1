"""Keys, echoes and inputs of many messages of one writer schema at once: the scan, and what Python does per message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from worker.avro import RecordType
from worker.avro_plan import FastPlan, Reading
from worker.avro_scan import Flags, Rows, Scan, Scanner

KEY_SEPARATOR = b"|"

EchoPiece = bytes | tuple[str, str]
"""A constant, or the names of the first and the last field of a run that the writer sends in the echo's order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FastRows:
    """Per message: whether it was accepted, and if so its key and echo (else anything)."""

    ok: Flags
    keys: list[bytes]
    echoes: list[bytes]


class FastReader:
    """Reads messages of `writer` by a fast plan. `echo_defaults`: the bytes of echo fields that the writer lacks."""

    def __init__(
        self, *, writer: RecordType, plan: FastPlan, reading: Reading, echo_defaults: Mapping[str, bytes]
    ) -> None:
        spanned = {*reading.key_fields, *reading.echo_fields}.intersection(field.name for field in writer.fields)
        self._scanner = Scanner(plan, reading.inputs, sorted(spanned))
        self._key_fields = reading.key_fields
        self._limits = reading.limits
        self._echo_pieces = _echo_pieces(writer, reading.echo_fields, echo_defaults)

    def read(
        self, values: Sequence[bytes], prefix_bytes: int, columns: Mapping[str, NDArray[np.float32]], rows: Rows
    ) -> FastRows:
        """Writes `rows` of `columns`, one per value; rows of values that aren't accepted hold garbage."""
        scan = self._scanner.scan(values, prefix_bytes, columns, rows)
        keys, are_good = self._keys(scan)
        ok = scan.ok & are_good
        for name, (least, greatest) in self._limits.items():
            if (numbers := scan.numbers.get(name)) is not None:
                ok &= (numbers >= least) & (numbers <= greatest)
        return FastRows(ok=ok, keys=keys, echoes=self._echoes(scan))

    def _keys(self, scan: Scan) -> tuple[list[bytes], Flags]:
        parts = [
            scan.texts[name] if name in scan.texts else [b"%d" % number for number in scan.numbers[name].tolist()]
            for name in self._key_fields
        ]
        if len(parts) == 1:
            keys = parts[0]
        elif len(parts) == 2:
            keys = [first + KEY_SEPARATOR + second for first, second in zip(*parts, strict=True)]
        else:
            keys = [KEY_SEPARATOR.join(each) for each in zip(*parts, strict=True)]
        are_good = np.ones(len(keys), dtype=np.bool_)
        if b"".join(keys).count(KEY_SEPARATOR) != (len(parts) - 1) * len(keys) or any(b"" in part for part in parts):
            are_good[:] = [is_good_key(each) for each in zip(*parts, strict=True)]
        return keys, are_good

    def _echoes(self, scan: Scan) -> list[bytes]:
        data = scan.data
        columns: list[list[bytes]] = []
        for piece in self._echo_pieces:
            if isinstance(piece, bytes):
                columns.append([piece] * len(scan.ok))
                continue
            first, last = piece
            starts, ends = scan.spans[first].start.tolist(), scan.spans[last].end.tolist()
            columns.append([data[a:b] for a, b in zip(starts, ends, strict=True)])
        if len(columns) == 1:
            return columns[0]
        return [b"".join(pieces) for pieces in zip(*columns, strict=True)] if columns else [b""] * len(scan.ok)


def is_good_key(parts: Sequence[bytes]) -> bool:
    """No part is empty, and none has the separator in it: otherwise two SKUs could share a key."""
    return all(part and KEY_SEPARATOR not in part for part in parts)


def _echo_pieces(writer: RecordType, names: Sequence[str], defaults: Mapping[str, bytes]) -> list[EchoPiece]:
    """The echo as few slices as possible: fields that stand together in the message are cut out together."""
    follows = {(first.name, second.name) for first, second in pairwise(writer.fields)}
    pieces: list[EchoPiece] = []
    for name in names:
        last = pieces[-1] if pieces else None
        if name in defaults:
            pieces.append(defaults[name])
        elif isinstance(last, tuple) and (last[1], name) in follows:
            pieces[-1] = (last[0], name)
        else:
            pieces.append((name, name))
    return pieces

"""The keys that a replay is for: a file with one per line, and a decoder that leaves all other records out.      (pure)"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from worker.decode import Columns, Decoded, Decodes
from worker.errors import ConfigurationError
from worker.records import Records, Rejection

MAX_BYTES: Final = 64 << 20
"""A file of keys that is larger isn't one; a million keys of 40 characters are 41 MB."""
_MAX_PROBLEMS: Final = 5


def read_keys(path: Path, key_fields: int) -> frozenset[bytes]:
    """The keys in `path`: UTF-8, one `sku|store` per line, empty lines and spaces around a key don't count.

    key_fields: how many parts a key has (`wire.key_fields`). Raises `ConfigurationError`.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise ConfigurationError(f"--keys {path}: got {size_bytes} bytes, expected {MAX_BYTES} at most; split it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"--keys {path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"--keys {path}: isn't UTF-8 text ({error.reason} at byte {error.start})") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    wrong = [
        (number, key) for number, key in lines if key and (key.count("|") != key_fields - 1 or "" in key.split("|"))
    ]
    if wrong:
        shown = "; ".join(f"line {number}: {key[:60]!r}" for number, key in wrong[:_MAX_PROBLEMS])
        raise ConfigurationError(
            f"--keys {path}: {len(wrong)} lines aren't keys, expected {key_fields} parts joined by '|' "
            f"(wire.key_fields): {shown}"
        )
    keys = frozenset(key.encode() for _, key in lines if key)
    if not keys:
        raise ConfigurationError(f"--keys {path}: got no key, expected at least one, one per line")
    return keys


def digest_of(keys: frozenset[bytes] | None) -> str:
    """Short digest of a set of keys, whatever their order in the file; "" for None."""
    return "" if keys is None else hashlib.sha256(b"\n".join(sorted(keys))).hexdigest()[:16]


class SelectingDecoder:
    """`Decodes` only records of the wanted keys; the others leave no trace but their position.

    A key is what the event's fields say. Where they can't be read (a rejection) or aren't there (a tombstone), it is the
    message's key.

    Args:
        inner: decodes everything.
        wanted: says whether a key is wanted.
    """

    def __init__(self, inner: Decodes, wanted: Callable[[bytes], bool]) -> None:
        self._inner = inner
        self._wanted = wanted

    def decode(self, records: Records, columns: Columns, start: int) -> Decoded:
        """See `Decoder.decode`."""
        decoded = self._inner.decode(records, columns, start)
        rows = [row for row, key in enumerate(decoded.keys) if self._wanted(key)]
        tombstones = [index for index in decoded.tombstones.tolist() if self._named(records.keys[index])]
        rejections: list[tuple[int, Rejection]] = [
            (index, rejection) for index, rejection in decoded.rejections if self._named(records.keys[index])
        ]
        if len(rows) < decoded.rows:
            for column in columns.values():
                column[start : start + len(rows)] = column[start + np.asarray(rows, dtype=np.intp)]
        return replace(
            decoded,
            rows=len(rows),
            sources=decoded.sources[rows] if rows else decoded.sources[:0],
            keys=[decoded.keys[row] for row in rows],
            echoes=[decoded.echoes[row] for row in rows],
            tombstones=np.array(tombstones, dtype=np.intp),
            rejections=rejections,
        )

    def _named(self, key: bytes | None) -> bool:
        return key is not None and self._wanted(key)

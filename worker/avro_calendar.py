"""Which numbers of a date or time field any reader can make a date of: years 1 to 9999, as Python, SQL and ISO 8601 have.

A forecast repeats its event's fields. Avro allows a day in the year 100,000; a consumer that decodes it fails, and with it
all that is behind it on the partition. So such an event is refused.                                              (pure)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from worker.avro import Schema

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_DAY_MS = 86_400_000
_FIRST_MS, _END_MS = _FIRST_DAY * _DAY_MS, _LAST_DAY * _DAY_MS + _DAY_MS

LIMITS: Mapping[str, tuple[int, int]] = {
    "date": (_FIRST_DAY, _LAST_DAY),
    "timestamp-millis": (_FIRST_MS, _END_MS - 1),
    "timestamp-micros": (_FIRST_MS * 1000, _END_MS * 1000 - 1),
    "local-timestamp-millis": (_FIRST_MS, _END_MS - 1),
    "local-timestamp-micros": (_FIRST_MS * 1000, _END_MS * 1000 - 1),
}
"""Logical type -> the least and the greatest number that is a date or time of the years 1 to 9999."""


def calendar_limits(schema: Schema, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Limits of those fields of the record `schema` that are called one of `names` and are dates or times."""
    fields = cast("Sequence[Mapping[str, object]]", schema["fields"])
    found = {str(field["name"]): _logical_type(field["type"]) for field in fields if field["name"] in names}
    return {name: LIMITS[kind] for name, kind in found.items() if kind is not None and kind in LIMITS}


def _logical_type(avro_type: object) -> str | None:
    """Of a type, or of the first branch of a union that has one."""
    if isinstance(avro_type, list):
        return next((kind for branch in avro_type if (kind := _logical_type(branch))), None)
    if not isinstance(avro_type, Mapping):
        return None
    kind = avro_type.get("logicalType")
    return kind if isinstance(kind, str) else _logical_type(avro_type.get("type"))

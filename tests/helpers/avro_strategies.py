"""Generated schemas and messages: shapes that are read at once, and shapes that aren't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.helpers.avro import Case, Json

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
FLOAT64 = st.floats(min_value=-1e37, max_value=1e37)
INT = st.integers(-(2**31), 2**31 - 1)
LONG = st.integers(-(2**63), 2**63 - 1)
KEY_TEXT = st.text(st.characters(exclude_characters="|", codec="utf-8"), min_size=1, max_size=90)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=80),
    "bytes": st.binary(max_size=150),
    "boolean": st.booleans(),
    "int": INT,
    "long": LONG,
    "float": FLOAT32,
    "double": FLOAT64,
}
KEY_VALUES: dict[str, st.SearchStrategy[Any]] = {"string": KEY_TEXT, "int": INT, "long": LONG}


@dataclass(frozen=True, kw_only=True)
class FieldCase:
    """One field: its type for writer and reader (None: that side lacks it), a value of it, and how it is used."""

    name: str
    written: Any
    read: Any
    values: st.SearchStrategy[Any]
    default: Any = None
    role: str = "other"
    width: int | None = None


def array(items: Any) -> Json:
    return {"type": "array", "items": items}


@st.composite
def inputs(draw: st.DrawFn, name: str, *, fast: bool) -> FieldCase:
    width = draw(st.one_of(st.none(), st.integers(0, 80)))
    kinds = ["float", "double"] if width is not None else ["float", "double", "int", "long", "boolean"]
    written: Any
    read: Any
    written = read = draw(st.sampled_from(kinds))
    if not fast:
        written, read = draw(
            st.sampled_from([("int", "float"), ("long", "double"), ("float", "double"), ("int", "int")])
        )
    values = VALUES[written]
    if not fast and draw(st.booleans()):
        written = ["null", written]
    default: Any = 0
    if width is not None:
        written, read, default = array(written), array(read), [0.25] * width
        values = st.lists(values, min_size=width, max_size=width)
    elif read in {"float", "double"}:
        default = 1.5
    elif read == "boolean":
        default = True
    if draw(st.booleans()) and draw(st.booleans()):
        written = None
    return FieldCase(name=name, written=written, read=read, values=values, default=default, role="input", width=width)


@st.composite
def extras(draw: st.DrawFn, name: str, *, fast: bool) -> FieldCase:
    if fast or draw(st.booleans()):
        kind = draw(st.sampled_from(sorted(VALUES)))
        written: Any = kind
        values = VALUES[kind]
        if kind in {"float", "double"} and draw(st.booleans()):
            written, values = array(kind), st.lists(values, max_size=70)
    else:
        written, values = draw(st.sampled_from(_slow_types(name)))
    return FieldCase(name=name, written=written, read=draw(st.sampled_from([written, None])), values=values)


def _slow_types(name: str) -> list[tuple[Any, st.SearchStrategy[Any]]]:
    nested = {
        "type": "record",
        "name": f"R_{name}",
        "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}],
    }
    return [
        (["null", "string"], st.none() | st.text(max_size=9)),
        (array("long"), st.lists(LONG, max_size=9)),
        (array(array("double")), st.lists(st.lists(FLOAT64, max_size=4), max_size=4)),
        ({"type": "map", "values": "int"}, st.dictionaries(st.text(max_size=5), INT, max_size=4)),
        ({"type": "enum", "name": f"E_{name}", "symbols": ["A", "B"]}, st.sampled_from(["A", "B"])),
        ({"type": "fixed", "name": f"F_{name}", "size": 5}, st.binary(min_size=5, max_size=5)),
        (nested, st.fixed_dictionaries({"a": LONG, "b": st.text(max_size=5)})),
    ]


@st.composite
def cases(draw: st.DrawFn, *, fast: bool) -> tuple[Case, list[Json]]:
    """A case and some values of its writer. fast: of a shape that the fast path must take."""
    fields: list[FieldCase] = []
    for i in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(sorted(KEY_VALUES)))
        fields.append(FieldCase(name=f"key{i}", written=kind, read=kind, values=KEY_VALUES[kind], role="key"))
    for i in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["string", "bytes", "int", "long", "boolean"]))
        fields.append(FieldCase(name=f"echo{i}", written=kind, read=kind, values=VALUES[kind], role="echo"))
    fields += [draw(inputs(f"in{i}", fast=fast)) for i in range(draw(st.integers(1, 4)))]
    fields += [draw(extras(f"x{i}", fast=fast)) for i in range(draw(st.integers(0, 3)))]
    written = draw(st.permutations([field for field in fields if field.written is not None]))
    read = draw(st.permutations([field for field in fields if field.read is not None]))
    keys = [field.name for field in fields if field.role == "key"]
    case = Case(
        writer={"type": "record", "name": "Event", "fields": [{"name": f.name, "type": f.written} for f in written]},
        reader={
            "type": "record",
            "name": "Event",
            "fields": [
                {"name": f.name, "type": f.read} | ({"default": f.default} if f.role == "input" else {}) for f in read
            ],
        },
        inputs={field.name: field.width for field in fields if field.role == "input"},
        key_fields=draw(st.permutations(keys)),
        echo_fields=draw(st.permutations(keys + [field.name for field in fields if field.role == "echo"])),
    )
    value = st.fixed_dictionaries({field.name: field.values for field in written})
    return case, draw(st.lists(value, min_size=1, max_size=6))

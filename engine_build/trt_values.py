"""TensorRT's own values as plain ones."""

from __future__ import annotations

from typing import Any


def names_of(tensors: Any) -> set[str]:  # noqa: ANN401 - an iterable of Tensor | None
    """The names of the tensors that are there."""
    return {tensor.name for tensor in tensors if tensor is not None}


def sizes_of(shape: Any) -> tuple[int | None, ...]:  # noqa: ANN401 - a Dims
    """Sizes, None for a dynamic one."""
    return tuple(None if int(size) < 0 else int(size) for size in shape)


def at_rows(shape: tuple[int | None, ...], rows: int) -> tuple[int, ...]:
    """The shape with `rows` for the dynamic size."""
    return tuple(rows if size is None else size for size in shape)


def dtype_of(dtype: Any) -> str:  # noqa: ANN401 - a DataType
    """A data type's name as NumPy has it."""
    name = str(getattr(dtype, "name", dtype)).lower()
    return {"float": "float32", "half": "float16"}.get(name, name)


def first_of(thing: object, *names: str) -> Any:  # noqa: ANN401
    """The first of the attributes that is there: libraries rename what they replace."""
    return next(getattr(thing, name) for name in names if hasattr(thing, name))

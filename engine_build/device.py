"""The GPU of this machine and its memory, by way of cuda-python; and CUDA calls whose status is looked at."""

from __future__ import annotations

import importlib
from typing import Any

from engine_build.errors import OutOfMemoryError, PlanError
from schemas.plan_choice import Gpu


def runtime_api() -> Any:  # noqa: ANN401 - a module without types
    """cuda-python's runtime module, or None without it."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError):
        return None


def find_gpu(cuda: Any) -> Gpu | None:  # noqa: ANN401
    """The first GPU that CUDA shows; None without one, without its driver, or without cuda-python (`cuda` is None).

    `CUDA_VISIBLE_DEVICES` says which one is the first.
    """
    if cuda is None:
        return None
    status, count = cuda.cudaGetDeviceCount()
    if int(status) != 0 or not count:
        return None
    properties = checked(cuda.cudaGetDeviceProperties(0))
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(
        name=name.rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        free_bytes=free_bytes(cuda),
    )


def free_bytes(cuda: Any) -> int:  # noqa: ANN401
    """Device memory that is free now, for all processes together. Raises `PlanError`."""
    free, _ = checked(cuda.cudaMemGetInfo())
    return int(free)


def checked(result: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """The value or values of a CUDA call. Raises `OutOfMemoryError`, or `PlanError` with the name of its status."""
    status, *values = result
    if int(status) != 0:
        name = str(getattr(status, "name", status))
        if "MemoryAllocation" in name:
            raise OutOfMemoryError("CUDA: out of device memory; free the GPU or lower the profile's maximum")
        raise PlanError(f"CUDA: {name}; see the driver's log (`nvidia-smi`, `dmesg`)")
    return values[0] if len(values) == 1 else tuple(values)

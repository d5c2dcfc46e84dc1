"""Is there room for another engine? Asked before it is loaded, because afterwards the kernel may have killed the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from schemas.engine_card import EngineCard, Plan
from worker.model_status import DeviceMemory

HOST_FACTOR = 3
"""An ONNX session takes up to so many times its file while it is made: the bytes, the parsed graph, the packed weights."""

FreeBytes = Callable[[], int | None]
DeviceAsked = Callable[[], DeviceMemory | None]


_REMEDIES: Final = {
    "host": "give the worker more memory, or lower models.headroom_bytes, engine.slots or batching.max_rows",
    "device": "take other work off this GPU, lower models.headroom_bytes, or build the plan for a smaller profile",
}


class NoRoomError(Exception):
    """Host or device hasn't the memory. The message has the figures. It may have later."""


def host_free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still use: the least of what the machine and the control group leave. None: unknown."""
    limits = [limit for limit in (_machine(root), _group(root)) if limit is not None]
    return min(limits, default=None)


def needed_bytes(model_bytes: int, card: EngineCard, *, slots: int, max_rows: int) -> int:
    """An estimate of what the engine takes on the host: the model's file, and slots for `max_rows` rows each way."""
    per_row = sum(_values(tensor.shape) for tensor in (*card.inputs, *card.outputs))
    return HOST_FACTOR * model_bytes + slots * max_rows * per_row * 4


def stated_device_bytes(card: EngineCard) -> int:
    """The most that any plan of the version takes on a device, bytes; 0 without plans."""
    return max((plan_device_bytes(plan) for plan in card.plans), default=0)


def plan_device_bytes(plan: Plan) -> int:
    """What a plan takes on the device, bytes: what its card states, and its file, whose weights may lie there beside it."""
    return (plan.device_memory_bytes or 0) + plan.size_bytes


def require_room(where: Literal["host", "device"], needed: int, free: int | None, headroom: int) -> None:
    """Raise `NoRoomError` unless `needed` bytes of the `free` ones leave `headroom`. Unknown free memory is enough."""
    if free is not None and free - needed < headroom:
        raise NoRoomError(
            f"{where} memory: needs {_mib(needed)}, free are {_mib(free)}, and {_mib(headroom)} must stay free; "
            f"{_REMEDIES[where]}"
        )


def _values(shape: tuple[object, ...]) -> int:
    count = 1
    for size in shape[1:]:
        count *= size if isinstance(size, int) else 1
    return count


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MiB"


def _machine(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group(root: Path) -> int | None:
    """Of control groups version 2, as a container sees its own. What the kernel can drop at once counts as free."""
    folder = root / "sys/fs/cgroup"
    limit, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
    if not limit.isdigit() or not used.isdigit():
        return None  # "max", or no such group
    droppable = next(
        (
            int(line.split()[1])
            for line in _text(folder / "memory.stat").splitlines()
            if line.startswith("inactive_file ")
        ),
        0,
    )
    return max(0, int(limit) - int(used) + droppable)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""

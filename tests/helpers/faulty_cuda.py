"""Wraps CUDA's runtime, the real one or the fake, and makes chosen calls fail without being made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.cuda import STICKY

_ASKING = frozenset({"cudaGetErrorName", "cudaGetErrorString", "cudaGetLastError"})


@dataclass(frozen=True, slots=True)
class Fault:
    """Which call fails: the `at`-th of all (from 0), or the next one of that name (and that first argument)."""

    code: int
    at: int | None = None
    name: str | None = None
    argument: int | None = None

    def hits(self, number: int, name: str, arguments: tuple[Any, ...]) -> bool:
        return (
            (self.at is None or number == self.at)
            and (self.name is None or name == self.name)
            and (self.argument is None or arguments[:1] == (self.argument,))
        )


class FaultyCuda:
    """`api` with faults. After a sticky code every call fails with it. `calls`: names of all calls that could fail.

    `on_loss`: called at a sticky code.
    """

    def __init__(self, api: Any, on_loss: Callable[[], None] = lambda: None) -> None:
        self._api = api
        self._on_loss = on_loss
        self._lost: int | None = None
        self.faults: list[Fault] = []
        self.calls: list[str] = []

    def fail(self, code: int, *, at: int | None = None, name: str | None = None, argument: int | None = None) -> None:
        """See `Fault`. It hits once."""
        self.faults.append(Fault(code, at, name, argument))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._api, name)
        if not name.startswith("cuda") or name in _ASKING or isinstance(found, type) or not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            number = len(self.calls)
            self.calls.append(name)
            code = self._lost
            for fault in self.faults:
                if code is None and fault.hits(number, name, arguments):
                    self.faults.remove(fault)
                    code = fault.code
                    if code in STICKY:
                        self._lost = code
                        self._on_loss()
                    break
            if code is not None:
                return (self._api.cudaError_t(code), None, None)
            return found(*arguments)

        return call

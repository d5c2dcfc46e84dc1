"""What the loop asks of an engine: shapes, dtypes, order, and who owns which memory until when.

Ownership of a slot moves in a circle and is never shared:

    acquire() -> batcher fills rows -> submit() -> engine computes -> collect() -> guard, encode -> release() -> engine

Order: tickets are collected in the order they were submitted. Nothing here is thread-safe: one loop thread owns it all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.engine_card import Plan

Columns = Mapping[str, NDArray[np.float32]]
"""Input name -> float32[max_rows, width] (an Avro array of numbers) or float32[max_rows] (an Avro number)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an engine takes and gives, and what every forecast made by it says about its origin.

    inputs: name -> values per row; None for a scalar. Raw units in and out, dtype float32.
    horizon: days ahead. quantiles: levels, ascending, in (0, 1). Output: float32[rows, horizon, len(quantiles)].
    max_rows: the largest batch. digest: sha256 (hex) of the bytes that compute; plan: what the card says of them, None if
    they are the ONNX file. proof_rows: batch sizes that go every way the engine has for a batch, empty if there is but one.
    """

    inputs: Mapping[str, int | None]
    horizon: int
    quantiles: tuple[float, ...]
    max_rows: int
    model: str
    version: str
    precision: str
    digest: str
    plan: Plan | None = None
    proof_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Room for the inputs of one batch. The holder may write rows [0, max_rows) of every column, until it submits it."""

    index: int
    columns: Columns


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A batch that the engine has. `rows` rows of `slot` were submitted."""

    slot: Slot
    rows: int
    sequence: int


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """float32[rows, horizon, quantiles], in the order of the submitted rows. A view: valid until the slot is released."""

    values: NDArray[np.float32]
    spec: EngineSpec


class Engine(Protocol):
    """Runs batches. All methods are called from the loop's thread.

    `submit` may return before the result is there. Implementations: `onnx_engine.OnnxEngine`, and the fake of the tests.
    """

    @property
    def spec(self) -> EngineSpec:
        """What this engine takes and gives. Constant over its life."""
        ...

    def acquire(self) -> Slot | None:
        """A free slot, or None if all are in use. Doesn't block. Its contents are arbitrary."""
        ...

    def submit(self, slot: Slot, rows: int) -> Ticket:
        """Start computing rows [0, rows) of `slot`. The slot is the engine's until `collect`.

        Raises `ValueError` unless 1 <= rows <= max_rows and the slot was acquired; `EngineError` if the batch failed,
        and then the slot is the caller's again.
        """
        ...

    def wait(self, ticket: Ticket, timeout_s: float) -> bool:
        """True once `collect(ticket)` wouldn't block, False after `timeout_s` seconds."""
        ...

    def collect(self, ticket: Ticket) -> Forecasts:
        """The result of the oldest ticket; blocks until it is there. The result's memory is the caller's until `release`.

        Raises `ValueError` if `ticket` isn't the oldest one outstanding; `EngineError` if the batch failed, and then the
        slot is the caller's again; `FatalEngineError` if the engine is lost.
        """
        ...

    def release(self, slot: Slot) -> None:
        """Give a slot back, after `collect`, or unused. Views of it are invalid from here on."""
        ...

    def close(self) -> None:
        """Free everything. Idempotent. Outstanding tickets are lost."""
        ...

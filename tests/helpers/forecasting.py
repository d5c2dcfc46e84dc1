"""What runs and checks batches, put together for tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from worker.backup_wait import BackupWait
from worker.batching import Batch
from worker.breaker import Breaker
from worker.checked import Checked, Part
from worker.deadline import Clock
from worker.engine import Engine, Forecasts
from worker.forecasting import Forecasting
from worker.guard import faults
from worker.guard_reference import Reference
from worker.guard_watch import Guard
from worker.hotswap import EngineSlot
from worker.records import Reason, Rejection
from worker.settings_guard import GuardSettings
from worker.standby import StandBy
from worker.statistics import Tallies
from worker.takeover import Takeover


def forecasting(
    engines: EngineSlot,
    *,
    tallies: Tallies,
    breaker: Breaker,
    clock: Clock,
    limits: GuardSettings | None = None,
    references: Mapping[str, Reference] | None = None,
    standby: Engine | None = None,
    floor_rows: int = 1,
) -> Forecasting:
    """Everything between the batcher and the publisher. A version's stand-by, else `standby`, stands in for any engine; all waits are 30 s."""
    limits = limits or GuardSettings()
    guard = Guard(limits, references or {})
    takeover = Takeover(
        engines=engines,
        standby=StandBy(
            lambda engine: engines.standby_of(engine) or standby, retry_s=30.0, probe_rows=floor_rows, clock=clock
        ),
        wait=BackupWait(engines, most_s=30.0, clock=clock),
        guard=guard,
        breaker=breaker,
        poison_rows=limits.poison_rows,
        floor_rows=floor_rows,
        tallies=tallies,
    )
    return Forecasting(
        takeover=takeover, guard=guard, without_backup=limits.without_backup, tallies=tallies, clock=clock
    )


def checked(batch: Batch, forecasts: Forecasts | None) -> Checked | None:
    """What of `forecasts` may be published by the rules for single rows; the others are rejected."""
    if forecasts is None:
        return None
    rejections = [
        (fault.row, Rejection(record=batch.record(fault.row), reason=Reason.BAD_FORECAST, detail=fault.detail))
        for fault in faults(forecasts.values)
    ]
    if not rejections:
        return Checked(parts=[Part(rows=None, forecasts=forecasts, fallback_reason=None)], rejections=[])
    kept = np.delete(np.arange(batch.rows), [row for row, _ in rejections])
    part = Part(rows=kept, forecasts=Forecasts(forecasts.values[kept], forecasts.spec), fallback_reason=None)
    return Checked(parts=[part] if len(kept) else [], rejections=rejections)

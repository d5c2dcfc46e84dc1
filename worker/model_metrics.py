"""The metrics of model versions: which serve, how they came and went, what it cost.                               (pure)"""

from __future__ import annotations

import math

from worker.metric_declaration import Declaration, Samples
from worker.model_status import LOAD_BOUNDS_S
from worker.statistics import Histogram, Statistics
from worker.version_states import State

SHOWN = (State.SERVING, State.BACKUP, State.SHADOW)


def _versions(statistics: Statistics, _: float) -> Samples:
    return [
        ((state.value, version.name, version.digest), 1)
        for version, state in statistics.models.states.items()
        if state in SHOWN
    ]


def _refused(statistics: Statistics, _: float) -> Samples:
    models = statistics.models
    return [((), len(models.refused) + len(models.unreadable))]


def _outcomes(statistics: Statistics, _: float) -> Samples:
    return [((outcome.value,), count) for outcome, count in statistics.models.outcomes.items()]


def _loads(statistics: Statistics, _: float) -> Samples:
    return [
        ((phase.value,), Histogram(LOAD_BOUNDS_S, counts, total_s))
        for phase, (counts, total_s) in statistics.models.loads.items()
    ]


def _differences(statistics: Statistics, _: float) -> Samples:
    found = statistics.models.shadow
    if found is None:
        return []
    values = {
        "wape": found.wape,
        "bias": found.bias,
        "width_ratio": found.width_ratio,
        "latency_ratio": found.latency_ratio,
    }
    return [((name,), value) for name, value in values.items() if math.isfinite(value)]


def _device(statistics: Statistics, _: float) -> Samples:
    device = statistics.models.device
    return [] if device is None else [(("used",), device.used_bytes), (("free",), device.free_bytes)]


MODEL_METRICS: tuple[Declaration, ...] = (
    Declaration(
        name="forecast_worker_swaps_total",
        kind="counter",
        help="attempts to change versions, by outcome (served; refused; rolled_back: by this worker's guard; "
        "left: quarantined by the fleet)",
        labels=("outcome",),
        read=_outcomes,
    ),
    Declaration(
        name="forecast_worker_load_seconds",
        kind="histogram",
        help="time of one phase of loading a version, or of closing one that served or backed up (close), seconds",
        labels=("phase",),
        read=_loads,
    ),
    Declaration(
        name="forecast_worker_step_seconds",
        kind="histogram",
        help="time of one step of the loop without waiting for records, seconds; "
        "during a swap (a version is loaded, tried, handed over or closed), or in steady state",
        labels=("during",),
        read=lambda statistics, _: [((during,), values) for during, values in statistics.steps.items()],
    ),
    Declaration(
        name="forecast_worker_version_info",
        kind="info",
        help="the versions that serve, back up and run in the shadow; the value is always 1",
        labels=("role", "version", "digest"),
        read=_versions,
    ),
    Declaration(
        name="forecast_worker_refused_versions",
        kind="gauge",
        help="published versions that this worker won't run; /ready says why",
        read=_refused,
    ),
    Declaration(
        name="forecast_worker_quarantined_versions",
        kind="gauge",
        help="versions that no worker may run",
        read=lambda statistics, _: [((), len(statistics.models.quarantined))],
    ),
    Declaration(
        name="forecast_worker_shadow_rows",
        kind="gauge",
        help="rows compared in the trial under way",
        read=lambda statistics, _: [((), 0 if statistics.models.shadow is None else statistics.models.shadow.rows)],
    ),
    Declaration(
        name="forecast_worker_shadow_difference",
        kind="gauge",
        help="how the shadow differs from the serving version, by measure (wape, bias, width_ratio, latency_ratio)",
        labels=("measure",),
        read=_differences,
    ),
    Declaration(
        name="forecast_worker_device_memory_bytes",
        kind="gauge",
        help="the accelerator's memory, used and free, bytes",
        labels=("state",),
        read=_device,
    ),
)

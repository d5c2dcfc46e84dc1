from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from worker.model_metrics import MODEL_METRICS, SHOWN
from worker.model_status import LOAD_BOUNDS_S, DeviceMemory, Difference, ModelStatus, Outcome, Phase, counted
from worker.statistics import Histogram, Statistics, Tallies
from worker.version_choice import VersionId
from worker.version_states import State

VERSIONS = {state: VersionId(f"v-{state}", f"{i}" * 64) for i, state in enumerate(State)}
READERS = {each.name: each for each in MODEL_METRICS}


def statistics(**status: Any) -> Statistics:
    return replace(Tallies().snapshot(0.0), models=ModelStatus(**status))


def read(name: str, **status: Any) -> dict[tuple[str, ...], Any]:
    return dict(READERS[f"forecast_worker_{name}"].read(statistics(**status), 0.0))


def test_the_versions_with_a_role_are_shown_with_name_and_digest() -> None:
    found = read("version_info", states={version: state for state, version in VERSIONS.items()})
    assert found == {(state.value, VERSIONS[state].name, VERSIONS[state].digest): 1 for state in SHOWN}
    assert set(SHOWN) == {State.SERVING, State.BACKUP, State.SHADOW}
    assert read("version_info") == {}


def test_refused_versions_and_folders_that_cannot_be_read_are_counted() -> None:
    assert read("refused_versions") == {(): 0}
    refused = {VERSIONS[State.REFUSED]: "truncated"}
    assert read("refused_versions", refused=refused, unreadable={"a": "x", "b": "y"}) == {(): 3}


def test_quarantined_versions_are_counted() -> None:
    assert read("quarantined_versions") == {(): 0}
    assert read("quarantined_versions", quarantined={VERSIONS[State.RETIRED]: "drifts"}) == {(): 1}


def test_every_outcome_has_its_count_from_the_start() -> None:
    assert read("swaps_total") == {(outcome.value,): 0 for outcome in Outcome}
    outcomes = MappingProxyType({**dict.fromkeys(Outcome, 0), Outcome.LEFT: 3})
    assert read("swaps_total", outcomes=outcomes)[("left",)] == 3


def test_each_phase_is_a_histogram() -> None:
    loads = counted(counted(MappingProxyType({}), Phase.WARM, 0.3), Phase.WARM, 1000.0)
    found = read("load_seconds", loads=loads)
    counts = [0] * (len(LOAD_BOUNDS_S) + 1)
    counts[LOAD_BOUNDS_S.index(0.5)] = counts[-1] = 1
    assert found == {("warm",): Histogram(LOAD_BOUNDS_S, tuple(counts), 1000.3)}


def test_a_trial_shows_its_rows_and_the_measures_that_are_known() -> None:
    assert read("shadow_rows") == {(): 0}
    assert read("shadow_difference") == {}
    shadow = Difference(rows=70, wape=0.2, bias=-0.1, width_ratio=float("inf"), latency_ratio=float("nan"))
    assert read("shadow_rows", shadow=shadow) == {(): 70}
    assert read("shadow_difference", shadow=shadow) == {("wape",): 0.2, ("bias",): -0.1}
    whole = replace(shadow, width_ratio=1.1, latency_ratio=2.0)
    assert read("shadow_difference", shadow=whole) == {
        ("wape",): 0.2,
        ("bias",): -0.1,
        ("width_ratio",): 1.1,
        ("latency_ratio",): 2.0,
    }


def test_the_devices_memory_is_shown_where_there_is_a_device() -> None:
    assert read("device_memory_bytes") == {}
    device = DeviceMemory(used_bytes=7, free_bytes=9)
    assert read("device_memory_bytes", device=device) == {("used",): 7, ("free",): 9}


def test_steps_are_told_apart_by_what_goes_on_meanwhile() -> None:
    found = READERS["forecast_worker_step_seconds"].read(statistics(), 0.0)
    assert {labels for labels, _ in found} == {(during,) for during in statistics().steps}
    assert len(statistics().steps) == 2


@pytest.mark.parametrize("metric", MODEL_METRICS, ids=lambda metric: metric.name)
def test_labels_and_samples_agree(metric: Any) -> None:
    full = statistics(
        states={version: state for state, version in VERSIONS.items()},
        loads=counted(MappingProxyType({}), Phase.LOAD, 1.0),
        shadow=Difference(rows=1, wape=0.0, bias=0.0, width_ratio=1.0, latency_ratio=1.0),
        device=DeviceMemory(used_bytes=1, free_bytes=1),
    )
    samples = metric.read(full, 0.0)
    assert samples
    assert all(len(labels) == len(metric.labels) for labels, _ in samples)

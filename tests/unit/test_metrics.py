import re

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from worker.engine import EngineSpec
from worker.metrics import METRICS, StatisticsCollector
from worker.records import Reason
from worker.statistics import Stage, Tallies


def scraped(
    tallies: Tallies, *, taken_s: float = 10.0, now_s: float = 12.5
) -> dict[tuple[str, tuple[str, ...]], float]:
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(lambda: tallies.snapshot(taken_s), lambda: now_s))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_names_and_helps_follow_the_rules() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"forecast_worker_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.endswith("_info") == (metric.kind == "info"), metric.name
        assert not metric.name.endswith(("_ms", "_kb", "_mb")), metric.name
        assert not metric.name.endswith("_seconds") or "seconds" in metric.help, metric.name
        assert metric.help[0].islower() or metric.help[0].isdigit(), metric.name


def test_a_new_worker_shows_every_declared_series_that_can_be_known() -> None:
    found = {name for name, _ in scraped(Tallies())}
    assert found >= {metric.name for metric in METRICS if not metric.labels and metric.kind in {"counter", "gauge"}} - {
        "forecast_worker_since_poll_seconds",
        "forecast_worker_engine_max_rows",
        "forecast_worker_keys_fresh_ratio",
    }
    assert "forecast_worker_since_poll_seconds" not in found
    assert "forecast_worker_engine_info" not in found


def test_values_and_labels() -> None:
    tallies = Tallies()
    tallies.polled(7, 9.0)
    tallies.batch(3, "full", superseded=1)
    tallies.rejected(Reason.NOT_FINITE, 2)
    tallies.forecast(3)
    tallies.withdrawn(1)
    tallies.transaction("committed")
    tallies.rebalanced("assigned")
    tallies.assigned([4, 5])
    tallies.lag(4, 11, 2.5)
    tallies.not_ready([])
    tallies.engine(
        EngineSpec(
            inputs={}, horizon=1, quantiles=(0.5,), max_rows=64, model="m", version="2", precision="fp16", digest="d"
        )
    )
    found = scraped(tallies)
    assert found["forecast_worker_polls_total", ()] == 1
    assert found["forecast_worker_records_total", ()] == 7
    assert found["forecast_worker_forecasts_total", ()] == 3
    assert found["forecast_worker_withdrawn_total", ()] == 1
    assert found["forecast_worker_superseded_total", ()] == 1
    assert found["forecast_worker_rejections_total", ("not_finite",)] == 2
    assert found["forecast_worker_rejections_total", ("oversize",)] == 0
    assert found["forecast_worker_batches_total", ("full",)] == 1
    assert found["forecast_worker_transactions_total", ("committed",)] == 1
    assert found["forecast_worker_transactions_total", ("aborted",)] == 0
    assert found["forecast_worker_rebalances_total", ("assigned",)] == 1
    assert found["forecast_worker_assigned_partitions", ()] == 2
    assert found["forecast_worker_lag_records", ("4",)] == 11
    assert found["forecast_worker_lag_seconds", ("4",)] == 2.5
    assert found["forecast_worker_since_poll_seconds", ()] == 3.5
    assert found["forecast_worker_since_step_seconds", ()] == 2.5
    assert found["forecast_worker_ready", ()] == 1
    assert found["forecast_worker_engine_max_rows", ()] == 64
    assert found["forecast_worker_engine_info", ("d", "m", "fp16", "2")] == 1  # the labels come out sorted


def test_histograms_are_cumulative_with_sum_and_count() -> None:
    tallies = Tallies()
    for rows in (1, 2, 3, 100_000):
        tallies.batch(rows, "full")
    tallies.stage(Stage.COMMIT, 0.03)
    tallies.end_to_end(np.array([2.0, 3.0]), 2)
    found = scraped(tallies)
    assert found["forecast_worker_batch_rows_bucket", ("1.0",)] == 1
    assert found["forecast_worker_batch_rows_bucket", ("2.0",)] == 2
    assert found["forecast_worker_batch_rows_bucket", ("4.0",)] == 3
    assert found["forecast_worker_batch_rows_bucket", ("65536.0",)] == 3
    assert found["forecast_worker_batch_rows_bucket", ("+Inf",)] == 4
    assert found["forecast_worker_batch_rows_count", ()] == 4
    assert found["forecast_worker_batch_rows_sum", ()] == 100_006
    assert found["forecast_worker_stage_seconds_count", ("commit",)] == 1
    assert found["forecast_worker_stage_seconds_count", ("poll",)] == 0
    assert found["forecast_worker_end_to_end_seconds_sum", ()] == pytest.approx(5.0)
    assert found["forecast_worker_commit_rows_bucket", ("1.0",)] == 0
    assert found["forecast_worker_commit_rows_bucket", ("2.0",)] == 1
    assert found["forecast_worker_commit_rows_sum", ()] == 2


def test_registering_reads_no_statistics() -> None:
    def unavailable() -> object:
        raise AssertionError("read before the first scrape")

    CollectorRegistry().register(StatisticsCollector(unavailable, lambda: 0.0))  # type: ignore[arg-type]


def test_clocks_that_are_a_little_ahead_give_no_negative_ages() -> None:
    assert scraped(Tallies(), taken_s=5.0, now_s=4.9)["forecast_worker_since_step_seconds", ()] == 0

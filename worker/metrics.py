"""The Prometheus metrics: one frozen declaration of all of them, and a collector that renders a snapshot.

A scrape runs on a thread of the HTTP server and reads one `Statistics`, which never changes; see `health.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from worker.metric_declaration import Declaration, Samples
from worker.model_metrics import MODEL_METRICS
from worker.statistics import Histogram, Statistics


def _one(value: Callable[[Statistics], float | Histogram]) -> Callable[[Statistics, float], Samples]:
    return lambda statistics, _: [((), value(statistics))]


def _each(
    values: Callable[[Statistics], Iterable[tuple[str, float | Histogram]]],
) -> Callable[[Statistics, float], Samples]:
    return lambda statistics, _: [((str(label),), value) for label, value in values(statistics)]


def _since_poll(statistics: Statistics, now_s: float) -> Samples:
    return [] if statistics.last_poll_s is None else [((), max(0.0, now_s - statistics.last_poll_s))]


def _since_step(statistics: Statistics, now_s: float) -> Samples:
    return [((), max(0.0, now_s - statistics.taken_s))]


def _lag_records(statistics: Statistics, _: float) -> Samples:
    return [((str(partition),), lag.records) for partition, lag in statistics.lags.items()]


def _lag_seconds(statistics: Statistics, _: float) -> Samples:
    return [((str(partition),), lag.seconds) for partition, lag in statistics.lags.items()]


def _keys_fresh(statistics: Statistics, _: float) -> Samples:
    share = statistics.keys.share
    return [] if share is None else [((), share)]


def _engine_info(statistics: Statistics, _: float) -> Samples:
    engine = statistics.engine
    return [] if engine is None else [((engine.model, engine.version, engine.precision, engine.digest), 1)]


def _backup_info(statistics: Statistics, _: float) -> Samples:
    backup = statistics.backup
    return [] if backup is None else [((backup.model, backup.version, backup.precision, backup.digest), 1)]


def _engine_rows(statistics: Statistics, _: float) -> Samples:
    return [] if statistics.engine is None else [((), statistics.engine.max_rows)]


METRICS: tuple[Declaration, ...] = (
    Declaration(
        name="forecast_worker_polls_total",
        kind="counter",
        help="polls of the input topic",
        read=_one(lambda s: s.polls),
    ),
    Declaration(
        name="forecast_worker_records_total",
        kind="counter",
        help="records read, also those read again after an abort",
        read=_one(lambda s: s.records),
    ),
    Declaration(
        name="forecast_worker_forecasts_total",
        kind="counter",
        help="forecasts produced, rows",
        read=_one(lambda s: s.forecasts),
    ),
    Declaration(
        name="forecast_worker_withdrawn_total",
        kind="counter",
        help="tombstones passed through: forecasts of delisted keys withdrawn",
        read=_one(lambda s: s.withdrawn),
    ),
    Declaration(
        name="forecast_worker_superseded_total",
        kind="counter",
        help="events not computed because a newer one of their key was in the same batch",
        read=_one(lambda s: s.superseded),
    ),
    Declaration(
        name="forecast_worker_rejections_total",
        kind="counter",
        help="records sent to the dead letters, by reason code",
        labels=("reason",),
        read=_each(lambda s: s.rejections.items()),
    ),
    Declaration(
        name="forecast_worker_batches_total",
        kind="counter",
        help="batches, by the reason that cut them",
        labels=("reason",),
        read=_each(lambda s: s.batches.items()),
    ),
    Declaration(
        name="forecast_worker_batch_rows", kind="histogram", help="batch sizes, rows", read=_one(lambda s: s.batch_rows)
    ),
    Declaration(
        name="forecast_worker_stage_seconds",
        kind="histogram",
        help="time of one pass through a stage, seconds (queue: how long the oldest row of a batch waited; "
        "engine: from submitting a batch to fetching it, other stages meanwhile)",
        labels=("stage",),
        read=_each(lambda s: s.stages.items()),
    ),
    Declaration(
        name="forecast_worker_end_to_end_seconds",
        kind="histogram",
        help="from the event's time to the commit of its forecast, seconds",
        read=_one(lambda s: s.end_to_end),
    ),
    Declaration(
        name="forecast_worker_commit_rows",
        kind="histogram",
        help="rows of a commit: the demand of a commit window, for `engine-build profile` (commits without rows left out)",
        read=_one(lambda s: s.commit_rows),
    ),
    Declaration(
        name="forecast_worker_transactions_total",
        kind="counter",
        help="transactions (with at_least_once: commits), by outcome",
        labels=("outcome",),
        read=_each(lambda s: s.transactions.items()),
    ),
    Declaration(
        name="forecast_worker_lag_records",
        kind="gauge",
        help="records between what was read and the end of an assigned partition",
        labels=("partition",),
        read=_lag_records,
    ),
    Declaration(
        name="forecast_worker_lag_seconds",
        kind="gauge",
        help="age of the last record read of an assigned partition, seconds (event time)",
        labels=("partition",),
        read=_lag_seconds,
    ),
    Declaration(
        name="forecast_worker_oldest_unserved_seconds",
        kind="gauge",
        help="age of the oldest event that waits for its forecast's commit, seconds (event time); 0 if none waits. Of a "
        "partition from which nothing is under way, the age of the last record read, if more are there",
        read=_one(lambda s: s.oldest_unserved_s),
    ),
    Declaration(
        name="forecast_worker_keys_known",
        kind="gauge",
        help="keys of the assigned partitions that had a forecast since they were assigned, up to freshness.max_keys",
        read=_one(lambda s: s.keys.known),
    ),
    Declaration(
        name="forecast_worker_keys_fresh_ratio",
        kind="gauge",
        help="share of the known keys whose last forecast was committed within freshness.window_s; counted every 10 s",
        read=_keys_fresh,
    ),
    Declaration(
        name="forecast_worker_keys_missed_total",
        kind="counter",
        help="forecasts of keys that aren't watched because freshness.max_keys are known already",
        read=_one(lambda s: s.keys.missed),
    ),
    Declaration(
        name="forecast_worker_assigned_partitions",
        kind="gauge",
        help="partitions that this worker reads",
        read=_one(lambda s: len(s.assigned)),
    ),
    Declaration(
        name="forecast_worker_rebalances_total",
        kind="counter",
        help="changes of the assignment, by kind (assigned, revoked, lost)",
        labels=("kind",),
        read=_each(lambda s: s.rebalances.items()),
    ),
    Declaration(
        name="forecast_worker_since_poll_seconds",
        kind="gauge",
        help="time since the last poll, seconds",
        read=_since_poll,
    ),
    Declaration(
        name="forecast_worker_since_step_seconds",
        kind="gauge",
        help="time since the loop's last step, seconds; grows when it hangs",
        read=_since_step,
    ),
    Declaration(
        name="forecast_worker_ready",
        kind="gauge",
        help="1 if the worker is ready, else 0",
        read=_one(lambda s: s.ready),
    ),
    Declaration(
        name="forecast_worker_engine_max_rows",
        kind="gauge",
        help="largest batch that the engine takes, rows",
        read=_engine_rows,
    ),
    Declaration(
        name="forecast_worker_engine_info",
        kind="info",
        help="the model that computes; the value is always 1",
        labels=("model", "version", "precision", "digest"),
        read=_engine_info,
    ),
    Declaration(
        name="forecast_worker_backup_info",
        kind="info",
        help="the model that takes over when the other one must go; the value is always 1",
        labels=("model", "version", "precision", "digest"),
        read=_backup_info,
    ),
    Declaration(
        name="forecast_worker_guard_trips_total",
        kind="counter",
        help="rows, and engines, that broke a rule of the guard, by rule (docs/guard.md)",
        labels=("rule",),
        read=_each(lambda s: s.guard_trips.items()),
    ),
    Declaration(
        name="forecast_worker_fallback_rows_total",
        kind="counter",
        help="forecasts that the chosen version didn't make, rows, by their fallback_reason",
        labels=("reason",),
        read=_each(lambda s: s.fallbacks.items()),
    ),
    Declaration(
        name="forecast_worker_roll_backs_total",
        kind="counter",
        help="times the backup took over, by the rule that was broken",
        labels=("rule",),
        read=_each(lambda s: s.roll_backs.items()),
    ),
    Declaration(
        name="forecast_worker_engine_failures_total",
        kind="counter",
        help="batches that failed in the engine and were computed again, by kind (error, out_of_memory)",
        labels=("kind",),
        read=_each(lambda s: s.engine_failures.items()),
    ),
    Declaration(
        name="forecast_worker_standby_active",
        kind="gauge",
        help="1 while the stand-by computes because the device's memory is full, else 0",
        read=_one(lambda s: s.standby),
    ),
    *MODEL_METRICS,
)


class StatisticsCollector(Collector):
    """Renders the statistics that `statistics` returns at each scrape. `clock` gives the same seconds as they have."""

    def __init__(self, statistics: Callable[[], Statistics], clock: Callable[[], float]) -> None:
        self._statistics = statistics
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """One family for each declaration, all from one snapshot."""
        statistics = self._statistics()
        now_s = self._clock()
        for declared in METRICS:
            yield _family(declared, declared.read(statistics, now_s))

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that registering reads no statistics."""
        return (_family(declared, ()) for declared in METRICS)


def _family(declared: Declaration, samples: Samples) -> Metric:
    if declared.kind == "counter":
        counter = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
        for labels, value in samples:
            counter.add_metric(labels, _number(value))
        return counter
    if declared.kind == "gauge":
        gauge = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
        for labels, value in samples:
            gauge.add_metric(labels, _number(value))
        return gauge
    if declared.kind == "info":
        info = InfoMetricFamily(declared.name.removesuffix("_info"), declared.help)
        for labels, _ in samples:
            info.add_metric((), dict(zip(declared.labels, labels, strict=True)))
        return info
    histogram = HistogramMetricFamily(declared.name, declared.help, labels=declared.labels)
    for labels, value in samples:
        if isinstance(value, Histogram):
            histogram.add_metric(labels, _buckets(value), value.total)
    return histogram


def _number(value: float | Histogram) -> float:
    return value.count if isinstance(value, Histogram) else float(value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus counts cumulatively: each bucket holds all values up to its bound."""
    bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(map(float, histogram.counts)), strict=True))

"""`python -m demo`: real retail data through a real Kafka, a real worker and an ONNX model, and what came of it.

Exits 0 only if every event has exactly one outcome; 1 if not; 2 if the demo couldn't be run.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from demo import backtest, backtest_report, bakery, evaluation, freshretailnet, report
from demo.artifacts import ArtifactError
from demo.bakery import DataUnavailableError
from demo.broken import OVERSIZE_BYTES, BrokenEvent, broken_events, mixed, schema_without
from demo.events import Event, EventWriter
from demo.java import JavaError
from demo.jvm import ServerError
from demo.kafka import EmbeddedKafka
from demo.ordering import propose_orders
from demo.play import Collector, PlayError, Progress, Sender, Topics, input_positions, play
from demo.reference import REFERENCE_MODELS, DaysError
from demo.replenishment import Wiring
from demo.series import SeriesSet
from demo.worker_process import HistogramSamples, WorkerFailedError, WorkerProcess, histograms
from schemas.engine_card import CARD_NAME, EngineCard, load_card
from schemas.topics import load_topics

Value = TypeVar("Value")

PERISHABLE: Final = frozenset({"bakery"})
"""Data sets whose goods are baked to order for one day: what ordering by the forecasts would have brought is worked out."""

SHORT_DAYS: Final = {"bakery": 10, "freshretailnet": 1}

_TOPICS: Final = Topics(features="sku-features", forecasts="sku-forecasts", dead_letters="sku-features.dead-letters")
_PARTITIONS: Final = 4
_BATCH_ROWS: Final = 512  # some batches a second on two cores, so that the progress bar moves
_QUIET_S: Final = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo: the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        return _run(options, console)
    except (
        DataUnavailableError,
        DaysError,
        WorkerFailedError,
        PlayError,
        ServerError,
        ArtifactError,
        JavaError,
    ) as error:
        console.print(f"The demo can't go on: {error}", style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        return 130


def worker_settings(
    bootstrap_servers: str, model: Path, writer_schemas: Sequence[Path]
) -> Mapping[str, Mapping[str, object]]:
    """The worker's settings by table. Coalescing is off: each event then has an outcome that can be counted."""
    return {
        "kafka": {"bootstrap.servers": bootstrap_servers},
        "input": {"topic": _TOPICS.features, "group_id": "demo", "max_value_bytes": OVERSIZE_BYTES},
        "output": {"topic": _TOPICS.forecasts, "dead_letter_topic": _TOPICS.dead_letters},
        "wire": {"writer_schemas": [str(path) for path in writer_schemas]},
        "engine": {"model": str(model)},
        "batching": {"coalesce": False, "max_rows": _BATCH_ROWS},
        "delivery": {"transactional_id": "demo-1", "commit_interval_s": 0.2},
        "log": {"format": "text"},
    }


def events_of(writer: EventWriter, as_of_dates: Sequence[int]) -> Iterator[Event | BrokenEvent]:
    """Day after day one event per series, and among the first days' one broken event of every kind."""
    good = itertools.chain.from_iterable(writer.events_of(as_of) for as_of in as_of_dates)
    first = next(good)
    broken = broken_events(first, writer.schema)
    one_in = 50
    with_broken = itertools.islice(good, (one_in - 1) * len(broken))
    yield first
    yield from mixed(with_broken, broken, one_in=one_in)
    yield from good


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=sorted(REFERENCE_MODELS), default="bakery", help="data set (default: bakery)")
    parser.add_argument(
        "--days", type=_days, help="days to play, from the end (default: all that the model may be judged on)"
    )
    parser.add_argument("--short", action="store_true", help="fewer days: 10, freshretailnet: 1")
    parser.add_argument("--keep", action="store_true", help="leave broker and worker up and play on until Ctrl-C")
    parser.add_argument("--pause", type=float, default=3.0, metavar="S", help="with --keep: seconds between two days")
    parser.add_argument(
        "--report", type=Path, default=Path("out/demo.html"), help="report to write (default: %(default)s)"
    )
    return parser


def _days(text: str) -> int:
    days = int(text)
    if days < 1:
        raise argparse.ArgumentTypeError(f"got {days}, expected at least 1")
    return days


def _run(options: argparse.Namespace, console: Console) -> int:
    days = options.days or (SHORT_DAYS[options.data] if options.short else None)
    reference = REFERENCE_MODELS[options.data]
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forecast-demo-")))
        bars = _bars(console)
        with bars:
            series = _step(bars, f"data: {options.data}", lambda: _load(options.data))
            as_of_dates = reference.played_dates(series, days)
            writer = EventWriter(series)
            broker = EmbeddedKafka(progress=_download_bar(bars))
            kafka = _step(bars, "broker: Apache Kafka", lambda: stack.enter_context(broker))
            _create_topics(kafka)
            settings = worker_settings(kafka.bootstrap_servers, reference.folder, _write_schemas(writer, directory))
            worker = WorkerProcess(settings, directory)
            _step(bars, "worker", lambda: stack.enter_context(worker))
            model = load_card(reference.folder / CARD_NAME)
            result = _play(
                bars, kafka.bootstrap_servers, worker, series, writer, as_of_dates, model, stop=not options.keep
            )
            if series.name in PERISHABLE:
                result = _step(bars, "orders", lambda: _ordered(kafka, result))
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(report.render(result), encoding="utf-8")
        _print(console, result, options.report)
        if options.keep:
            console.print(f"Kafka {kafka.bootstrap_servers}, metrics {worker.metrics_url}. Ctrl-C ends it all.")
            _play_on(console, kafka.bootstrap_servers, worker, writer, result.as_of_dates, options.pause)
        return 0 if result.outcomes.exactly_once else 1


def _play(
    bars: Bars,
    servers: str,
    worker: WorkerProcess,
    series: SeriesSet,
    writer: EventWriter,
    as_of_dates: Sequence[int],
    model: EngineCard,
    *,
    stop: bool,
) -> report.DemoResult:
    expected = len(series) * len(as_of_dates)
    sending = bars.add_task("events sent", total=expected)
    collecting = bars.add_task("outcomes read back", total=expected)
    progress = Progress(
        sent=lambda count: bars.update(sending, completed=count, total=max(count, expected)),
        collected=lambda count: bars.update(collecting, completed=count, total=max(count, expected)),
        check=worker.check,
    )
    sender, collector = Sender(servers, _TOPICS.features), Collector(servers, _TOPICS)
    with contextlib.closing(collector):
        began_s = time.monotonic()
        sent = play(events_of(writer, as_of_dates), sender, collector, progress)
        seconds = time.monotonic() - began_s
        batch_rows, stages = _scrape(worker)
        if stop and (code := worker.stop()) != 0:
            raise WorkerFailedError(f"the worker ended with exit code {code} after SIGTERM:\n{worker.log_tail()}")
        collector.collect_rest(_QUIET_S)
    progress.collected(len(collector.readings))
    forecasts, dead_letters = collector.readings.decoded()
    positions = input_positions(servers, _TOPICS.features, sent)
    grid = evaluation.grid(series, as_of_dates, forecasts)
    return report.DemoResult(
        series=series,
        as_of_dates=as_of_dates,
        forecasts=grid,
        outcomes=evaluation.outcomes(
            positions, [f.source for f in forecasts], [(letter.source, letter.reason) for letter in dead_letters]
        ),
        errors=evaluation.errors_of_all(series, as_of_dates, grid[..., grid.shape[-1] // 2]),
        seconds=seconds,
        model=f"{model.model} {model.version} ({model.precision})",
        batch_rows=batch_rows,
        stages=stages,
    )


def _ordered(kafka: EmbeddedKafka, result: report.DemoResult) -> report.DemoResult:
    """The result with order proposals for the last evening, and with what ordering on all evenings would have brought."""
    wiring = Wiring(bootstrap_servers=kafka.bootstrap_servers, forecasts=_TOPICS.forecasts)
    proposals = propose_orders(kafka, wiring, result.series, result.as_of_dates[-1], _PARTITIONS)
    found = backtest.run(result.series, result.as_of_dates, result.forecasts)
    return replace(result, proposals=proposals, backtest=found)


def _play_on(
    console: Console,
    servers: str,
    worker: WorkerProcess,
    writer: EventWriter,
    as_of_dates: Sequence[int],
    pause_s: float,
) -> None:
    sender = Sender(servers, _TOPICS.features)
    with contextlib.suppress(KeyboardInterrupt):
        for as_of in itertools.cycle(as_of_dates):
            for event in writer.events_of(as_of):
                sender.send(event)
            sender.flush()
            worker.check()
            console.print(f"played {np.datetime64(as_of, 'D')} again", highlight=False)
            time.sleep(pause_s)
    worker.stop()


def _load(name: str) -> SeriesSet:
    return bakery.load() if name == "bakery" else freshretailnet.load()


def _create_topics(kafka: EmbeddedKafka) -> None:
    for name, topic in load_topics().items():
        kafka.create_topic(name, partitions=_PARTITIONS, config=topic.kafka_config)


def _write_schemas(writer: EventWriter, directory: Path) -> list[Path]:
    """The schema of this data set's events, and that of the broken event whose writer knows no sales."""
    paths = []
    for name, schema in (("events", writer.schema), ("without_sales", schema_without(writer.schema, "sales"))):
        path = directory / f"{name}.avsc"
        path.write_text(json.dumps(schema), encoding="utf-8")
        paths.append(path)
    return paths


def _scrape(worker: WorkerProcess) -> tuple[HistogramSamples | None, Mapping[str, HistogramSamples]]:
    text = worker.metrics()
    batch_rows = histograms(text, "forecast_worker_batch_rows").get("")
    return batch_rows, histograms(text, "forecast_worker_stage_seconds", "stage")


def _download_bar(bars: Bars) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def show(what: str, done_bytes: int, all_bytes: int) -> None:
        task = tasks.setdefault(what, TaskID(-1))
        if task < 0:
            task = tasks[what] = bars.add_task(f"download: {what}"[:28])
        bars.update(task, completed=done_bytes >> 20, total=all_bytes >> 20)

    return show


def _bars(console: Console) -> Bars:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Bars(*columns, console=console)


def _step(bars: Bars, name: str, work: Callable[[], Value]) -> Value:
    task = bars.add_task(name, total=None)
    value = work()
    bars.update(task, total=1, completed=1)
    return value


def _print(console: Console, result: report.DemoResult, path: Path) -> None:
    table = Table(title="What came of it", show_header=False)
    for name, value in report.summary(result):
        table.add_row(name, value)
    console.print(table)
    console.print(f"dead letters by reason: {report.reasons(result.outcomes)}", highlight=False)
    accuracy = Table("", "WAPE per day", "WAPE per 14-day total", title="Accuracy of the next 14 days")
    for entry in result.errors:
        accuracy.add_row(entry.name, f"{entry.daily:.3f}", f"{entry.total:.3f}")
    console.print(accuracy)
    console.print(report.judged(result), highlight=False)
    if result.backtest is not None:
        ordering = Table(*backtest_report.COLUMNS, title=backtest_report.TITLE)
        for row in backtest_report.rows(result.backtest):
            ordering.add_row(*row)
        console.print(ordering)
        console.print(backtest_report.notes(result.backtest)[0], highlight=False)
    console.print(f"report: {path}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())

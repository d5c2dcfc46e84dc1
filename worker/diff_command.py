"""`forecast-worker diff`: what changed between two topics of forecasts, or between a topic and another model version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.engine_card import EngineCard
from schemas.model_store import is_store, open_version
from worker.actuals import Actuals, actuals_from_events, actuals_from_parquet
from worker.compose_wire import Contracts
from worker.decode import Decoder
from worker.diff_html import page, require_matplotlib
from worker.diff_recompute import EventDates, recompute
from worker.diff_report import Report, Side, as_json, text
from worker.errors import ConfigurationError
from worker.forecast_diff import compare
from worker.forecast_table import Gathered, common_layout, matched
from worker.framed_reader import FramedReader
from worker.framing import Refusal
from worker.onnx_engine import OnnxEngine
from worker.preflight import find_model
from worker.proving import prove, prove_sizes, refused_unless_proved
from worker.settings_model import Settings
from worker.tool_parts import reader_of, reading

TOPIC_PREFIX = "topic://"

_BATCH_ROWS = 4096


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    topics = _topics(settings, arguments)
    if arguments.html is not None:
        require_matplotlib()
    with reading(settings) as contract:
        before = _forecasts(settings, contract, topics[0], by_date=arguments.all_dates)
        if arguments.model is None:
            after = _forecasts(settings, contract, topics[1], by_date=arguments.all_dates)
            sides = (_side(topics[0], before), _side(topics[1], after))
        else:
            after, side = _recomputed(settings, contract, before, arguments)
            sides = (_side(topics[0], before), side)
        actuals = _actuals(settings, contract, arguments.actuals)
    _report(before, after, sides, actuals, arguments)
    return 0


def _topics(settings: Settings, arguments: argparse.Namespace) -> Sequence[str]:
    given: list[str] = arguments.topics
    if arguments.model is not None and len(given) <= 1:
        return given or [settings.output.topic]
    if arguments.model is None and len(given) == 2:
        return given
    got = f"{len(given)} topics" if given else "no topic"
    with_model = "and --model" if arguments.model is not None else "and no --model"
    raise ConfigurationError(f"diff: got {got} {with_model}, expected two topics, or --model and at most one topic")


def _forecasts(settings: Settings, contract: Contracts, topic: str, *, by_date: bool) -> Gathered:
    """The newest forecasts on `topic`."""
    decoder = FramedReader(contract.forecast, contract.framing)
    gathered = Gathered(by_date=by_date)
    with reader_of(settings, topic) as reader:
        for record in reader.read(reader.spans()):
            if record.key is None:
                gathered.unreadable += 1
            elif record.value is None:
                gathered.withdraw(record.key)
            else:
                content = decoder.read(record.value)
                if isinstance(content, Refusal):
                    gathered.unreadable += 1
                else:
                    gathered.add(record.key, content)
    return gathered


def _recomputed(
    settings: Settings, contract: Contracts, before: Gathered, arguments: argparse.Namespace
) -> tuple[Gathered, Side]:
    model, card = _model(settings, arguments.model)
    rows = min(_BATCH_ROWS, card.profile.max_rows)
    engine = OnnxEngine.load(model, card, contract.features, slots=1, max_rows=rows, threads=settings.engine.threads)
    with refused_unless_proved(engine, "--model"):
        prove(engine, card)
        prove_sizes(engine, card)
    dates = EventDates(contract.features)
    try:
        decoder = Decoder(
            reader_schema=contract.features,
            inputs=engine.spec.inputs,
            key_fields=settings.wire.key_fields,
            echo_fields=dates.echo_fields,
            framing=contract.framing,
            max_value_bytes=settings.input.max_value_bytes,
        )
        with reader_of(settings, settings.input.topic) as reader:
            found = recompute(before, reader, decoder, engine, dates, by_date=arguments.all_dates)
    finally:
        engine.close()
    left_out = {
        "event isn't on the topic any more": found.gone,
        "event has another key or as_of now": found.different,
        "event can't be decoded": found.rejected,
        "forecast breaks a rule": found.bad,
    }
    side = Side(
        name=f"{card.model} {card.version} on the events of {settings.input.topic}",
        forecasts=len(found.forecasts.rows),
        models=dict(found.forecasts.models),
        left_out={reason: count for reason, count in left_out.items() if count},
    )
    return found.forecasts, side


def _model(settings: Settings, name: str) -> tuple[Path, EngineCard]:
    """The ONNX file and card of a version in the store that `engine.model` names, or in a folder."""
    if is_store(settings.engine.model):
        version = open_version(settings.engine.model, name)
        return version.model, version.card
    folder = Path(name)
    if not folder.exists():
        raise ConfigurationError(
            f"--model: got {name!r}; engine.model ({settings.engine.model}) is no folder of published versions, so expected "
            "a folder with model.onnx and card.json"
        )
    return find_model(folder)


def _actuals(settings: Settings, contract: Contracts, source: str | None) -> Actuals | None:
    if source is None:
        return None
    if not source.startswith(TOPIC_PREFIX):
        return actuals_from_parquet(Path(source), settings.wire.key_fields)
    with reader_of(settings, source.removeprefix(TOPIC_PREFIX)) as reader:
        return actuals_from_events(
            reader.read(reader.spans()),
            schema=contract.features,
            framing=contract.framing,
            key_fields=settings.wire.key_fields,
            max_value_bytes=settings.input.max_value_bytes,
        )


def _report(
    before: Gathered,
    after: Gathered,
    sides: tuple[Side, Side],
    actuals: Actuals | None,
    arguments: argparse.Namespace,
) -> None:
    matching = matched(before, after)
    layout = common_layout(before.layouts(matching.units) | after.layouts(matching.units))
    old, new = before.table(matching.units, layout), after.table(matching.units, layout)
    actual = None if actuals is None else actuals.of(old.keys, old.as_of, layout[0])
    report = Report(
        before=sides[0],
        after=sides[1],
        matching=matching,
        comparison=compare(old, new, movers=arguments.movers, actual=actual),
    )
    if arguments.html is not None:
        try:
            arguments.html.write_text(page(report, old, new), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"--html {arguments.html}: can't be written: {error.strerror}") from error
    sys.stdout.write(f"{as_json(report) if arguments.json else text(report)}\n")


def _side(name: str, gathered: Gathered) -> Side:
    left_out = {"can't be read": gathered.unreadable} if gathered.unreadable else {}
    return Side(name=name, forecasts=len(gathered.rows), models=dict(gathered.models), left_out=left_out)

"""Published forecasts computed anew by another model version, from the events they were made of.

The events are read by assignment in offset order, once, from the first one that is wanted to the last one, and decoded
and computed in batches as large as the model takes: the same pure parts as on the live path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import cast

import fastavro
import numpy as np

from worker.actuals import AS_OF, batches
from worker.avro import Schema, plain, record_type_from_schema
from worker.decode import Decoder
from worker.engine import Engine
from worker.errors import SchemaUnavailableError, UnreachableError
from worker.forecast_table import Gathered, Row, Unit
from worker.guard import faults
from worker.records import Record, Records, Span
from worker.topic_reader import TopicReader


class EventDates:
    """Reads the `as_of` of events, out of what their decoder repeats of them.

    features: the schema that events are read by. If it has no such field, events are told by their key only. `echo_fields`
    is what the decoder must be made with.
    """

    def __init__(self, features: Schema) -> None:
        found = record_type_from_schema(features).field(AS_OF)
        self.echo_fields: tuple[str, ...] = () if found is None else (AS_OF,)
        fields = [] if found is None else [{"name": AS_OF, "type": plain(found.type)}]
        self._parsed = record_type_from_schema({"type": "record", "name": "Echo", "fields": fields}).parsed

    def of(self, echo: bytes) -> object:
        """Days since 1970, None where events have none. echo: the decoder's bytes of `echo_fields` of one event."""
        record = cast("dict[str, object]", fastavro.schemaless_reader(BytesIO(echo), self._parsed, None))
        return record.get(AS_OF)


@dataclass(slots=True, kw_only=True)
class Recomputed:
    """The forecasts, and why some are missing.

    gone: their events aren't on the topic any more. different: the event at that position has another key or as_of.
    rejected: the event can't be decoded for this model. bad: the guard wouldn't let the forecast out.
    """

    forecasts: Gathered
    gone: int = 0
    different: int = 0
    rejected: int = 0
    bad: int = 0


def recompute(
    published: Gathered, reader: TopicReader, decoder: Decoder, engine: Engine, dates: EventDates, *, by_date: bool
) -> Recomputed:
    """Compute every forecast of `published` with `engine`, from its event on the reader's topic.

    `decoder` must be made for the engine's inputs and the echo fields of `dates`. Raises `EngineError` if a batch fails, `UnreachableError` if broker or
    registry stop answering.
    """
    outcome = Recomputed(forecasts=Gathered(by_date=by_date))
    wanted: dict[tuple[int, int], list[Unit]] = {}
    for unit, row in published.rows.items():
        wanted.setdefault(row.source, []).append(unit)
    found = 0
    for batch in batches(_events(reader, sorted(wanted)), engine.spec.max_rows):
        found += len(batch)
        _compute(batch, wanted, published, decoder, engine, dates, outcome)
    outcome.gone = len(wanted) - found
    outcome.forecasts.models[f"{engine.spec.model} {engine.spec.version}"] = len(outcome.forecasts.rows)
    return outcome


def _events(reader: TopicReader, sources: Sequence[tuple[int, int]]) -> Iterator[Record]:
    """The records at `sources`, ascending (partition, offset), as far as they are there; partition by partition."""
    spans = reader.spans()
    by_partition: dict[int, list[int]] = {}
    for partition, offset in sources:
        by_partition.setdefault(partition, []).append(offset)
    for partition, offsets in by_partition.items():
        if partition not in spans:
            continue
        end = spans[partition].next_offset
        yield from _picked(reader.read({partition: Span(offsets[0], end)}), offsets)


def _picked(records: Iterator[Record], offsets: Sequence[int]) -> Iterator[Record]:
    """The records at `offsets`; reads no further than the last one."""
    left = iter(offsets)
    due = next(left, None)
    for record in records:
        while due is not None and due < record.offset:
            due = next(left, None)
        if due is None:
            return
        if record.offset == due:
            yield record
            due = next(left, None)
            if due is None:
                return


def _compute(
    batch: Sequence[Record],
    wanted: Mapping[tuple[int, int], Sequence[Unit]],
    published: Gathered,
    decoder: Decoder,
    engine: Engine,
    dates: EventDates,
    outcome: Recomputed,
) -> None:
    slot = engine.acquire()
    if slot is None:
        raise RuntimeError("no free slot, although every one was released")
    try:
        decoded = decoder.decode(Records.of(batch), slot.columns, 0)
        outcome.rejected += len(decoded.rejections) + len(decoded.tombstones)
        if not decoded.rows:
            return
        values = engine.collect(engine.submit(slot, decoded.rows)).values
        bad = {fault.row for fault in faults(values)}
        layout = (values.shape[1], tuple(np.asarray(engine.spec.quantiles, np.float32).tolist()))
        for index, source in enumerate(decoded.sources.tolist()):
            record = batch[source]
            place = (record.partition, record.offset)
            if index in bad:
                outcome.bad += 1
                continue
            # Units of one event share its key and date; a topic that was made anew may have another event there.
            told = decoded.keys[index], dates.of(decoded.echoes[index])
            units = [unit for unit in wanted[place] if _is_of(told, unit[0], published.rows[unit].as_of)]
            outcome.different += not units
            content = np.ascontiguousarray(values[index].T).tobytes()
            for unit in units:
                row = Row(as_of=published.rows[unit].as_of, layout=layout, values=content, source=place)
                outcome.forecasts.put(unit[0], row)
    except SchemaUnavailableError as error:
        raise UnreachableError(f"{error}; check registry.url and whether the registry is up") from error
    finally:
        engine.release(slot)


def _is_of(told: tuple[bytes, object], key: bytes, as_of: int) -> bool:
    """Whether a forecast of `key` and `as_of` can be of the event that tells these; None for an event without a date."""
    return told[0] == key and told[1] in {None, as_of}

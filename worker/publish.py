"""A checked batch becomes messages: encode, produce. Everything of one batch goes into the open transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.batching import Batch, Withdrawal
from worker.checked import Checked, Part
from worker.deadline import Clock, Deadline
from worker.encode import MESSAGE_OVERHEAD_BYTES, DeadLetterEncoder, ForecastEncoder, Provenance
from worker.engine import EngineSpec
from worker.records import Header, Reason, Record, Rejection
from worker.statistics import Stage, Tallies
from worker.transaction import Delivery, Outgoing

MAX_TRACEPARENT_BYTES = 256
"""A `traceparent` has 55 bytes. A much longer one isn't one, and could make the message too large to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Where messages go. With `same_partitions` output partition n is input partition n, else murmur2 of the key decides.

    `headers` adds provenance and the record's `traceparent` to each forecast as message headers.
    """

    forecasts: str
    dead_letters: str
    same_partitions: bool
    same_dead_letter_partitions: bool
    headers: bool = False


class Publisher:
    """Publishes batches through a `Delivery`.

    Args:
        delivery: takes the messages.
        encoder_for: the forecast encoder for what an engine gives.
        dead_letters: encodes rejections.
        tallies: counts what was published.
        clock: monotonic, for stage times.
        wall_clock_ms: milliseconds since 1970, for `generated_at`.
        max_message_bytes: of key and value together. The producer refuses more, and one record that it refuses for ever
            would stop its partition for ever.
    """

    def __init__(
        self,
        *,
        delivery: Delivery,
        encoder_for: Callable[[EngineSpec], ForecastEncoder],
        dead_letters: DeadLetterEncoder,
        tallies: Tallies,
        clock: Clock,
        wall_clock_ms: Callable[[], int],
        max_message_bytes: int = 1_000_000,
    ) -> None:
        self._delivery = delivery
        self._encoder_for = encoder_for
        self._dead_letters = dead_letters
        self._tallies = tallies
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._max_bytes = max_message_bytes - MESSAGE_OVERHEAD_BYTES
        self._encoders: dict[tuple[int, tuple[float, ...]], ForecastEncoder] = {}

    def publish(
        self, batch: Batch, checked: Checked | None, routing: Routing, deadline: Deadline
    ) -> Sequence[Rejection]:
        """Produce one message for every record of `batch` that isn't superseded: forecast, withdrawal or dead letter.

        `checked` has `batch.rows` rows; None if the batch has none. Its memory isn't needed after the return.
        Gives the rejections that were made here, beyond the batch's own.
        """
        began_s = self._clock()
        withdrawals, late = self._sendable(batch.withdrawals)
        rows, outgoing = 0, None
        if checked is not None:
            outgoing = self._forecasts(batch, checked, routing)
            dropped = dict([*self._too_large(batch, outgoing), *checked.rejections])
            late += dropped.values()
            rows = batch.rows - len(dropped)
            if withdrawals or dropped:
                outgoing = _with_withdrawals(withdrawals, outgoing, routing, without=frozenset(dropped))
        elif withdrawals:
            outgoing = _with_withdrawals(withdrawals, _empty(routing.forecasts), routing)
        rejections = [*batch.rejections, *late]
        letters = self._letters(rejections, routing)
        began_s = self._mark(Stage.ENCODE, began_s)
        for messages in (outgoing, letters):
            if messages is not None:
                self._delivery.produce(messages, deadline)
        self._mark(Stage.PRODUCE, began_s)
        self._count(rows, len(withdrawals), rejections)
        for part in () if checked is None else checked.parts:
            if part.fallback_reason is not None:
                self._tallies.fallback(part.fallback_reason, len(part.forecasts.values))
        return late

    def _forecasts(self, batch: Batch, checked: Checked, routing: Routing) -> Outgoing:
        """A message for each row of `checked.parts`; None stands in the places of the others."""
        now_ms = self._wall_clock_ms()
        values: list[bytes | None] = []
        headers: list[list[Header]] = []
        if len(checked.parts) == 1 and checked.parts[0].rows is None:
            values += self._encoded(batch, checked.parts[0], now_ms)
            headers += _headers(batch, checked.parts[0]) if routing.headers else []
        else:
            values += [None] * batch.rows
            headers += [[] for _ in range(batch.rows)] if routing.headers else []
            for part in checked.parts:
                rows = range(batch.rows) if part.rows is None else part.rows.tolist()
                for row, value in zip(rows, self._encoded(batch, part, now_ms), strict=True):
                    values[row] = value
                for row, each in zip(rows, _headers(batch, part) if routing.headers else (), strict=routing.headers):
                    headers[row] = each
        return Outgoing(
            topic=routing.forecasts,
            keys=batch.keys,
            values=values,
            partitions=batch.partitions.tolist() if routing.same_partitions else None,
            timestamps_ms=np.minimum(batch.timestamps_ms, now_ms).tolist(),  # brokers refuse times in the future
            headers=headers if routing.headers else None,
        )

    def _encoded(self, batch: Batch, part: Part, now_ms: int) -> list[bytes]:
        """The messages of a part's rows."""
        spec, rows = part.forecasts.spec, part.rows
        shape = spec.horizon, spec.quantiles  # all that an encoder depends on: versions come and go, these stay
        encoder = self._encoders.get(shape)
        if encoder is None:
            encoder = self._encoders[shape] = self._encoder_for(spec)
        return encoder.encode(
            echoes=batch.echoes if rows is None else [batch.echoes[row] for row in rows.tolist()],
            partitions=batch.partitions if rows is None else batch.partitions[rows],
            offsets=batch.offsets if rows is None else batch.offsets[rows],
            values=part.forecasts.values,
            provenance=_provenance(part),
            generated_at_ms=now_ms,
        )

    def _sendable(self, withdrawals: Sequence[Withdrawal]) -> tuple[list[Withdrawal], list[Rejection]]:
        """Tombstones as they can be sent: none from the future, none with a key that is too large."""
        now_ms = self._wall_clock_ms() if withdrawals else 0
        kept, rejections = [], []
        for each in withdrawals:
            record = each.record
            size_bytes = len(record.key or b"")
            if size_bytes > self._max_bytes:
                rejections.append(self._oversize(record, size_bytes))
            elif record.timestamp_ms > now_ms:
                kept.append(replace(each, record=replace(record, timestamp_ms=now_ms)))
            else:
                kept.append(each)
        return kept, rejections

    def _too_large(self, batch: Batch, outgoing: Outgoing) -> list[tuple[int, Rejection]]:
        """The rows whose message can't be sent."""
        if max(map(len, batch.keys)) + max(len(value or b"") for value in outgoing.values) <= self._max_bytes:
            return []
        sizes_bytes = [len(key) + len(value or b"") for key, value in zip(batch.keys, outgoing.values, strict=True)]
        return [
            (row, self._oversize(batch.record(row), size_bytes))
            for row, size_bytes in enumerate(sizes_bytes)
            if size_bytes > self._max_bytes
        ]

    def _oversize(self, record: Record, size_bytes: int) -> Rejection:
        detail = (
            f"got {size_bytes} bytes to send, expected {self._max_bytes} at most; see kafka.producer message.max.bytes"
        )
        return Rejection(record=record, reason=Reason.OVERSIZE, detail=detail)

    def _letters(self, rejections: Sequence[Rejection], routing: Routing) -> Outgoing | None:
        if not rejections:
            return None
        now_ms = self._wall_clock_ms()
        records = [rejection.record for rejection in rejections]
        headers = [self._dead_letters.headers(record) for record in records]
        return Outgoing(
            topic=routing.dead_letters,
            keys=[self._dead_letters.key(record) for record in records],
            values=[self._dead_letters.encode(rejection, rejected_at_ms=now_ms) for rejection in rejections],
            partitions=[record.partition for record in records] if routing.same_dead_letter_partitions else None,
            timestamps_ms=[now_ms] * len(records),  # the event's own may be past the topic's retention already
            headers=headers if any(headers) else None,
        )

    def _mark(self, stage: Stage, began_s: float) -> float:
        now_s = self._clock()
        self._tallies.stage(stage, now_s - began_s)
        return now_s

    def _count(self, rows: int, withdrawals: int, rejections: Sequence[Rejection]) -> None:
        self._tallies.forecast(rows)
        self._tallies.withdrawn(withdrawals)
        for rejection in rejections:
            self._tallies.rejected(rejection.reason)


def _empty(topic: str) -> Outgoing:
    return Outgoing(topic=topic, keys=[], values=[], partitions=[], timestamps_ms=[])


def _with_withdrawals(
    withdrawals: Sequence[Withdrawal], outgoing: Outgoing, routing: Routing, without: frozenset[int] = frozenset()
) -> Outgoing:
    """`outgoing` with the tombstones in their place and without the rows in `without`.

    A tombstone and a forecast of the same key must leave in the order in which they came: the last one stays.
    """
    order: list[int | Record] = []
    row = 0
    for withdrawal in withdrawals:
        until = min(max(withdrawal.after_row, row), len(outgoing.values))
        order += range(row, until)
        order.append(withdrawal.record)
        row = until
    order += range(row, len(outgoing.values))
    places = [place for place in order if not (isinstance(place, int) and place in without)]
    partitions = outgoing.partitions

    def partition(place: int | Record) -> int:
        if isinstance(place, Record):
            return place.partition
        return partitions[place] if partitions is not None else -1

    headers = outgoing.headers
    return Outgoing(
        topic=outgoing.topic,
        keys=[p.key if isinstance(p, Record) else outgoing.keys[p] for p in places],
        values=[None if isinstance(p, Record) else outgoing.values[p] for p in places],
        partitions=[partition(p) for p in places] if routing.same_partitions else None,
        timestamps_ms=[p.timestamp_ms if isinstance(p, Record) else outgoing.timestamps_ms[p] for p in places],
        headers=None if headers is None else [[] if isinstance(p, Record) else headers[p] for p in places],
    )


def _provenance(part: Part) -> Provenance:
    spec = part.forecasts.spec
    return Provenance(
        model=spec.model,
        model_version=spec.version,
        engine_digest=spec.digest,
        precision=spec.precision,
        fallback_reason=part.fallback_reason,
    )


def _headers(batch: Batch, part: Part) -> list[list[Header]]:
    """Provenance, the same for the whole part, and each record's `traceparent`, so that a trace goes on."""
    provenance = _provenance(part)
    constant: list[Header] = [
        ("model", provenance.model.encode()),
        ("model_version", provenance.model_version.encode()),
        ("engine_digest", provenance.engine_digest.encode()),
        ("precision", provenance.precision.encode()),
    ]
    if provenance.fallback_reason is not None:
        constant.append(("fallback_reason", provenance.fallback_reason.encode()))
    rows = range(batch.rows) if part.rows is None else part.rows.tolist()
    places = [(int(batch.partitions[row]), int(batch.offsets[row]), batch.origins[row]) for row in rows]
    return [
        [
            *constant,
            ("source", f"{records.topic}/{partition}/{offset}".encode()),
            *(header for header in (records.headers[index] if records.headers else ()) if _is_traceparent(header)),
        ]
        for partition, offset, (records, index) in places
    ]


def _is_traceparent(header: Header) -> bool:
    return header[0] == "traceparent" and len(header[1] or b"") <= MAX_TRACEPARENT_BYTES


def latencies_s(
    timestamps_ms: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]], now_ms: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Seconds from event time to now of every row that has a timestamp."""
    joined = np.concatenate(timestamps_ms) if timestamps_ms else np.empty(0, np.int64)
    return np.maximum(now_ms - joined[joined >= 0], 0) / 1000.0

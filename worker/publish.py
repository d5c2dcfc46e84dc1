"""A finished batch becomes messages: guard, encode, produce. Everything of one batch goes into the open transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from worker.batching import Batch
from worker.deadline import Clock, Deadline
from worker.encode import DeadLetterEncoder, ForecastEncoder, Provenance
from worker.engine import EngineSpec, Forecasts
from worker.guard import faults
from worker.records import Reason, Record, Rejection
from worker.statistics import Stage, Tallies
from worker.transaction import Delivery, Header, Outgoing


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
    ) -> None:
        self._delivery = delivery
        self._encoder_for = encoder_for
        self._dead_letters = dead_letters
        self._tallies = tallies
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._encoders: dict[str, ForecastEncoder] = {}

    def publish(self, batch: Batch, forecasts: Forecasts | None, routing: Routing, deadline: Deadline) -> None:
        """Produce one message for every record of `batch` that isn't superseded: forecast, withdrawal or dead letter.

        `forecasts` has `batch.rows` rows; None if the batch has none. Its memory isn't needed after the return.
        """
        began_s = self._clock()
        rejections, outgoing = list(batch.rejections), None
        if forecasts is not None:
            bad = {fault.row: fault for fault in faults(forecasts.values)}
            rejections += [
                Rejection(record=batch.record(row), reason=Reason.BAD_FORECAST, detail=fault.detail)
                for row, fault in bad.items()
            ]
            began_s = self._mark(Stage.GUARD, began_s)
            outgoing = self._forecasts(batch, forecasts, frozenset(bad), routing)
        elif batch.withdrawals:
            outgoing = _with_withdrawals(batch, _empty(routing.forecasts), routing)
        letters = self._letters(rejections, routing)
        began_s = self._mark(Stage.ENCODE, began_s)
        for messages in (outgoing, letters):
            if messages is not None:
                self._delivery.produce(messages, deadline)
        self._mark(Stage.PRODUCE, began_s)
        self._count(batch, rejections)

    def _forecasts(self, batch: Batch, forecasts: Forecasts, bad: frozenset[int], routing: Routing) -> Outgoing:
        spec = forecasts.spec
        encoder = self._encoders.get(spec.digest)
        if encoder is None:
            encoder = self._encoders[spec.digest] = self._encoder_for(spec)
        provenance = Provenance(
            model=spec.model,
            model_version=spec.version,
            engine_digest=spec.digest,
            precision=spec.precision,
            fallback_reason=None,
        )
        values = encoder.encode(
            echoes=batch.echoes,
            partitions=batch.partitions,
            offsets=batch.offsets,
            values=forecasts.values,
            provenance=provenance,
            generated_at_ms=self._wall_clock_ms(),
        )
        outgoing = Outgoing(
            topic=routing.forecasts,
            keys=batch.keys,
            values=values,
            partitions=batch.partitions.tolist() if routing.same_partitions else None,
            timestamps_ms=batch.timestamps_ms.tolist(),
            headers=_headers(batch, provenance) if routing.headers else None,
        )
        if batch.withdrawals or bad:
            outgoing = _with_withdrawals(batch, outgoing, routing, without=bad)
        return outgoing

    def _letters(self, rejections: Sequence[Rejection], routing: Routing) -> Outgoing | None:
        if not rejections:
            return None
        now_ms = self._wall_clock_ms()
        records = [rejection.record for rejection in rejections]
        return Outgoing(
            topic=routing.dead_letters,
            keys=[record.key for record in records],
            values=[self._dead_letters.encode(rejection, rejected_at_ms=now_ms) for rejection in rejections],
            partitions=[record.partition for record in records] if routing.same_dead_letter_partitions else None,
            timestamps_ms=[record.timestamp_ms for record in records],
        )

    def _mark(self, stage: Stage, began_s: float) -> float:
        now_s = self._clock()
        self._tallies.stage(stage, now_s - began_s)
        return now_s

    def _count(self, batch: Batch, rejections: Sequence[Rejection]) -> None:
        self._tallies.forecast(batch.rows - (len(rejections) - len(batch.rejections)))
        self._tallies.withdrawn(len(batch.withdrawals))
        for rejection in rejections:
            self._tallies.rejected(rejection.reason)


def _empty(topic: str) -> Outgoing:
    return Outgoing(topic=topic, keys=[], values=[], partitions=[], timestamps_ms=[])


def _with_withdrawals(
    batch: Batch, outgoing: Outgoing, routing: Routing, without: frozenset[int] = frozenset()
) -> Outgoing:
    """`outgoing` with the batch's tombstones in their place and without the rows in `without`.

    A tombstone and a forecast of the same key must leave in the order in which they came: the last one stays.
    """
    order: list[int | Record] = []
    row = 0
    for withdrawal in batch.withdrawals:
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


def _headers(batch: Batch, provenance: Provenance) -> list[list[Header]]:
    """Provenance, the same for the whole batch, and each record's `traceparent`, so that a trace goes on."""
    constant: list[Header] = [
        ("model", provenance.model.encode()),
        ("model_version", provenance.model_version.encode()),
        ("engine_digest", provenance.engine_digest.encode()),
        ("precision", provenance.precision.encode()),
    ]
    places = zip(batch.partitions.tolist(), batch.offsets.tolist(), batch.origins, strict=True)
    return [
        [
            *constant,
            ("source", f"{records.topic}/{partition}/{offset}".encode()),
            *(header for header in (records.headers[index] if records.headers else ()) if header[0] == "traceparent"),
        ]
        for partition, offset, (records, index) in places
    ]


def latencies_s(
    timestamps_ms: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]], now_ms: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Seconds from event time to now of every row that has a timestamp."""
    joined = np.concatenate(timestamps_ms) if timestamps_ms else np.empty(0, np.int64)
    return np.maximum(now_ms - joined[joined >= 0], 0) / 1000.0

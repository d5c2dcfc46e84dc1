"""A whole worker in memory: real decoder, batcher, pipeline, publisher and loop; broker, engine and clock are fakes."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import fastavro

from schemas.load import Schema, load_schema
from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine
from tests.helpers.forecasting import forecasting
from tests.helpers.memory import MemoryBroker, MemoryDelivery, MemorySource, Published
from worker.batching import Batcher
from worker.breaker import Breaker
from worker.decode import Decoder
from worker.encode import DeadLetterEncoder, ForecastEncoder, echo_fields_of
from worker.engine import EngineSpec
from worker.framing import Framing, SingleObjectFraming
from worker.guard_reference import Reference
from worker.hotswap import EngineSlot
from worker.loop import Timing, Worker
from worker.pipeline import Pipeline, Probe
from worker.publish import Publisher, Routing
from worker.settings_guard import GuardSettings
from worker.statistics import Tallies

FEATURES: Schema = {
    "type": "record",
    "name": "Features",
    "fields": [
        {"name": "sku_id", "type": "string"},
        {"name": "store_id", "type": "string"},
        {"name": "as_of", "type": {"type": "int", "logicalType": "date"}},
        {"name": "sales", "type": {"type": "array", "items": "float"}},
    ],
}
FORECAST = load_schema(None, "sku_forecast")
DEAD_LETTER = load_schema(None, "dead_letter")
INPUTS = {"sales": 3}
FRAMING = SingleObjectFraming([FEATURES, FORECAST, DEAD_LETTER])
ROUTING = Routing(forecasts="out", dead_letters="dead", same_partitions=True, same_dead_letter_partitions=True)
BACKUP_DIGEST = "bb" * 32
STANDBY_DIGEST = "cc" * 32
_PARSED = {id(schema): fastavro.parse_schema(dict(schema)) for schema in (FEATURES, FORECAST, DEAD_LETTER)}
_PREFIX_BYTES = FRAMING.prefix_bytes
# A fingerprint costs more than all the rest of a message.
_EVENT_PREFIX, _FORECAST_PREFIX, _LETTER_PREFIX = map(FRAMING.prefix_for, (FEATURES, FORECAST, DEAD_LETTER))


def event(sku: str, sales: tuple[float, ...] = (1.0, 2.0, 3.0), as_of: int = 19_000) -> bytes:
    """A feature event as it stands on the topic."""
    out = io.BytesIO()
    out.write(_EVENT_PREFIX)
    fastavro.schemaless_writer(
        out, _PARSED[id(FEATURES)], {"sku_id": sku, "store_id": "s", "as_of": as_of, "sales": list(sales)}
    )
    return out.getvalue()


def key(sku: str) -> bytes:
    return f"{sku}|s".encode()


def read(message: Published) -> dict[str, object]:
    """A published forecast or dead letter, decoded by fastavro."""
    schema = FORECAST if message.topic == "out" else DEAD_LETTER
    assert message.value is not None
    content = fastavro.schemaless_reader(io.BytesIO(message.value[_PREFIX_BYTES:]), _PARSED[id(schema)], None)
    assert isinstance(content, dict)
    return content


@dataclass
class Rig:
    """One worker process after another on the same broker. `restart` is a crash: what wasn't committed is gone."""

    broker: MemoryBroker
    clock: ManualClock = field(default_factory=ManualClock)
    asynchronous: bool = False
    coalesce: bool = False
    max_rows: int = 4
    slots: int = 2
    rejected_share: float = 1.0
    window_records: int = 10
    max_value_bytes: int = 1000
    framing: Framing = FRAMING
    routing: Routing = ROUTING
    probe: Probe = lambda _: None
    source_class: type[MemorySource] = MemorySource
    engine_class: type[FakeEngine] = FakeEngine
    backup_class: type[FakeEngine] | None = None
    standby_class: type[FakeEngine] | None = None
    limits: GuardSettings = field(default_factory=GuardSettings)
    slot_class: type[EngineSlot] = EngineSlot
    live: bool = True
    references: dict[str, Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.source = self.source_class(self.broker, self.clock)
        self.delivery = MemoryDelivery(self.broker)
        self.engine = self.engine_class(
            INPUTS, max_rows=self.max_rows, slots=self.slots, asynchronous=self.asynchronous
        )
        self.backup = self._other(self.backup_class, BACKUP_DIGEST)
        self.standby = self._other(self.standby_class, STANDBY_DIGEST)
        self.engines = self.slot_class(self.engine, self.backup)
        self.worker = self._worker()
        self.worker.start()

    def _other(self, of: type[FakeEngine] | None, digest: str) -> FakeEngine | None:
        if of is None:
            return None
        return of(INPUTS, max_rows=self.max_rows, slots=self.slots, asynchronous=self.asynchronous, digest=digest)

    def settle(self, step: Callable[[], None] | None = None, steps: int = 200) -> None:
        """Call `step` (the worker's) until everything on the topic is committed; fails if `steps` calls don't do."""
        for _ in range(steps):
            if all(
                self.broker.committed.get(partition, 0) >= records[-1].next_offset
                for partition, records in self.broker.log.items()
                if records
            ):
                return
            for engine in filter(None, (self.engine, self.backup, self.standby)):
                engine.finish()
            self.clock.advance(0.3)
            if step is None:
                self.worker.step()
            else:
                step()
        raise AssertionError(f"not settled: committed {self.broker.committed}")

    def outcomes(self) -> Counter[tuple[int, int]]:
        """(partition, offset) -> how many forecasts and dead letters were published for it. Tombstones aren't in it."""
        counts: Counter[tuple[int, int]] = Counter()
        for message in self.broker.published:
            if message.topic == "out" and message.value is not None:
                content = read(message)
                counts[int(str(content["source_partition"])), int(str(content["source_offset"]))] += 1
            elif message.topic == "dead":
                content = read(message)
                counts[int(str(content["partition"])), int(str(content["offset"]))] += 1
        return counts

    def _worker(self) -> Worker:
        tallies = Tallies()
        batcher = Batcher(max_rows=self.max_rows, linger_s=0.02, max_wait_s=0.5, coalesce=self.coalesce)
        echo_fields = echo_fields_of(FEATURES, FORECAST)

        def encoder(spec: EngineSpec) -> ForecastEncoder:
            return ForecastEncoder(
                schema=FORECAST,
                prefix=_FORECAST_PREFIX,
                echo_fields=echo_fields,
                quantiles=spec.quantiles,
                horizon=spec.horizon,
            )

        publisher = Publisher(
            delivery=self.delivery,
            encoder_for=encoder,
            dead_letters=DeadLetterEncoder(
                DEAD_LETTER, _LETTER_PREFIX, self.max_value_bytes, self.broker.max_message_bytes
            ),
            tallies=tallies,
            clock=self.clock,
            wall_clock_ms=lambda: int(self.clock() * 1000),
            max_message_bytes=self.broker.max_message_bytes,
        )
        breaker = Breaker(rejected_share=self.rejected_share, window_records=self.window_records)
        pipeline = Pipeline(
            batcher=batcher,
            forecasting=forecasting(
                self.engines,
                tallies=tallies,
                breaker=breaker,
                clock=self.clock,
                limits=self.limits,
                references=self.references,
                standby=self.standby,
            ),
            publisher=publisher,
            breaker=breaker,
            delivery=self.delivery,
            routing=lambda: self.routing,
            tallies=tallies,
            commit_interval_s=0.5,
            transaction_s=15.0,
            clock=self.clock,
            wall_clock_ms=lambda: int(self.clock() * 1000),
            probe=self.probe,
        )
        decoder = Decoder(
            reader_schema=FEATURES,
            inputs=INPUTS,
            key_fields=("sku_id", "store_id"),
            echo_fields=echo_fields,
            framing=self.framing,
            max_value_bytes=self.max_value_bytes,
        )
        return Worker(
            source=self.source,
            decoder=decoder,
            batcher=batcher,
            pipeline=pipeline,
            breaker=breaker,
            tallies=tallies,
            timing=Timing(poll_s=0.1, revoke_budget_s=5.0, schema_retry_s=2.0),
            clock=self.clock,
            wall_clock_ms=lambda: int(self.clock() * 1000),
            probe=self.probe,
            live=self.live,
        )

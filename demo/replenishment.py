"""Orders from forecasts: the example to copy for whoever consumes the forecasts' topic.

    python -m demo.replenishment --bootstrap localhost:9092 --critical-ratio 0.9 --lead-days 2 --review-days 7

Reads the forecasts and the stock, both compacted topics, and publishes for each SKU and store what to order tonight: once for
each change, also if it is killed at any moment and started again. What makes that so:

1. `isolation.level=read_committed`: a forecast of an aborted transaction was never made.
2. All state comes from topics. For each partition that it is given it first reads forecasts, stock and its own proposals to
   their ends, and only then decides, about all keys at once: so an old forecast that compaction left is never acted on.
3. It publishes only what differs from the proposals as they stand on the topic (`order_desk.py`). What was published before
   a crash is found there; what wasn't committed isn't, and is decided again.
4. Proposals and the positions of both inputs are one transaction, also if nothing new was read: positions are what carries the
   group's generation, and by that who lost a partition can't commit for it any more. The own topic is read to its very end, past transactions that are still open (they
   are waited for), so nothing of a predecessor is overlooked.
5. Any error ends the process. The next start settles it: it fences its predecessor and begins at 2.

The three topics need the same number of partitions, with keys spread by the same partitioner: the worker keeps its events'
partitions, so the stock must be produced as the events are. How much is ordered is `order_policy.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from demo.order_desk import Change, OrderDesk, put
from demo.order_policy import Policy, PolicyError
from demo.replenishment_wire import forecast_of, proposal_of, proposal_value, stock_of
from demo.single_object import ForeignValueError
from demo.table_reader import Place, TableError, partition_count, read_tables

_LOG: Final = logging.getLogger("replenishment")
_BATCH: Final = 1000
_TIMEOUT_S: Final = 60.0
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Where it reads and writes. transactional_id: one for each instance, the same after a restart."""

    bootstrap_servers: str
    forecasts: str = "sku-forecasts"
    stock: str = "sku-stock"
    proposals: str = "order-proposals"
    group_id: str = "replenishment"
    transactional_id: str = "replenishment-0"

    @property
    def tables(self) -> tuple[str, str, str]:
        """All three topics."""
        return (self.forecasts, self.stock, self.proposals)


def utc_today() -> int:
    """Today, as days since 1970-01-01."""
    return int(time.time()) // _DAY_S


class Replenisher:
    """Reads, decides, publishes; inside a `with` block. `today`: days since 1970-01-01.

    Entering raises `TableError` if the topics don't fit each other. All methods raise `KafkaException`; what was under way
    isn't committed then: leave the block and start anew.
    """

    def __init__(self, wiring: Wiring, policy: Policy, *, today: Callable[[], int] = utc_today) -> None:
        self._wiring, self._policy, self._today = wiring, policy, today
        self._desks: dict[int, OrderDesk] = {}
        self._restored: dict[int, int] = {}
        self._next: dict[Place, int] = {}
        self._group: object = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": wiring.bootstrap_servers,
                "group.id": wiring.group_id,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                # The same numbers of both topics go to the same member: forecasts meet their stock.
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 10_000,
            }
        )
        self._producer = Producer(
            {
                "bootstrap.servers": wiring.bootstrap_servers,
                "transactional.id": wiring.transactional_id,
                "transaction.timeout.ms": int(_TIMEOUT_S * 1000),
                "linger.ms": 5,
            }
        )

    def __enter__(self) -> Self:
        try:
            partition_count(self._consumer, self._wiring.tables)
            self._producer.init_transactions(_TIMEOUT_S)  # fences a predecessor and ends its transaction
            self._consumer.subscribe(
                [self._wiring.forecasts, self._wiring.stock],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._revoked,
            )
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing is open here but what failed, and that is for the next start to end. Close leaves the group.
        self._consumer.close()

    def step(self, timeout_s: float) -> int:
        """Take what comes within `timeout_s`, and publish what changes by it, in one transaction: proposals published."""
        messages = [message for message in self._consumer.consume(_BATCH, timeout_s) if self._is_due(_sound(message))]
        touched = self._learn(messages)
        changes = {number: desk.changes(touched[number], self._today()) for number, desk in self._due(touched)}
        if messages or any(changes.values()):
            self._publish(changes, self._positions({*changes, *(_known(each.partition()) for each in messages)}))
        return sum(len(each) for each in changes.values())

    def _is_due(self, message: Message) -> bool:
        """Whether it is the next one of a partition that is ours, and moves on if so.

        A message that was fetched before partitions changed hands is not: it is in the tables already, or another's.
        """
        place, offset = (str(message.topic()), _known(message.partition())), _known(message.offset())
        if offset < self._next.get(place, offset + 1):
            return False
        self._next[place] = offset + 1
        return True

    def _positions(self, numbers: Collection[int]) -> list[TopicPartition]:
        """Where to go on in the partitions `numbers` of both inputs."""
        return [TopicPartition(*place, offset) for place, offset in sorted(self._next.items()) if place[1] in numbers]

    def _due(self, touched: dict[int, set[bytes]]) -> list[tuple[int, OrderDesk]]:
        """The desks that have something to decide; on a new day, and after their restoration, about everything."""
        today = self._today()
        for number, desk in self._desks.items():
            if self._restored.get(number) != today:
                touched[number] = desk.keys()
                self._restored[number] = today
        return [(number, self._desks[number]) for number, keys in sorted(touched.items()) if keys]

    def _learn(self, messages: Sequence[Message]) -> dict[int, set[bytes]]:
        """Put the messages into their tables: keys touched, by partition."""
        touched: dict[int, set[bytes]] = {}
        for message in messages:
            number = _known(message.partition())
            if self._take(self._desks[number], message):
                touched.setdefault(number, set()).add(_key(message))
        return touched

    def _take(self, desk: OrderDesk, message: Message) -> bool:
        """One message into its table. Who can't be read leaves the table as it was, and its key's forecast to age."""
        topic, key, value = message.topic(), _key(message), message.value()
        try:
            if topic == self._wiring.forecasts:
                place = _known(message.partition()), _known(message.offset())
                put(desk.forecasts, key, None if value is None else forecast_of(value, *place))
            elif topic == self._wiring.stock:
                put(desk.stock, key, None if value is None else stock_of(value))
            else:
                put(desk.published, key, None if value is None else proposal_of(value))
        except ForeignValueError as error:
            _LOG.warning("%s [%s] @ %s: %s", topic, message.partition(), message.offset(), error)
            return False
        return True

    def _publish(self, changes: dict[int, list[Change]], positions: Sequence[TopicPartition]) -> None:
        self._producer.begin_transaction()
        for number, found in changes.items():
            for key, proposal in found:
                value = None if proposal is None else proposal_value(proposal)
                self._produce(number, key, value)
                if proposal is not None and proposal.refusal is not None:
                    _LOG.warning("%s: nothing proposed, %s", key.decode(errors="replace"), proposal.refusal)
        # Without positions (the client passes over an empty list) nobody would ask whether the partitions are still ours.
        self._producer.send_offsets_to_transaction(list(positions), self._group, _TIMEOUT_S)
        self._producer.commit_transaction(_TIMEOUT_S)
        for number, found in changes.items():
            self._desks[number].settle(found)

    def _produce(self, number: int, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(self._wiring.proposals, value=value, key=key, partition=number)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Before anything is read: the tables of these partitions, as they are on the topics now."""
        # Of now: who is put out of the group has an empty one until he is told, and that is not checked.
        self._group = consumer.consumer_group_metadata()
        numbers = sorted({each.partition for each in partitions})
        wiring = self._wiring
        tables = read_tables(wiring.bootstrap_servers, wiring.tables, numbers, own=wiring.proposals)
        for number in numbers:
            self._desks[number] = OrderDesk(policy=self._policy)
            self._restored.pop(number, None)
        for message in tables.messages:
            self._take(self._desks[_known(message.partition())], message)
        for each in partitions:
            each.offset = self._next[each.topic, each.partition] = tables.ends[each.topic, each.partition]
        consumer.assign(partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Steps are whole, so no transaction is open here."""
        numbers = {each.partition for each in partitions}
        for number in numbers:
            self._desks.pop(number, None)
        self._next = {place: offset for place, offset in self._next.items() if place[1] not in numbers}
        consumer.unassign()


def _sound(message: Message) -> Message:
    error = message.error()
    if error is not None:
        raise KafkaException(error)
    return message


def _key(message: Message) -> bytes:
    return bytes(message.key() or b"")


def _known(number: int | None) -> int:
    if number is None:
        raise KafkaException(KafkaError(KafkaError._BAD_MSG, "a message that was read has no position"))  # noqa: SLF001
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. 0; 2 if topics or policy don't fit; 3 if Kafka failed: start it again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options = vars(_parser().parse_args(arguments))
    wiring = Wiring(**{name: options[name] for name in Wiring.__dataclass_fields__})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        policy = Policy(**{name: options[name] for name in Policy.__dataclass_fields__})
        today = options["today"]
        with (
            Replenisher(wiring, policy, today=utc_today if today is None else lambda: int(today)) as replenisher,
            contextlib.suppress(KeyboardInterrupt),
        ):
            _LOG.info("reads %s and %s, proposes on %s", *wiring.tables)
            while True:
                if published := replenisher.step(1.0):
                    _LOG.info("%d proposals", published)
    except (TableError, PolicyError) as error:
        _LOG.error("%s", error)
        return 2
    except KafkaException as error:
        _LOG.error("%s; start it again", error)
        return 3
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.replenishment", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--bootstrap", dest="bootstrap_servers", required=True, metavar="HOST:PORT")
    for name in ("forecasts", "stock", "proposals", "group_id", "transactional_id"):
        default = Wiring.__dataclass_fields__[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help="(default: %(default)s)")
    for name, each in Policy.__dataclass_fields__.items():
        option, default = f"--{name.replace('_', '-')}", each.default
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true", help="see order_policy.py")
        else:
            parser.add_argument(option, type=type(default), default=default, help="see order_policy.py (%(default)s)")
    parser.add_argument(
        "--today", type=int, metavar="DAYS", help="days since 1970-01-01, to play the past; default: the clock"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

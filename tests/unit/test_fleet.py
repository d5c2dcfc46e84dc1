"""What one worker hears of the others and tells them; the clients are scripts, the thread isn't started but for one test."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from schemas.asking import UNKNOWN_S
from tests.helpers.clock import ManualClock
from tests.helpers.fleets import CONTROL, ControlConsumer, ControlProducer, end, message, said, trouble
from tests.helpers.questions import Answers, refused, topic_of
from tests.helpers.waiting import wait_until
from worker import fleet
from worker.control import Command, Commands, Kind, WorkerState, decode_command, decode_state
from worker.deadline import Deadline
from worker.errors import UnreachableError
from worker.fleet import AGAIN_S, METADATA_S, READ_S, ControlReader, Fleet
from worker.handover import Handover, Left, Look
from worker.version_choice import VersionId

STATES = "model-states"
V1, V2 = (VersionId(f"v{n}", f"{n}" * 64) for n in (1, 2))
NOW_MS = 1_700_000_000_000
HEARTBEAT_S = 60.0
LEFT = Left(version=V2, now=V1, reason="guard:psi", told=False, held=False)
STATE = WorkerState(
    model="tiny", worker="w", serving=V1, backup=None, shadow=None, held=None, refused={}, notes=(), at_ms=0
)


def quarantine(version: VersionId = V2, *, released: bool = False, model: str = "tiny") -> Command:
    return Command(
        model=model, kind=Kind.QUARANTINE, version=version, reason="drifts", by="ana", at_ms=1, released=released
    )


class Bench:
    """One worker of the model `tiny`."""

    def __init__(self, *coming: list[Any], state_topic: str | None = STATES, partitions: int = 1) -> None:
        self.clock = ManualClock()
        self.consumer = ControlConsumer(*coming, partitions=partitions)
        self.consumer.idle = self.clock.advance
        self.producer = ControlProducer()
        self.handover = Handover()
        self.fleet = Fleet(
            consumer=self.consumer.as_consumer,
            producer=self.producer.as_producer,
            control_topic=CONTROL,
            state_topic=state_topic,
            worker="w",
            handover=self.handover,
            heartbeat_s=HEARTBEAT_S,
            clock=self.clock,
            wall_clock_ms=lambda: NOW_MS,
            pause=self.clock.advance,
        )

    def read(self) -> Commands:
        return self.fleet.read("tiny")

    def sent(self, topic: str) -> list[tuple[bytes, bytes | None]]:
        return [(key, value) for to, key, value in self.producer.delivered if to == topic]

    def quarantines(self) -> list[Command]:
        return [decode_command(value) for _, value in self.sent(CONTROL) if value is not None]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_new_worker_knows_all_commands_before_it_serves() -> None:
    bench = Bench([said(quarantine(V1))], [said(quarantine(V2)), end(0)], [end(1)], partitions=2)
    commands = bench.read()
    assert set(commands.of("tiny").quarantined) == {V1, V2}
    assert bench.handover.quarantined == commands.of("tiny").quarantined
    assert commands is bench.fleet.commands
    assert [partition for _, partition, _ in bench.consumer.assigned] == [0, 1]


def test_of_each_version_the_last_word_counts_and_a_tombstone_takes_it_back() -> None:
    bench = Bench([said(quarantine()), said(quarantine(released=True)), end()])
    assert bench.read().of("tiny").quarantined == {}
    bench.consumer.coming = [[said(quarantine())], [message(quarantine().key, None)]]
    bench.fleet.turn()
    assert set(bench.handover.quarantined) == {V2}
    bench.fleet.turn()
    assert bench.handover.quarantined == {}
    assert bench.fleet.commands.newest == {}


def test_another_models_commands_are_not_obeyed() -> None:
    bench = Bench([said(quarantine(model="other")), end()])
    bench.read()
    assert bench.handover.quarantined == {}


def test_what_cannot_be_read_is_passed_over() -> None:
    bench = Bench([message(b"k", b"no command"), message(None, b""), said(quarantine()), end()])
    assert set(bench.read().of("tiny").quarantined) == {V2}


def test_what_comes_later_is_obeyed_and_the_loader_is_woken() -> None:
    bench = Bench([end()])
    bench.read()
    before = bench.handover.quarantined
    bench.consumer.coming = [[said(quarantine())]]
    bench.fleet.turn()
    assert bench.handover.quarantined == {V2: "drifts (by ana)"}
    assert bench.handover.inbox.get_nowait() == Look()
    told = bench.handover.quarantined
    bench.consumer.coming = [[said(replace(quarantine(), kind=Kind.PIN))]]
    bench.fleet.turn()
    assert bench.handover.quarantined is told  # the loop takes another reference for news
    assert before == {}
    bench.fleet.turn()
    assert bench.handover.inbox.get_nowait() == Look()
    assert bench.handover.inbox.empty()  # nothing came, nobody is woken


def test_a_topic_that_was_just_made_is_waited_for() -> None:
    bench = Bench([end()])
    bench.consumer.topics = Answers(
        topic_of(error=KafkaError.UNKNOWN_TOPIC_OR_PART, topic=CONTROL), topic_of((0,), topic=CONTROL)
    )
    assert bench.read().newest == {}


def test_a_topic_that_is_not_there_is_said_with_the_remedy() -> None:
    bench = Bench()
    bench.consumer.topics = Answers(topic_of(error=KafkaError.UNKNOWN_TOPIC_OR_PART, topic=CONTROL))
    with pytest.raises(UnreachableError, match=r"topic model-control doesn't exist; create it .* fleet\.state_topic"):
        bench.read()
    assert bench.clock() == pytest.approx(1000 + UNKNOWN_S)


def test_no_broker_is_said_with_the_remedy() -> None:
    bench = Bench()
    bench.consumer.topics = Answers(refused(KafkaError._TRANSPORT))
    with pytest.raises(UnreachableError, match="reading model-control: reason -195; are the brokers reachable"):
        bench.read()
    assert bench.clock() == pytest.approx(1000 + METADATA_S)


def test_a_topic_that_does_not_end_in_time_is_said_with_the_last_trouble() -> None:
    bench = Bench([trouble(KafkaError._TRANSPORT)], partitions=1)
    with pytest.raises(UnreachableError, match="reading model-control to its end took too long: reason -195; are"):
        bench.read()
    assert bench.clock() == pytest.approx(1000 + READ_S, abs=0.1)


def test_silence_is_said_too() -> None:
    with pytest.raises(UnreachableError, match="to its end took too long: nothing came; are the brokers reachable"):
        Bench().read()


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED])
def test_what_may_not_be_read_is_not_waited_for(code: int) -> None:
    bench = Bench([trouble(code)])
    with pytest.raises(UnreachableError, match=f"reading model-control to its end: reason {code}; are .* may this"):
        bench.read()
    assert bench.clock() == 1000


def test_an_end_of_one_partition_is_not_the_end_of_all() -> None:
    consumer, clock = ControlConsumer([end(0)], partitions=2), ManualClock()
    consumer.idle = clock.advance
    reader = ControlReader(consumer.as_consumer, CONTROL, lambda *_: None, clock=clock, pause=clock.advance)
    reader.start()
    with pytest.raises(UnreachableError):
        reader.read_to_end(Deadline.after(1.0, clock))
    consumer.coming = [[end(1)]]
    reader.read_to_end(Deadline.after(1.0, clock))


# -- telling ----------------------------------------------------------------------------------------------------------


def test_what_the_guard_found_is_quarantined_for_all() -> None:
    bench = Bench([end()])
    bench.read()
    bench.handover.left.put(LEFT)
    bench.fleet.turn()
    assert bench.quarantines() == [
        Command(model="tiny", kind=Kind.QUARANTINE, version=V2, reason="guard:psi", by="w", at_ms=NOW_MS)
    ]
    bench.fleet.turn()
    assert len(bench.quarantines()) == 1


def test_a_quarantine_that_was_lost_is_sent_again_after_a_pause() -> None:
    bench = Bench([end()])
    bench.read()
    bench.producer.losses = [KafkaError._MSG_TIMED_OUT, KafkaError._MSG_TIMED_OUT]
    bench.handover.left.put(LEFT)
    bench.consumer.idle = lambda _: None
    for _ in range(3):
        bench.fleet.turn()
    assert (bench.quarantines(), bench.producer.losses) == ([], [KafkaError._MSG_TIMED_OUT])  # not again at once
    for _ in range(2):
        bench.clock.advance(AGAIN_S)
        bench.fleet.turn()
    assert [command.version for command in bench.quarantines()] == [V2]
    bench.clock.advance(AGAIN_S)
    bench.fleet.turn()
    assert len(bench.quarantines()) == 1


def test_a_lost_quarantine_does_not_undo_what_was_said_of_the_version_since() -> None:
    bench = Bench([end()], [said(replace(quarantine(released=True), at_ms=NOW_MS + 1))])
    bench.read()
    bench.producer.losses = [KafkaError._MSG_TIMED_OUT]
    bench.handover.left.put(LEFT)
    bench.fleet._warn()
    bench.producer.poll(0)  # lost
    bench.clock.advance(AGAIN_S)
    for _ in range(2):
        bench.fleet.turn()
    assert (bench.quarantines(), bench.fleet._unsent) == ([], [])


def test_a_full_local_queue_loses_no_quarantine() -> None:
    bench = Bench([end()])
    bench.read()
    bench.producer.full = 1
    bench.handover.left.put(LEFT)
    with pytest.raises(BufferError):
        bench.fleet.turn()
    bench.fleet.turn()
    assert [command.version for command in bench.quarantines()] == [V2]


def test_a_new_state_is_told_at_once_and_repeated_with_every_heartbeat() -> None:
    bench = Bench([end()])
    bench.consumer.idle = lambda _: None
    bench.read()
    bench.fleet.turn()
    assert bench.sent(STATES) == []
    bench.fleet.tell(replace(STATE, serving=V2))
    bench.fleet.tell(STATE)
    for _ in range(2):
        bench.fleet.turn()
    (key, value), *more = bench.sent(STATES)
    assert (key, more) == (STATE.key, [])
    assert decode_state(value or b"") == replace(STATE, at_ms=NOW_MS)  # the newest one
    bench.clock.advance(HEARTBEAT_S - 0.1)
    bench.fleet.turn()
    assert len(bench.sent(STATES)) == 1
    bench.clock.advance(0.1)
    bench.fleet.turn()
    assert len(bench.sent(STATES)) == 2


def test_a_state_that_found_the_queue_full_is_told_in_the_next_turn() -> None:
    bench = Bench([end()])
    bench.read()
    bench.producer.full = 1
    bench.fleet.tell(STATE)
    with pytest.raises(BufferError):
        bench.fleet.turn()
    bench.fleet.turn()
    assert len(bench.sent(STATES)) == 1


def test_without_a_state_topic_nothing_is_told() -> None:
    bench = Bench([end()], state_topic=None)
    bench.read()
    bench.fleet.tell(STATE)
    bench.fleet.turn()
    bench.fleet.close()
    assert bench.producer.delivered == []


# -- the end ----------------------------------------------------------------------------------------------------------


def test_closing_withdraws_the_state_and_closes_once() -> None:
    bench = Bench([end()])
    bench.read()
    bench.fleet.tell(STATE)
    bench.fleet.turn()
    for _ in range(2):
        bench.fleet.close()
    assert bench.sent(STATES)[-1] == (STATE.key, None)
    assert len(bench.sent(STATES)) == 2
    assert bench.consumer.closed == 1


def test_closing_says_what_the_guard_found_last() -> None:
    bench = Bench([end()])
    bench.read()
    bench.handover.left.put(LEFT)
    bench.fleet.close()
    assert [command.version for command in bench.quarantines()] == [V2]


def test_closing_does_not_wait_for_the_pause_of_a_lost_quarantine() -> None:
    bench = Bench([end()])
    bench.read()
    bench.producer.losses = [KafkaError._MSG_TIMED_OUT]
    bench.handover.left.put(LEFT)
    bench.fleet.turn()
    bench.fleet.close()
    assert len(bench.quarantines()) == 1


def test_a_client_that_fails_at_the_end_leaves_nothing_open() -> None:
    bench = Bench([end()])
    bench.read()
    bench.producer.full = 1
    bench.handover.left.put(LEFT)
    bench.fleet.close()
    assert bench.consumer.closed == 1


def test_what_nobody_took_at_the_end_is_logged(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    bench = Bench([end()])
    bench.read()
    bench.producer.stays = 1
    bench.fleet.close()
    assert "the fleet wasn't told everything" in capsys.readouterr().out + caplog.text


def test_closing_waits_for_the_turn_that_is_under_way() -> None:
    bench, began, go_on = Bench([end()]), threading.Event(), threading.Event()

    def turn(_: float) -> None:
        began.set()
        assert go_on.wait(30.0)

    bench.read()
    bench.consumer.idle = turn
    bench.fleet.start()
    assert began.wait(30.0)
    closing = threading.Thread(target=bench.fleet.close)
    closing.start()
    closing.join(0.05)
    assert (closing.is_alive(), bench.consumer.closed) == (True, 0)  # the thread reads with it still
    go_on.set()
    closing.join(30.0)
    assert bench.consumer.closed == 1


def test_a_fleet_that_was_never_started_closes() -> None:
    bench = Bench()
    bench.fleet.close()
    assert (bench.consumer.closed, bench.fleet.worker) == (1, "w")


def test_the_thread_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "AFTER_AN_ERROR_S", 0.0)
    bench = Bench([end()])
    bench.consumer.idle = lambda _: None
    bench.read()
    bench.producer.full = 1
    bench.handover.left.put(LEFT)
    bench.fleet.start()
    wait_until(lambda: bool(bench.quarantines()), "the quarantine is sent after the queue was full once")
    bench.fleet.close()
    assert bench.consumer.closed == 1

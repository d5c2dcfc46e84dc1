"""What `forecast-worker models` sends and prints; the brokers are scripts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.helpers.fleets import CONTROL, ControlConsumer, ControlProducer, end, message, said
from tests.helpers.questions import Answers, refused, topic_of
from tests.helpers.store import TestStore
from worker import models_command
from worker.cli import build_parser
from worker.control import Command, Commands, Kind, WorkerState, decode_command, encode_state
from worker.errors import ConfigurationError, UnreachableError
from worker.models_command import MISSED_HEARTBEATS, View, look, made_command, run, shown
from worker.settings import Settings, load_settings
from worker.version_choice import Listing, VersionId

V1, V2, V3 = (VersionId(f"v{n}", f"{n}" * 64) for n in (1, 2, 3))
OLD_V2 = VersionId("v2", "9" * 64)
NOW_MS = 1_700_000_000_000
HEARTBEAT_S = 60.0
STATES = "model-states"


def command(kind: Kind = Kind.QUARANTINE, version: VersionId = V1, **changed: Any) -> Command:
    made = Command(model="tiny", kind=kind, version=version, reason="drifts", by="ana", at_ms=1)
    return replace(made, **changed)


def state(worker: str = "a", serving: VersionId = V2, *, age_s: float = 1.0, **changed: Any) -> WorkerState:
    made = WorkerState(
        model="tiny",
        worker=worker,
        serving=serving,
        backup=None,
        shadow=None,
        held=None,
        refused={},
        notes=(),
        at_ms=NOW_MS - int(age_s * 1000),
    )
    return replace(made, **changed)


def view(
    *commands: Command,
    states: tuple[WorkerState, ...] = (),
    current: str | None = "v2",
    versions: tuple[VersionId, ...] = (V1, V2, V3),
    unreadable: dict[str, str] | None = None,
) -> View:
    found = Commands.none()
    for each in commands:
        found = found.after(each)
    return View(
        model="tiny",
        listing=Listing(current=current, versions=versions),
        unreadable=unreadable or {},
        commands=found,
        states=states,
        now_ms=NOW_MS,
        heartbeat_s=HEARTBEAT_S,
    )


def arguments(action: str, version: str = "v1", reason: str = "") -> argparse.Namespace:
    return argparse.Namespace(action=action, version=version, reason=reason, by="bo")


def made(found: View, action: str, version: str = "v1", reason: str = "") -> list[Command]:
    return made_command(found, arguments(action, version, reason), "bo")


# -- which version is meant -------------------------------------------------------------------------------------------


def test_a_published_version_is_meant_before_one_that_a_command_names() -> None:
    assert view(command(version=OLD_V2)).version("v2") == V2


def test_a_version_that_left_the_store_is_known_from_the_newest_command_about_it() -> None:
    gone, later = VersionId("v9", "9" * 64), VersionId("v9", "8" * 64)
    found = view(command(version=later, at_ms=2), command(version=gone, at_ms=1))
    assert found.version("v9") == later


def test_an_unknown_version_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(ConfigurationError, match="VERSION: got v9, which isn't published; there are: v1, v2, v3"):
        view().version("v9")
    with pytest.raises(ConfigurationError, match="there are: none"):
        view(versions=()).version("v9")


def test_another_models_version_is_not_meant() -> None:
    """Else its digest would go into a command about this model."""
    with pytest.raises(ConfigurationError, match="got v9, which isn't published"):
        view(command(version=VersionId("v9", "9" * 64), model="other")).version("v9")


def test_a_released_command_names_no_version() -> None:
    with pytest.raises(ConfigurationError, match="got v9, which isn't published"):
        view(command(version=VersionId("v9", "9" * 64), released=True)).version("v9")


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.PIN, Kind.QUARANTINE])
def test_a_command_says_what_who_why_and_when(kind: Kind) -> None:
    assert made(view(), kind.value, "v1", "because") == [
        Command(model="tiny", kind=kind, version=V1, reason="because", by="bo", at_ms=NOW_MS)
    ]
    assert made(view(), kind.value)[0].reason == f"{kind} by hand"


def test_a_promotion_lasts_while_current_names_what_it_does_now() -> None:
    assert made(view(), "promote", "v3")[0].over == V2
    assert made(view(current=None), "promote", "v3")[0].over is None


@pytest.mark.parametrize("action", ["pin", "promote"])
def test_a_quarantined_version_can_not_be_asked_for(action: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{action}: version v1 \(1+\) is quarantined; release it first"):
        made(view(command(version=V1)), action, "v1")
    assert made(view(command(version=V1)), "quarantine", "v1", "again")[0].reason == "again"


def test_a_release_takes_back_everything_about_the_version_and_nothing_else() -> None:
    found = made(view(command(Kind.PIN, V1), command(version=V1), command(version=V2)), "release", "v1")
    assert {(each.kind, each.version, each.released) for each in found} == {
        (Kind.PIN, V1, True),
        (Kind.QUARANTINE, V1, True),
    }
    assert {each.reason for each in found} == {"released"}
    assert {each.over for each in made(view(command(Kind.PROMOTE, V1, over=V2)), "release", "v1")} == {None}


def test_a_version_that_was_published_anew_can_be_released() -> None:
    """The command is about the bytes before; it stayed in force for ever when only the published ones could be named."""
    found = made(view(command(Kind.PIN, OLD_V2)), "release", "v2", "mended")
    assert [(each.kind, each.version, each.reason) for each in found] == [(Kind.PIN, OLD_V2, "mended")]


def test_releasing_the_published_bytes_leaves_the_quarantine_of_those_before() -> None:
    found = made(view(command(version=OLD_V2), command(Kind.PIN, V2)), "release", "v2")
    assert [each.version for each in found] == [V2]


@pytest.mark.parametrize("given", [(), (command(version=V1, released=True),), (command(version=V1, model="other"),)])
def test_nothing_to_release_is_said(given: tuple[Command, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"release: no command about version v1 \(1+\) is in force"):
        made(view(*given), "release", "v1")


# -- rollback ---------------------------------------------------------------------------------------------------------


def test_a_rollback_quarantines_what_most_workers_serve() -> None:
    found = view(states=(state("a", V1), state("b", V2), state("c", V2)))
    (sent,) = made(found, "rollback", reason="orders doubled")
    assert (sent.kind, sent.version, sent.reason) == (Kind.QUARANTINE, V2, "orders doubled")
    assert made(found, "rollback")[0].reason == "rolled back by hand"


def test_workers_that_were_killed_do_not_count() -> None:
    """Nobody takes their states back: after a crash of many, the version before would have been quarantined."""
    age_s = MISSED_HEARTBEATS * HEARTBEAT_S
    killed = [state(name, V1, age_s=age_s + 0.001) for name in "abc"]
    assert made(view(states=(*killed, state("d", V2))), "rollback")[0].version == V2
    slow = [state(name, V1, age_s=age_s) for name in "abc"]
    assert made(view(states=(*slow, state("d", V2))), "rollback")[0].version == V1


def test_without_a_word_from_any_worker_the_rules_say_what_serves() -> None:
    assert made(view(command(Kind.PIN, V3)), "rollback")[0].version == V3


def test_with_nothing_that_serves_there_is_nothing_to_roll_back() -> None:
    with pytest.raises(ConfigurationError, match="rollback: no version serves; name one: forecast-worker models quar"):
        made(view(versions=()), "rollback")


# -- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_shows_versions_newest_first_with_what_is_in_force() -> None:
    lines = list(
        shown(
            view(
                command(Kind.PIN, V3),
                command(version=V1),
                command(Kind.PROMOTE, V2, over=V2),
                states=(state(refused={"v3": "truncated"}), state("b", refused={"v3": "truncated"})),
                unreadable={"v0": "isn't JSON"},
            )
        )
    )
    assert lines[:5] == [
        "model tiny, CURRENT names v2",
        f"  v3 ({'3' * 12}): chosen; pinned; refused: truncated",
        f"  v2 ({'2' * 12}): promoted",
        f"  v1 ({'1' * 12}): quarantined: drifts (by ana)",
        "  v0: unreadable: isn't JSON",
    ]


def test_the_list_shows_each_worker_and_what_it_is_about() -> None:
    full = state("a", V2, age_s=12.9, backup="v1", shadow="v3", held="v2 was quarantined")
    assert list(shown(view(states=(full, state("b", V1)))))[-3:] == [
        "workers: 2",
        f"  a: serves v2 ({'2' * 12}), backup v1, shadow v3, HELD: v2 was quarantined; said 12 s ago",
        f"  b: serves v1 ({'1' * 12}); said 1 s ago",
    ]


def test_the_list_says_who_was_probably_killed() -> None:
    assert list(shown(view(states=(state(age_s=181),))))[-1].endswith("said 181 s ago, so it was probably killed")


def test_the_list_says_what_is_missing() -> None:
    lines = list(shown(view(current=None, versions=())))
    assert lines == ["model tiny, CURRENT names nothing that can be read", "workers: none has said what it runs"]
    noted = list(shown(view(current="v9")))
    assert "note: CURRENT names version v9, which isn't there or has no readable card" in noted


def test_a_worker_whose_clock_is_ahead_said_it_now() -> None:
    assert list(shown(view(states=(state(age_s=-5),))))[-1].endswith("; said 0 s ago")


# -- the whole command ------------------------------------------------------------------------------------------------


class Broker:
    """A consumer for each topic in the order of reading, and one producer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.control = ControlConsumer([end()])
        self.states = ControlConsumer([end()])
        self.producer = ControlProducer()
        readers = iter([self.control, self.states])
        self.states.topics = Answers(topic_of((0,), topic=STATES))
        monkeypatch.setattr(models_command, "Consumer", lambda *_, **__: next(readers))
        monkeypatch.setattr(models_command, "Producer", lambda *_, **__: self.producer)
        monkeypatch.setattr(models_command, "wall_clock_ms", lambda: NOW_MS)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker(monkeypatch)


TOPICS = (f"fleet.control_topic={CONTROL}", f"fleet.state_topic={STATES}")


def settings(store: Path, topics: Sequence[str] = TOPICS) -> Settings:
    needed = ["kafka.bootstrap.servers=x:1", f"engine.model={store}", "delivery.transactional_id=w"]
    return load_settings(None, [*needed, *topics], {})


def parsed(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(["models", *words])


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    made_store = TestStore(tmp_path / "tiny")
    made_store.publish("v1")
    return made_store


def test_it_looks_at_the_folder_and_both_topics_and_closes_what_it_read_with(store: TestStore, broker: Broker) -> None:
    v1 = store.version("v1")
    mine, other, gone = state("a", v1), state("x", v1, model="other"), state("b", v1)
    broker.control.coming = [[said(command(version=v1)), said(command(Kind.PIN, v1))], [end()]]
    broker.control.coming[1].insert(0, message(command(Kind.PIN, v1).key, None))
    messages = [message(each.key, encode_state(each)) for each in (mine, other, gone)]
    broker.states.coming = [[*messages, message(gone.key, None), message(b"k", b"unreadable"), end()]]
    found = look(settings(store.folder))
    assert (found.model, found.listing.current, found.states) == ("tiny", "v1", (mine,))
    assert [each.kind for each in found.in_force] == [Kind.QUARANTINE]
    assert (found.now_ms, found.heartbeat_s) == (NOW_MS, 60.0)
    assert (broker.control.closed, broker.states.closed) == (1, 1)


def test_a_folder_without_versions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"engine\.model: .* isn't a folder of versions with CURRENT; publish"):
        look(settings(tmp_path))


def test_it_lists(store: TestStore, broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    assert run(settings(store.folder), parsed("list")) == 0
    assert capsys.readouterr().out.startswith("model tiny, CURRENT names v1\n  v1 (")


def test_it_sends_and_says_so(store: TestStore, broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings(store.folder), parsed("pin", "v1", "--by", "bo")) == 0
    ((topic, key, value),) = broker.producer.delivered
    sent = decode_command(value or b"")
    assert (topic, key, sent.by, sent.at_ms) == (CONTROL, sent.key, "bo", NOW_MS)
    assert re.fullmatch(r"pin v1 \([0-9a-f]{12}\): in force\n", capsys.readouterr().out)


def test_a_release_is_said_as_one(store: TestStore, broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.control.coming = [[said(command(version=store.version("v1"))), end()]]
    run(settings(store.folder), parsed("release", "v1"))
    assert capsys.readouterr().out.endswith(": released\n")


def test_who_asks_is_named_by_user_and_host(store: TestStore, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ana")
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    run(settings(store.folder), parsed("pin", "v1"))
    assert decode_command(broker.producer.delivered[0][2] or b"").by == "ana@desk"


def test_without_a_control_topic_it_lists_but_sends_nothing(store: TestStore, broker: Broker) -> None:  # noqa: ARG001
    own = settings(store.folder, topics=())
    assert run(own, parsed("list")) == 0
    with pytest.raises(
        ConfigurationError, match=r"fleet\.control_topic: got nothing, expected the topic .* model-control"
    ):
        run(own, parsed("pin", "v1"))


def test_a_command_that_was_refused_is_an_error(store: TestStore, broker: Broker) -> None:
    broker.producer.losses = [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    with pytest.raises(UnreachableError, match=r"fleet\.control_topic: writing to model-control: lost"):
        run(settings(store.folder), parsed("pin", "v1"))


def test_a_command_that_nobody_took_is_an_error(store: TestStore, broker: Broker) -> None:
    broker.producer.stays = 1
    with pytest.raises(UnreachableError, match="writing to model-control: no broker took it within 5 s"):
        run(settings(store.folder), parsed("pin", "v1"))


def test_a_producer_that_refuses_at_once_is_an_error(
    store: TestStore, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def produce(*_: object, **__: object) -> None:
        raise refused(KafkaError._UNKNOWN_TOPIC)

    monkeypatch.setattr(broker.producer, "produce", produce)
    with pytest.raises(UnreachableError, match="writing to model-control: reason -188"):
        run(settings(store.folder), parsed("pin", "v1"))

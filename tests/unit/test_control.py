"""Commands and states as messages, and what is in force after many commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from worker.control import (
    MAX_TEXT,
    Command,
    Commands,
    ControlError,
    Kind,
    WorkerState,
    decode_command,
    decode_state,
    encode_command,
    encode_state,
)
from worker.version_choice import Control, Promotion, VersionId

V1, V2, V3 = (VersionId(f"v{n}", f"{n}" * 64) for n in (1, 2, 3))


def command(kind: Kind = Kind.QUARANTINE, version: VersionId = V1, **changed: Any) -> Command:
    made = Command(model="tiny", kind=kind, version=version, reason="drifts", by="ana", at_ms=1_700_000_000_123)
    return replace(made, **changed)


STATE = WorkerState(
    model="tiny",
    worker="pod-0",
    serving=V2,
    backup="v1",
    shadow="v3",
    held="version v2 was quarantined",
    refused={"v5": "sha256 is wrong", "v4": "truncated"},
    notes=("CURRENT names version v9", "two"),
    at_ms=1_700_000_000_123,
)


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("over", [None, V3])
def test_a_command_comes_back_as_it_went(kind: Kind, over: VersionId | None, *, released: bool) -> None:
    sent = command(kind, released=released, over=over)
    assert decode_command(encode_command(sent)) == sent


@pytest.mark.parametrize(
    "state", [STATE, replace(STATE, backup=None, shadow=None, held=None, refused={}, notes=())], ids=["full", "plain"]
)
def test_a_state_comes_back_as_it_went(state: WorkerState) -> None:
    assert decode_state(encode_state(state)) == state


def test_a_time_beyond_the_calendars_end_comes_back() -> None:
    assert decode_command(encode_command(command(at_ms=2**60))).at_ms == 2**60


def test_long_texts_are_cut() -> None:
    long = "x" * (MAX_TEXT + 1)
    sent = decode_command(encode_command(command(reason=long, by=long)))
    assert (len(sent.reason), len(sent.by)) == (MAX_TEXT, MAX_TEXT)
    state = decode_state(encode_state(replace(STATE, refused={"v1": long}, notes=(long,))))
    assert (len(state.refused["v1"]), len(state.notes[0])) == (MAX_TEXT, MAX_TEXT)


@pytest.mark.parametrize("decode", [decode_command, decode_state])
def test_what_is_no_message_of_ours_is_refused(decode: Any) -> None:
    with pytest.raises(ControlError, match=r"got a message that starts with 6e6f, expected c301[0-9a-f]{16}: schema"):
        decode(b"no")


def test_a_state_is_no_command_and_a_command_no_state() -> None:
    with pytest.raises(ControlError, match="schema model_control in single-object encoding"):
        decode_command(encode_state(STATE))
    with pytest.raises(ControlError, match="schema model_state in single-object encoding"):
        decode_state(encode_command(command()))


def test_a_message_that_ends_too_early_is_refused() -> None:
    with pytest.raises(ControlError, match="got no valid model_control: "):
        decode_command(encode_command(command())[:-20])


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(ControlError, match="got bytes behind the end of a model_control, expected none"):
        decode_command(encode_command(command()) + b"\0")


def test_a_kind_that_we_do_not_know_is_refused() -> None:
    message = encode_command(command()).replace(b"quarantine", b"quarantino")
    with pytest.raises(
        ControlError, match=r"kind: got 'quarantino', expected one of \['promote', 'pin', 'quarantine'\]"
    ):
        decode_command(message)


# -- keys -------------------------------------------------------------------------------------------------------------


def test_compaction_keeps_one_pin_and_one_promotion_of_a_model_and_one_quarantine_of_a_version() -> None:
    commands = [command(kind, version) for kind in Kind for version in (V1, V2)]
    keys = [each.key for each in commands]
    assert len(set(keys)) == 4
    assert command(Kind.QUARANTINE, VersionId("v1", "9" * 64)).key not in keys
    assert command(model="other").key not in keys


def test_a_state_has_a_key_of_its_own_per_model_and_worker() -> None:
    keys = {STATE.key, replace(STATE, worker="pod-1").key, replace(STATE, model="other").key}
    assert len(keys) == 3
    assert replace(STATE, serving=V1, at_ms=0).key == STATE.key


# -- what is in force -------------------------------------------------------------------------------------------------


def commands(*given: Command) -> Commands:
    found = Commands.none()
    for each in given:
        found = found.after(each)
    return found


def test_nothing_is_in_force_on_an_empty_topic() -> None:
    assert Commands.none().of("tiny") == Control()


def test_all_kinds_are_in_force_side_by_side() -> None:
    control = commands(
        command(Kind.PIN, V1), command(Kind.PROMOTE, V2, over=V3), command(version=V1), command(version=V2, by="bo")
    ).of("tiny")
    assert control.pin == V1
    assert control.promotion == Promotion(version=V2, over=V3)
    assert control.quarantined == {V1: "drifts (by ana)", V2: "drifts (by bo)"}


def test_the_newest_command_of_a_key_counts() -> None:
    control = commands(command(Kind.PIN, V1), command(Kind.PIN, V2)).of("tiny")
    assert control.pin == V2


@pytest.mark.parametrize("kind", Kind)
def test_a_released_command_is_not_in_force_and_comes_back_when_it_is_given_again(kind: Kind) -> None:
    given, released = command(kind), command(kind, released=True)
    assert commands(given, released).of("tiny") == Control()
    assert commands(released, given).of("tiny") != Control()


def test_another_models_commands_are_not_this_ones() -> None:
    found = commands(*(command(kind, model="other") for kind in Kind))
    assert found.of("tiny") == Control()
    assert found.of("other") != Control()


def test_a_withdrawn_command_is_gone() -> None:
    one, two = command(version=V1), command(version=V2)
    found = commands(one, two)
    assert set(found.without(one.key).of("tiny").quarantined) == {V2}
    assert found.without(b"nobody's").newest == found.newest
    assert set(found.newest) == {one.key, two.key}  # a value of its own


def test_the_newest_word_about_a_quarantine_is_found_also_when_it_was_released() -> None:
    released = command(version=V1, released=True)
    found = commands(command(version=V1), command(version=V2), command(Kind.PIN, V3), released)
    assert found.about("tiny", V1) == released
    assert found.about("tiny", V3) is None
    assert found.about("other", V1) is None

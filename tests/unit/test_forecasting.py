"""A whole worker in memory with engines that fail: what is published, by whom, and that every record has one outcome."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.faulty import FaultyEngine
from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import BACKUP_DIGEST, STANDBY_DIGEST, Rig, event, key, read
from tests.helpers.turns import latest, letters, step
from worker.engine import Slot, Ticket
from worker.errors import EngineError, FatalEngineError
from worker.guard import Rule
from worker.guard_reference import EDGES, Reference
from worker.handover import Fitted, Order
from worker.records import Reason
from worker.settings_guard import GuardSettings
from worker.version_choice import VersionId

MAIN_DIGEST = "fa" * 32
CONTROL = {"sales": np.full((1, 3), 500.0, np.float32)}
LIMITS = GuardSettings(least_rows=8, full_rows=8, window_rows=32, fault_share=0.5, poison_rows=2)


def reference() -> Reference:
    """Of `FakeEngine`'s forecasts for sales around 100: next to no difference from the recent mean."""
    shares = np.zeros(len(EDGES) - 1)
    shares[10] = 1.0
    return Reference(mean_of="sales", edges=EDGES, shares=shares, mean=0.1, control=CONTROL)


def rig(*, backup: bool = True, standby: bool = False, asynchronous: bool = False, **more: object) -> Rig:
    made = Rig(
        MemoryBroker(2),
        engine_class=FaultyEngine,
        backup_class=FaultyEngine if backup else None,
        standby_class=FaultyEngine if standby else None,
        asynchronous=asynchronous,
        limits=LIMITS,
        references={digest: reference() for digest in (MAIN_DIGEST, BACKUP_DIGEST, STANDBY_DIGEST)},
        **more,  # type: ignore[arg-type]
    )
    made.source.assign(0, 1)
    return made


def send(made: Rig, *marks: float, partition: int = 0) -> None:
    for mark in marks:
        sku = f"sku{mark:g}"
        made.broker.append(partition, key(sku), event(sku, (mark, mark, mark)))


def main(made: Rig) -> FaultyEngine:
    assert isinstance(made.engine, FaultyEngine)
    return made.engine


def second(made: Rig) -> FaultyEngine:
    assert isinstance(made.backup, FaultyEngine)
    return made.backup


def by(made: Rig) -> list[tuple[int, str, str | None]]:
    """(offset, first letters of the engine's digest, fallback reason) of every forecast, in the order of the topic."""
    found = []
    for message in made.broker.published:
        if message.topic == "out" and message.value is not None:
            content = read(message)
            reason = content["fallback_reason"]
            found.append(
                (int(str(content["source_offset"])), str(content["engine_digest"])[:2], reason and str(reason))
            )
    return found  # type: ignore[return-value]


def settle(made: Rig) -> None:
    made.settle()
    for engine in (made.engine, made.backup, made.standby):
        assert engine is None or engine.free + (made.worker._batcher.slot is not None) >= made.slots
    assert set(made.outcomes().values()) <= {1}
    assert len(made.outcomes()) == len(made.broker.records())


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_row_that_breaks_a_rule_is_forecast_by_the_backup_and_says_why(asynchronous: bool) -> None:  # noqa: FBT001
    made = rig(asynchronous=asynchronous)
    main(made).spoilt = frozenset({101.0})
    send(made, 100, 101, 102, 103)
    settle(made)
    assert by(made) == [
        (0, "fa", None),
        (1, "bb", "guard:not_finite"),
        (2, "fa", None),
        (3, "fa", None),
    ]
    counted = latest(made)
    assert (counted.guard_trips[Rule.NOT_FINITE], dict(counted.fallbacks)) == (1, {"guard:not_finite": 1})
    assert letters(made) == []


def test_a_row_that_no_model_can_forecast_is_a_dead_letter_with_both_reasons() -> None:
    made = rig()
    main(made).spoilt = second(made).spoilt = frozenset({101.0})
    send(made, 100, 101)
    settle(made)
    (letter,) = letters(made)
    assert (letter["reason"], letter["offset"]) == (Reason.BAD_FORECAST, 1)
    assert str(letter["detail"]).startswith("not_finite: forecast[day 0")
    assert "backup: not_finite" in str(letter["detail"])
    assert made.engines.rolled_back is None


def test_an_exploded_row_is_found_by_its_own_history() -> None:
    made = rig()
    main(made).scale = 400.0
    send(made, 100)
    settle(made)
    assert by(made) == [(0, "bb", "guard:explosion")]


def test_too_many_rows_that_only_the_backup_can_forecast_roll_the_version_back() -> None:
    made = rig()
    main(made).spoilt = frozenset(map(float, range(100, 200)))
    send(made, *range(100, 112))
    settle(made)
    assert {digest for _, digest, _ in by(made)} == {"bb"}
    assert {reason for *_, reason in by(made)} <= {"guard:not_finite", "guard:fault_share"}
    assert made.engines.serving is made.backup
    assert latest(made).roll_backs[Rule.FAULT_SHARE] == 1
    assert latest(made).engine is second(made).spec


# -- engines ----------------------------------------------------------------------------------------------------------


def test_a_batch_that_fails_once_is_computed_again_by_the_same_engine() -> None:
    made = rig()
    main(made).fail_collect = [EngineError("hiccup")]
    send(made, 100, 101)
    settle(made)
    assert by(made) == [(0, "fa", None), (1, "fa", None)]
    assert latest(made).engine_failures["error"] == 1


def test_the_record_that_breaks_one_engine_comes_from_the_other() -> None:
    made = rig()
    main(made).poison = frozenset({101.0})
    send(made, 100, 101, 102)
    settle(made)
    assert by(made) == [(0, "fa", None), (1, "bb", "engine_error"), (2, "fa", None)]
    assert made.engines.serving is made.engine


def test_the_record_that_breaks_every_engine_is_a_dead_letter_and_the_rest_gets_forecasts() -> None:
    made = rig()
    main(made).poison = second(made).poison = frozenset({101.0})
    send(made, 100, 101, 102, 103)
    send(made, 104, partition=1)
    settle(made)
    (letter,) = letters(made)
    assert (letter["reason"], letter["offset"]) == (Reason.ENGINE_FAILED, 1)
    assert made.engines.serving is made.engine
    assert {digest for _, digest, _ in by(made)} == {"fa"}


def test_the_record_that_breaks_the_only_engine_is_a_dead_letter_even_alone() -> None:
    made = rig(backup=False)
    main(made).poison = frozenset({101.0})
    send(made, 101)
    settle(made)
    assert [letter["reason"] for letter in letters(made)] == [Reason.ENGINE_FAILED]


def test_a_dead_engine_gives_way_to_the_backup_for_good() -> None:
    made = rig(asynchronous=True)
    send(made, 100, 101, 102, 103)
    settle(made)
    main(made).dead = True
    send(made, *range(104, 116))
    settle(made)
    assert by(made)[:4] == [(n, "fa", None) for n in range(4)]
    assert by(made)[4:] == [(n, "bb", "engine_error") for n in range(4, 16)]
    assert latest(made).roll_backs[Rule.ENGINE_ERROR] == 1


def test_without_a_backup_a_dead_engine_ends_the_process_and_nothing_is_lost() -> None:
    made = rig(backup=False)
    main(made).dead = True
    send(made, 100, 101)
    with pytest.raises(EngineError, match="nothing works"):
        made.settle()
    made.worker.abandon()
    assert (made.broker.published, made.delivery.is_open, main(made).free) == ([], False, 2)
    made.restart()
    made.source.assign(0, 1)
    settle(made)


def test_when_every_engine_is_dead_the_process_ends_and_no_record_is_blamed() -> None:
    made = rig()
    main(made).dead = second(made).dead = True
    send(made, 100)
    with pytest.raises(EngineError, match="nothing works"):
        made.settle()
    assert made.broker.published == []


def test_a_lost_engine_ends_the_process_at_once_even_with_a_backup() -> None:
    made = rig()
    main(made).lost = True
    send(made, 100, 101)
    with pytest.raises(FatalEngineError) as raised:
        made.settle()
    assert raised.value.exit_code == 5
    made.worker.abandon()
    assert not made.delivery.is_open
    assert made.broker.published == []
    assert made.engines.serving is made.engine


def test_forecasts_of_another_shape_are_never_encoded() -> None:
    made = rig()
    main(made).shape = (2, 5, 3)
    send(made, 100, 101)
    settle(made)
    assert by(made) == [(0, "bb", "guard:wrong_shape"), (1, "bb", "guard:wrong_shape")]


# -- many rows together -----------------------------------------------------------------------------------------------


def drifting(asynchronous: bool, slots: int = 3) -> Rig:  # noqa: FBT001
    """Eight sound forecasts are committed; from here on the engine says 1.3 times as much."""
    made = rig(asynchronous=asynchronous, slots=slots)
    send(made, *range(100, 108))
    settle(made)
    main(made).scale = 1.3
    return made


@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_forecast_of_a_version_that_drifts_is_committed_after_it_was_noticed(asynchronous: bool) -> None:  # noqa: FBT001
    made = drifting(asynchronous)
    send(made, *range(108, 148))
    settle(made)
    reasons = [reason for *_, reason in by(made)]
    first = reasons.index("guard:shift") if "guard:shift" in reasons else reasons.index("guard:drift")
    assert {digest for _, digest, _ in by(made)[first:]} == {"bb"}
    assert made.engines.serving is made.backup
    offsets = [offset for offset, *_ in by(made)]
    assert offsets == sorted(offsets)


def test_uncommitted_forecasts_of_the_bad_version_are_aborted_and_come_from_the_backup() -> None:
    made = rig()
    made.limits = LIMITS.model_copy(update={"least_rows": 16})
    made.restart()
    made.source.assign(0, 1)
    main(made).scale = 1.3
    send(made, *range(100, 140))
    for _ in range(20):  # no time passes: nothing is committed
        made.worker.step()
    assert made.delivery.aborted == 1
    settle(made)
    assert {digest for _, digest, _ in by(made)} == {"bb"}


def test_batches_in_flight_and_rows_being_gathered_come_from_the_backup_too() -> None:
    made = drifting(asynchronous=True)
    send(made, *range(108, 118))
    step(made, times=4)  # two batches in flight, two rows gathered
    assert main(made).outstanding == 2
    main(made).dead = True  # the first of them can't be collected
    main(made).finish(1)
    step(made)
    assert main(made).outstanding == 0
    assert [digest for _, digest, _ in by(made)[8:]] == []
    settle(made)
    assert [digest for _, digest, _ in by(made)[8:]] == ["bb"] * 10
    assert made.delivery.aborted == 0


def test_what_a_drifting_engine_still_has_or_was_about_to_get_is_never_published() -> None:
    made = drifting(asynchronous=True)
    send(made, *range(108, 118))
    step(made, times=4)
    assert main(made).outstanding == 2
    main(made).finish()  # both at once: the second one is right behind the one that trips
    settle(made)
    assert [digest for _, digest, _ in by(made)[8:]] == ["bb"] * 10
    assert made.delivery.aborted == 0
    assert main(made).submitted_rows[-2:] == [4, 4]  # the two rows that were being gathered went elsewhere


def test_without_a_backup_a_drift_stops_the_worker_and_says_so() -> None:
    made = rig(backup=False)
    main(made).scale = 1.3
    send(made, *range(100, 140))
    step(made, times=30)
    assert made.broker.published == []
    assert made.source.paused
    (reason,) = latest(made).not_ready
    assert "there is no backup" in reason


def test_or_only_counts_it_if_told_so() -> None:
    made = rig(backup=False)
    made.limits = LIMITS.model_copy(update={"without_backup": "publish"})
    made.restart()
    made.source.assign(0, 1)
    main(made).scale = 1.3
    send(made, *range(100, 140))
    settle(made)
    assert Counter(digest for _, digest, _ in by(made)) == {"fa": 40}
    assert latest(made).guard_trips[Rule.SHIFT] + latest(made).guard_trips[Rule.DRIFT] > 0


def test_a_slow_engine_gives_way_but_what_it_computed_is_published() -> None:
    made = rig()
    made.limits = LIMITS.model_copy(update={"latency_batches": 3})
    made.references[MAIN_DIGEST] = Reference(latency_budget_s=0.1, budget_rows=4)
    made.restart()
    made.source.assign(0, 1)
    engine = main(made)
    submit = engine.submit

    def slowly(slot: object, rows: int) -> object:
        made.clock.advance(0.2)
        return submit(slot, rows)  # type: ignore[arg-type]

    engine.submit = slowly  # type: ignore[method-assign, assignment]
    send(made, *range(100, 116))
    settle(made)
    assert [digest for _, digest, _ in by(made)] == ["fa"] * 8 + ["bb"] * 8
    assert latest(made).roll_backs[Rule.LATENCY] == 1


# -- a new version's first rows ----------------------------------------------------------------------------------------


def swapped(scale: float, *, asynchronous: bool = False) -> Rig:
    """The second engine has taken over from the first, which is its backup, and forecasts `scale` times as much."""
    made = rig(asynchronous=asynchronous)
    made.limits = GuardSettings(least_rows=4, full_rows=4, canary_rows=6, drift_index=99.0, shift=9.0, jump_index=99.0)
    made.restart()
    made.source.assign(0, 1)
    send(made, *range(100, 108))
    settle(made)
    second(made).scale = scale
    versions = [
        Fitted(engine, VersionId(number, digest), reference())
        for engine, number, digest in ((second(made), "2", BACKUP_DIGEST), (main(made), "1", MAIN_DIGEST))
    ]
    made.engines._handover.orders.put(Order(serving=versions[0], backup=versions[1], losses=0))
    return made


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nothing_of_a_new_version_is_published_that_the_version_before_contradicts(asynchronous: bool) -> None:  # noqa: FBT001
    made = swapped(3.0, asynchronous=asynchronous)
    send(made, *range(108, 124))
    settle(made)
    assert {(digest, reason) for n, digest, reason in by(made) if n >= 8} == {("fa", "guard:canary")}
    assert latest(made).roll_backs[Rule.CANARY] == 1


def submissions(engine: FaultyEngine) -> list[int]:
    """Rows of each batch that the engine is given from now on."""
    asked: list[int] = []
    submit = engine.submit

    def counted(slot: Slot, rows: int) -> Ticket:
        asked.append(rows)
        return submit(slot, rows)

    engine.submit = counted  # type: ignore[method-assign]
    return asked


def test_the_version_before_computes_no_more_than_the_first_rows() -> None:
    made = swapped(1.1)
    asked = submissions(main(made))
    send(made, *range(108, 124))
    settle(made)
    assert {(digest, reason) for n, digest, reason in by(made) if n >= 8} == {("bb", None)}
    assert asked == [4, 2]


def test_a_version_before_that_fails_holds_nobody_up_and_is_not_asked_again() -> None:
    made = swapped(3.0)
    main(made).dead = True
    asked = submissions(main(made))
    send(made, *range(108, 112))
    settle(made)
    once = list(asked)
    send(made, *range(112, 132))
    settle(made)
    assert {(digest, reason) for n, digest, reason in by(made) if n >= 8} == {("bb", None)}
    assert (bool(once), asked) == (True, once)


@pytest.mark.parametrize("change", [{"horizon": 9}, {"inputs": {"sales": 3, "promo": 3}}])
def test_a_version_before_with_another_shape_or_more_inputs_is_not_compared(change: dict[str, object]) -> None:
    made = swapped(3.0)
    engine = main(made)
    engine._spec = replace(engine.spec, **change)  # type: ignore[arg-type]
    send(made, *range(108, 124))
    settle(made)
    assert {(digest, reason) for n, digest, reason in by(made) if n >= 8} == {("bb", None)}


# -- device memory ----------------------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved_and_needs_no_other_engine() -> None:
    made = rig(standby=True)
    main(made).memory_rows = 2
    send(made, *range(100, 108))
    settle(made)
    assert by(made) == [(n, "fa", None) for n in range(8)]
    assert latest(made).engine_failures["out_of_memory"] == 2
    assert not latest(made).standby


def full(made: Rig) -> Rig:
    """Not even one row fits."""
    main(made).memory_rows = 0
    return made


@pytest.mark.parametrize("asynchronous", [False, True])
def test_when_nothing_fits_the_stand_by_computes_and_says_so_until_the_device_works_again(
    asynchronous: bool,  # noqa: FBT001
) -> None:
    made = full(rig(standby=True, asynchronous=asynchronous))
    send(made, *range(100, 110))
    settle(made)
    assert by(made) == [(n, "cc", "onnx_standby") for n in range(10)]
    counted = latest(made)
    assert (counted.standby, counted.fallbacks["onnx_standby"], counted.ready) == (True, 10, True)
    assert "stand-by" in counted.notes[0]
    main(made).memory_rows = None
    made.clock.advance(31.0)
    send(made, *range(110, 118))
    step(made)
    settle(made)
    send(made, *range(118, 122))
    settle(made)
    assert by(made)[-4:] == [(n, "fa", None) for n in range(18, 22)]
    assert not latest(made).standby
    assert made.engines.serving is made.engine


def test_batches_in_flight_when_memory_runs_out_are_computed_by_the_stand_by() -> None:
    made = rig(standby=True, asynchronous=True, slots=3)
    send(made, *range(100, 110))
    step(made, times=4)
    made.engine.fail_collect = []
    assert main(made).outstanding == 2
    full(made)
    for ticket in list(main(made)._outstanding):
        main(made)._outstanding.remove(ticket)
        main(made)._outstanding.append(ticket._replace(failure=out_of_memory()))
    settle(made)
    assert by(made) == [(n, "cc", "onnx_standby") for n in range(10)]


def out_of_memory() -> EngineError:
    from worker.errors import OutOfDeviceMemoryError  # noqa: PLC0415

    return OutOfDeviceMemoryError("got 1 GiB, needs 2")


def test_without_a_stand_by_the_backup_takes_over_and_without_both_the_process_ends() -> None:
    made = full(rig())
    send(made, 100, 101)
    settle(made)
    assert by(made) == [(0, "bb", "engine_error"), (1, "bb", "engine_error")]
    alone = full(rig(backup=False))
    send(alone, 100)
    with pytest.raises(EngineError, match="rows' memory"):
        alone.settle()


def test_a_stand_by_that_drifts_is_left_with_its_version() -> None:
    made = full(rig(standby=True))
    assert isinstance(made.standby, FaultyEngine)
    made.standby.scale = 1.3
    send(made, *range(100, 140))
    settle(made)
    assert made.engines.serving is made.backup
    assert by(made)[-1][1:] == ("bb", made.engines.rolled_back)
    assert not latest(made).standby

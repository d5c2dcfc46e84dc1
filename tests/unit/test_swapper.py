import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.engine_card import EngineCard
from tests.helpers.store import TestStore, truncated, with_card
from tests.helpers.swapping import CountedEngine, Swapping
from worker.control import Command, Kind
from worker.engine import Engine, EngineSpec
from worker.errors import ContractError, FatalEngineError
from worker.loading import Loaded, RefusedError
from worker.memory_room import NoRoomError
from worker.model_status import DeviceMemory, Outcome, Phase
from worker.shadow import Bounds
from worker.shadow_run import Trial
from worker.version_choice import Rule, VersionId
from worker.version_states import State

BOUNDS = Bounds(rows=8, max_wape=0.2, max_bias=0.1, max_width_ratio=2.0, max_latency_ratio=1e9)
TRIAL = Trial(share=0.5, max_time_share=0.5, bounds=BOUNDS)


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    store = TestStore(tmp_path / "tiny")
    store.publish("v1")
    return store


@pytest.fixture(autouse=True)
def _all_closed_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did: closing both sides leaves no engine open and closes none twice."""
    made: list[Swapping] = []
    original = Swapping.__post_init__

    def remember(self: Swapping) -> None:
        original(self)
        made.append(self)

    patch = pytest.MonkeyPatch()
    patch.setattr(Swapping, "__post_init__", remember)
    yield
    patch.undo()
    for each in made:
        each.used.clear()
        each.close()
        engines = [engine for engine in each.engines if isinstance(engine, CountedEngine)]
        assert [engine.closings for engine in engines] == [1] * len(engines), request.node.name


def command(kind: Kind, version: VersionId, *, released: bool = False, over: VersionId | None = None) -> Command:
    return Command(
        model="tiny", kind=kind, version=version, reason="drifts", by="ana", at_ms=1, released=released, over=over
    )


def test_a_new_current_serves_and_the_old_version_backs_it_up(store: TestStore) -> None:
    world = Swapping(store)
    v2 = store.publish("v2")
    world.settle()
    assert (world.serving, world.backup) == ("v2", "v1")
    assert world.status.version_in(State.SERVING) == v2
    assert world.status.outcomes[Outcome.SERVED] == 1
    assert world.status.rule is Rule.CURRENT


def test_steps_count_as_during_a_swap_while_a_version_is_loaded_and_until_the_old_one_is_closed(
    store: TestStore,
) -> None:
    world = Swapping(store)
    seen: list[bool] = []
    load = world.loader.load

    def watched(version: VersionId, like: EngineSpec | None = None) -> Loaded:
        seen.append(world.handover.loading)
        loaded = load(version, like)
        seen.append(world.handover.loading)
        return loaded

    world.loader.load = watched  # type: ignore[method-assign]
    store.publish("v2")
    world.settle()
    assert world.serving == "v2"
    assert seen[:2] == [True, True]
    assert not world.handover.loading


def test_the_phases_of_loading_are_timed_and_probed_in_order(store: TestStore) -> None:
    world = Swapping(store)
    world.points.clear()
    store.publish("v2")
    world.settle()
    assert world.points == [
        *("model_checked", "model_loaded", "model_proven", "model_warm", "model_handed_over", "model_turned")
    ]
    assert set(world.status.loads) == {*Phase} - {Phase.SHADOW, Phase.CLOSE}
    store.publish("v3")
    world.settle()
    assert sum(world.status.loads[Phase.CLOSE][0]) == 1


def test_it_starts_with_current_and_loads_the_version_before_it_as_backup(store: TestStore) -> None:
    store.publish("v2")
    world = Swapping(store)
    assert world.open() == ["v2"]
    world.settle()
    assert (world.serving, world.backup) == ("v2", "v1")


def test_of_three_versions_the_oldest_is_closed(store: TestStore) -> None:
    world = Swapping(store)
    for name in ("v2", "v3"):
        store.publish(name)
        world.settle()
    assert world.open() == ["v2", "v3"]
    assert world.status.states[store.version("v1")] is State.RETIRED


def test_an_engine_is_closed_only_when_no_batch_uses_it(store: TestStore) -> None:
    world = Swapping(store, keep_backup=False)
    first = world.slot.serving
    world.used.add(id(first))
    store.publish("v2")
    world.settle()
    assert world.serving == "v2"
    assert world.open() == ["v1", "v2"]
    world.used.clear()
    world.settle()
    assert world.open() == ["v2"]


def test_without_a_backup_by_setting_there_is_none(store: TestStore) -> None:
    store.publish("v2")
    world = Swapping(store, keep_backup=False)
    world.settle()
    assert world.backup is None


def test_going_back_to_the_backup_loads_nothing(store: TestStore) -> None:
    world = Swapping(store)
    store.publish("v2")
    world.settle()
    engines = len(world.engines)
    store.make_current("v1")
    world.settle()
    assert (world.serving, world.backup) == ("v1", "v2")
    assert len(world.engines) == engines


def test_a_half_written_folder_and_a_hidden_one_are_not_taken_up(store: TestStore) -> None:
    world = Swapping(store)
    (store.folder / ".v2.part").mkdir()
    (store.folder / "v3").mkdir()
    (store.folder / "v3" / "card.json").write_text("{}")
    world.settle()
    assert world.serving == "v1"
    assert world.status.refused == {}


@pytest.mark.parametrize(
    ("spoil", "options", "expected"),
    [
        (truncated, {}, "sha256 is"),
        (with_card(onnx_sha256="0" * 64), {}, "sha256 is"),
        (lambda folder: (folder / "card.json").write_text("{"), {}, "isn't JSON"),
        (None, {"inputs": {"sales": 30}}, "inputs: got"),
        (None, {"horizon": 3, "quantiles": (0.1, 0.9), "spoil_golden": True}, "golden batch: row 0"),
    ],
)
def test_a_broken_version_is_refused_with_its_reason_and_nothing_else_changes(
    store: TestStore, spoil: object, options: dict[str, object], expected: str
) -> None:
    world = Swapping(store)
    options = dict(options)
    if options.pop("spoil_golden", False):
        spoil = _other_golden
    store.publish("v2", spoil=spoil or (lambda _: None), current=False, **options)  # type: ignore[arg-type]
    store.make_current("v2")
    world.settle()
    assert world.serving == "v1"
    shown = {version.name: reason for version, reason in world.status.refused.items()} | dict(world.status.unreadable)
    assert expected in shown["v2"]
    assert expected in world.told[-1].refused["v2"]
    store.publish("v3")
    world.settle()
    assert world.serving == "v3"


def test_inputs_stay_the_first_versions_also_when_the_last_resort_serves(store: TestStore) -> None:
    world = Swapping(store)
    world.swapper._serving = None  # rolled back to an engine of no version
    v2 = store.publish("v2", inputs={"sales": 30})
    world.look()
    assert "inputs: got" in world.status.refused[v2]


def _other_golden(folder: Path) -> None:
    from schemas.engine_card import CARD_NAME, load_card  # noqa: PLC0415 - beside its only use

    golden = load_card(folder / CARD_NAME).golden
    shifted = [[[value + 1 for value in day] for day in row] for row in golden.outputs]
    with_card(golden=golden.model_copy(update={"outputs": shifted}))(folder)


def test_a_refused_version_is_tried_again_only_when_its_bytes_change(store: TestStore) -> None:
    world = Swapping(store)
    store.publish("v2", spoil=truncated)
    world.settle()
    refusals = world.status.outcomes[Outcome.REFUSED]
    model = store.folder / "v2" / "model.onnx"
    model.write_bytes(model.read_bytes())  # other times, the same bytes
    world.settle()
    assert world.status.outcomes[Outcome.REFUSED] == refusals == 1
    store.publish("v2")
    world.settle()
    assert world.serving == "v2"
    assert world.status.refused == {}


def test_too_slow_for_its_card_is_refused(store: TestStore) -> None:
    world = Swapping(store)

    def ticking(model: Path, card: object) -> CountedEngine:
        from tests.helpers.swapping import make  # noqa: PLC0415 - beside its only use

        engine = make(model, card)  # type: ignore[arg-type]
        submit = engine.submit

        def slow(*arguments: object) -> object:
            world.clock.advance(0.05)
            return submit(*arguments)  # type: ignore[arg-type]

        engine.submit = slow  # type: ignore[method-assign, assignment]
        return engine

    world.make = ticking
    store.publish("v2", spoil=with_card(latency_budget_ms=20.0))
    world.settle()
    assert world.serving == "v1"
    assert "8 rows took 50.0 ms" in world.status.refused[store.version("v2")]


def test_without_room_it_is_refused_with_the_figures_and_tried_again_later(store: TestStore) -> None:
    world = Swapping(store, headroom_bytes=64 << 20)
    world.free_bytes = 50 << 20
    v2 = store.publish("v2")
    world.settle()
    assert world.serving == "v1"
    assert "free are 50 MiB, and 64 MiB must stay free" in world.status.refused[v2]
    world.free_bytes = 500 << 20
    world.settle()
    assert world.serving == "v1"
    world.clock.advance(61)
    world.settle()
    assert world.serving == "v2"


def test_without_room_the_backup_goes_first(store: TestStore) -> None:
    store.publish("v2")
    world = Swapping(store, headroom_bytes=64 << 20)
    world.settle()
    assert world.backup == "v1"
    world.free_bytes = 0
    store.publish("v3")
    world.look()
    world.step()
    assert world.slot.backup is None
    world.free_bytes = 500 << 20  # the backup's memory
    world.settle()
    assert (world.serving, world.backup) == ("v3", "v2")
    assert world.open() == ["v2", "v3"]


def test_on_a_full_device_it_is_refused(store: TestStore) -> None:
    world = Swapping(store, headroom_bytes=64 << 20)
    world.device = DeviceMemory(used_bytes=1 << 30, free_bytes=1 << 20)
    v2 = store.publish("v2")
    world.settle()
    assert "device memory" in world.status.refused[v2]
    assert world.status.device == world.device


def test_rolling_back_serves_the_backup_and_keeps_the_version_out(store: TestStore) -> None:
    world = Swapping(store)
    v2 = store.publish("v2")
    world.settle()
    assert world.slot.roll_back("guard:explosion") is world.slot.serving
    world.settle()
    assert world.serving == "v1"
    assert world.status.quarantined == {v2: "guard:explosion"}
    assert world.status.outcomes[Outcome.ROLLED_BACK] == 1
    assert world.open() == ["v1"]
    assert world.handover.left.get_nowait().version == v2
    store.publish("v3")
    world.settle()
    assert (world.serving, world.backup) == ("v3", "v1")


def test_a_quarantine_by_the_fleet_is_obeyed_in_the_next_step(store: TestStore) -> None:
    world = Swapping(store)
    v2 = store.publish("v2")
    world.settle()
    world.commands = world.commands.after(command(Kind.QUARANTINE, v2))
    world.handover.quarantined = world.commands.of("tiny").quarantined
    assert "quarantined: drifts" in str(world.step())
    assert world.serving == "v1"
    world.settle()
    assert world.serving == "v1"
    assert world.open() == ["v1"]
    assert world.status.outcomes[Outcome.LEFT] == 1
    world.commands = world.commands.after(command(Kind.QUARANTINE, v2, released=True))
    world.handover.quarantined = world.commands.of("tiny").quarantined
    world.settle()
    assert (world.serving, world.backup) == ("v2", "v1")


def test_with_nothing_to_take_over_it_holds_until_something_can_serve(store: TestStore) -> None:
    world = Swapping(store)
    v1 = store.version("v1")
    world.commands = world.commands.after(command(Kind.QUARANTINE, v1))
    world.handover.quarantined = world.commands.of("tiny").quarantined
    assert world.step() is not None
    assert "no other version can serve" in str(world.slot.held)
    world.settle()
    assert "no other version can serve" in str(world.slot.held)
    assert world.told[-1].held is not None
    store.publish("v2")
    world.settle()
    assert world.slot.held is None
    assert (world.serving, world.backup) == ("v2", None)
    assert world.told[-1].held is None


def test_a_hold_ends_with_the_release(store: TestStore) -> None:
    world = Swapping(store)
    v1 = store.version("v1")
    for released in (False, True):
        world.commands = world.commands.after(command(Kind.QUARANTINE, v1, released=released))
        world.handover.quarantined = world.commands.of("tiny").quarantined
        world.settle()
    assert world.slot.held is None


def test_a_finding_of_the_guard_is_released_by_the_fleet(store: TestStore) -> None:
    world = Swapping(store)
    v2 = store.publish("v2")
    world.settle()
    world.slot.roll_back("guard:psi")
    world.settle()
    for released in (False, True):
        world.commands = world.commands.after(command(Kind.QUARANTINE, v2, released=released))
        world.handover.quarantined = world.commands.of("tiny").quarantined
        world.settle()
    assert world.serving == "v2"


def test_an_order_that_did_not_know_of_a_rollback_is_declined(store: TestStore) -> None:
    world = Swapping(store)
    store.publish("v2")
    world.settle()
    store.publish("v3")
    world.look()  # the order lies in the mailbox: v3, with v2 as backup
    world.slot.roll_back("guard:psi")
    world.step()
    assert world.serving == "v1"
    world.settle()
    assert (world.serving, world.backup) == ("v3", "v1")
    assert world.open() == ["v1", "v3"]


def test_a_pin_and_a_promotion_are_obeyed(store: TestStore) -> None:
    v2 = store.publish("v2")
    world = Swapping(store)
    world.commands = world.commands.after(command(Kind.PIN, store.version("v1")))
    world.settle()
    assert (world.serving, world.status.rule) == ("v1", Rule.PIN)
    world.commands = world.commands.after(command(Kind.PIN, store.version("v1"), released=True))
    world.settle()
    assert world.serving == "v2"
    v3 = store.publish("v3", current=False)
    world.commands = world.commands.after(command(Kind.PROMOTE, v3, over=v2))
    world.settle()
    assert (world.serving, world.status.rule) == ("v3", Rule.PROMOTED)
    store.publish("v4")
    world.settle()
    assert (world.serving, world.status.rule) == ("v4", Rule.CURRENT)


def test_a_shadow_is_compared_and_promoted_after_its_rows(store: TestStore) -> None:
    world = Swapping(store, trial=TRIAL)
    v2 = store.publish("v2")
    world.settle()
    assert (world.serving, world.status.states[v2]) == ("v1", State.SHADOW)
    assert world.told[-1].shadow == "v2"
    assert not world.handover.backup_expected  # v1 serves, and becomes the backup only with v2
    for _ in range(20):
        world.batch()
        world.settle(2)
    assert (world.serving, world.backup) == ("v2", "v1")
    assert world.status.shadow is None
    assert world.handover.sample_every == 0


def test_a_shadow_outside_the_bounds_is_refused_with_figures(store: TestStore) -> None:
    world = Swapping(store, trial=TRIAL)
    v2 = store.publish("v2", drift=1.3)
    world.settle()
    for _ in range(20):
        world.batch()
        world.settle(2)
    assert world.serving == "v1"
    reason = world.status.refused[v2]
    assert "difference from the serving version 0.300, allowed 0.2" in reason
    assert "bias +0.300, allowed ±0.1" in reason
    assert world.open() == ["v1"]


def test_a_shadow_gets_every_second_batch_and_rests_between(store: TestStore) -> None:
    world = Swapping(store, trial=replace(TRIAL, max_time_share=0.25))
    store.publish("v2")
    world.settle()
    world.batch()
    assert wanted(world)
    world.batch()
    assert not wanted(world)
    engine = world.engines[-1]
    submit = engine.submit

    def slow(*arguments: object) -> object:
        world.clock.advance(1.0)
        return submit(*arguments)  # type: ignore[arg-type]

    engine.submit = slow  # type: ignore[method-assign, assignment]
    assert world.load() == pytest.approx(3.0)
    assert not wanted(world)
    world.clock.advance(3.1)
    world.load()
    assert wanted(world)


def wanted(world: Swapping) -> bool:
    return world.handover.sample_wanted


def test_promoting_a_shadow_ends_its_trial(store: TestStore) -> None:
    world = Swapping(store, trial=TRIAL)
    v2 = store.publish("v2")
    world.settle()
    world.commands = world.commands.after(command(Kind.PROMOTE, v2, over=v2))
    world.settle()
    assert world.serving == "v2"


def test_a_shadow_whose_current_was_withdrawn_is_dropped(store: TestStore) -> None:
    world = Swapping(store, trial=TRIAL)
    v2 = store.publish("v2")
    world.settle()
    store.make_current("v1")
    world.settle()
    assert world.status.states[v2] is State.RETIRED
    assert world.open() == ["v1"]
    store.make_current("v2")
    world.settle()
    assert world.status.states[v2] is State.SHADOW


def test_the_start_falls_back_to_an_older_version_and_refuses_when_there_is_none(store: TestStore) -> None:
    store.publish("v2", spoil=truncated)
    world = Swapping(store)
    assert world.serving == "v1"
    truncated(store.folder / "v1")
    os.utime(store.folder / "v1" / "model.onnx", (0, 0))  # as old as it was
    with pytest.raises(ContractError, match=r"no version in .* can serve") as raised:
        Swapping(store)
    assert "version v1" in str(raised.value)
    assert "version v2" in str(raised.value)


def test_a_folder_that_went_away_and_came_back_stops_nothing(store: TestStore) -> None:
    world = Swapping(store)
    aside = store.folder.with_name("away")
    store.folder.rename(aside)
    world.settle()
    assert world.serving == "v1"
    assert "can't be listed" in world.status.notes[-1]
    aside.rename(store.folder)
    store.publish("v2")
    world.settle()
    assert world.serving == "v2"


def test_stopping_with_an_order_in_the_mailbox_closes_its_engine(store: TestStore) -> None:
    world = Swapping(store)
    store.publish("v2")
    world.look()
    assert world.open() == ["v1", "v2"]
    world.close()
    assert world.open() == []
    for engine in world.engines:
        assert isinstance(engine, CountedEngine)
        engine.closings = 0  # the fixture closes once more
    world.engines.clear()


def test_a_new_engine_of_versions_that_left_the_store_is_remembered_no_longer(store: TestStore) -> None:
    world = Swapping(store)
    for number in range(2, 30):
        store.publish(f"v{number}", spoil=truncated if number % 5 == 0 else lambda _: None)
        world.settle(6)
        if number > 4:
            store.remove(f"v{number - 3}")
    world.settle()
    assert len(world.status.states) <= 5
    assert len(world.open()) == 2


def test_a_worker_that_goes_on_after_a_hold_does_not_say_that_it_is_held(store: TestStore) -> None:
    world = Swapping(store)
    v1 = store.version("v1")
    for released, held in ((False, True), (True, False)):
        world.commands = world.commands.after(command(Kind.QUARANTINE, v1, released=released))
        world.handover.quarantined = world.commands.of("tiny").quarantined
        world.settle()
        assert (world.told[-1].held is not None) == held
    assert world.slot.held is None


def test_after_a_hold_new_versions_are_tried_again(store: TestStore) -> None:
    world = Swapping(store, trial=TRIAL)
    for released in (False, True):
        world.commands = world.commands.after(command(Kind.QUARANTINE, store.version("v1"), released=released))
        world.handover.quarantined = world.commands.of("tiny").quarantined
        world.settle()
    v2 = store.publish("v2")
    world.settle()
    assert (world.serving, world.status.states[v2]) == ("v1", State.SHADOW)


def test_what_the_guard_found_is_remembered_while_the_folder_is_away(store: TestStore) -> None:
    world = Swapping(store)
    v2 = store.publish("v2")
    world.settle()
    world.slot.roll_back("guard:psi")
    world.settle()
    aside = store.folder.with_name("away")
    store.folder.rename(aside)
    world.settle()
    aside.rename(store.folder)
    world.settle()
    assert world.serving == "v1"
    assert world.status.quarantined == {v2: "guard:psi"}


def test_what_found_no_room_at_the_start_is_tried_again_after_a_minute(store: TestStore) -> None:
    v2 = store.publish("v2")

    class Tight(Swapping):
        """Has room for no second version of that size until a minute has passed."""

        def _make(self, model: Path, card: EngineCard) -> Engine:
            if card.version == "v2" and self.clock() < 1060:
                raise NoRoomError("host memory: needs 9 MiB, free are 1 MiB")
            return super()._make(model, card)

    world = Tight(store)
    world.settle()
    assert (world.serving, list(world.status.refused)) == ("v1", [v2])
    world.clock.advance(59.9)
    world.settle()
    assert world.serving == "v1"
    world.clock.advance(0.1)
    world.settle()
    assert world.serving == "v2"


def test_bytes_that_were_replaced_while_they_were_loaded_are_tried(store: TestStore) -> None:
    """The reason was found in the old ones; the new ones were never looked at."""
    store.publish("v2", spoil=truncated, current=False)
    world = Swapping(store)
    opened = world.loader.load

    def replaced_meanwhile(version: VersionId, like: EngineSpec | None = None) -> Loaded:
        try:
            return opened(version, like)
        except RefusedError:
            world.loader.load = opened  # type: ignore[method-assign]
            store.publish("v2")
            raise

    world.loader.load = replaced_meanwhile  # type: ignore[method-assign]
    store.make_current("v2")
    world.settle()
    assert world.status.outcomes[Outcome.REFUSED] == 1
    world.settle()  # the publication was noticed
    assert world.serving == "v2"


def test_an_error_after_which_no_engine_works_is_the_callers(store: TestStore) -> None:
    def lost(_model: Path, _card: EngineCard) -> Engine:
        raise FatalEngineError("the GPU's context is lost")

    world = Swapping(store)
    world.make = lost
    store.publish("v2")
    with pytest.raises(FatalEngineError, match="context is lost"):
        world.look()


def test_a_quarantined_backup_is_closed_and_another_is_loaded(store: TestStore) -> None:
    world = Swapping(store)
    for name in ("v2", "v3"):
        store.publish(name)
        world.settle()
    v2 = store.version("v2")
    world.commands = world.commands.after(command(Kind.QUARANTINE, v2))
    world.handover.quarantined = world.commands.of("tiny").quarantined
    world.settle()
    assert (world.serving, world.backup) == ("v3", "v1")
    assert world.status.states[v2] is State.RETIRED
    assert world.open() == ["v1", "v3"]
    store.publish("v4")
    world.settle()
    assert (world.serving, world.backup) == ("v4", "v3")

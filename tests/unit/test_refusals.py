from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.clock import ManualClock
from tests.helpers.store import TestStore, truncated
from worker.refusals import RETRY_S, Refusals
from worker.store_listing import StoreView
from worker.version_choice import VersionId


class Bench:
    def __init__(self, folder: Path, *passing: str) -> None:
        self.clock = ManualClock()
        self.store = TestStore(folder)
        self.versions = {name: self.store.publish(name) for name in ("v1", "v2")}
        self.view = StoreView(folder, "tiny")
        self.view.look()
        self.refusals = Refusals(self.view, self.clock, [self.versions[name] for name in passing])

    def refuse(self, name: str, *, passing: bool) -> VersionId:
        version = self.versions[name]
        self.refusals.refuse(version, f"{name} is bad", passing=passing)
        return version


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "tiny")


def test_a_refusal_is_remembered_with_its_reason(bench: Bench) -> None:
    assert {bench.refuse("v1", passing=False): "v1 is bad"} == bench.view.refused


def test_what_may_pass_is_forgiven_after_its_time_once(bench: Bench) -> None:
    v1 = bench.refuse("v1", passing=True)
    v2 = bench.refuse("v2", passing=False)
    bench.clock.advance(RETRY_S - 0.1)
    assert not bench.refusals.forgive_due()
    assert set(bench.view.refused) == {v1, v2}
    bench.clock.advance(0.1)
    assert bench.refusals.forgive_due()
    assert set(bench.view.refused) == {v2}
    assert not bench.refusals.forgive_due()


def test_each_has_its_own_time(bench: Bench) -> None:
    bench.refuse("v1", passing=True)
    bench.clock.advance(RETRY_S / 2)
    v2 = bench.refuse("v2", passing=True)
    bench.clock.advance(RETRY_S / 2)
    bench.refusals.forgive_due()
    assert set(bench.view.refused) == {v2}


def test_a_second_refusal_begins_the_time_anew(bench: Bench) -> None:
    bench.refuse("v1", passing=True)
    bench.clock.advance(RETRY_S - 1)
    bench.refuse("v1", passing=True)
    bench.clock.advance(RETRY_S - 1)
    assert not bench.refusals.forgive_due()


def test_what_is_refused_for_good_is_not_forgiven_for_what_passed(bench: Bench) -> None:
    bench.refuse("v1", passing=True)
    v1 = bench.refuse("v1", passing=False)
    bench.clock.advance(2 * RETRY_S)
    assert not bench.refusals.forgive_due()
    assert set(bench.view.refused) == {v1}


def test_what_found_no_room_at_the_start_is_forgiven_like_any_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "tiny", "v1")
    bench.view.refuse(bench.versions["v1"], "no room")
    bench.clock.advance(RETRY_S - 0.1)
    assert not bench.refusals.forgive_due()
    bench.clock.advance(0.1)
    assert bench.refusals.forgive_due()
    assert bench.view.refused == {}


def test_a_version_that_left_the_store_meanwhile_is_no_trouble(bench: Bench) -> None:
    bench.refuse("v1", passing=True)
    bench.store.remove("v1")
    bench.view.look()
    bench.clock.advance(RETRY_S)
    assert bench.refusals.forgive_due()


def test_new_bytes_are_tried_at_once(bench: Bench) -> None:
    bench.refuse("v2", passing=False)
    truncated(bench.store.folder / "v2")
    bench.view.look()
    assert bench.view.refused == {}

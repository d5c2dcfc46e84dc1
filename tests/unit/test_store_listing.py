from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.engine_card import CARD_NAME
from schemas.model_store import CURRENT_NAME, MODEL_NAME, StoreError
from tests.helpers.store import TestStore, truncated, with_card
from worker.store_listing import StoreView, model_bytes, model_name
from worker.version_choice import Listing, VersionId


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    made = TestStore(tmp_path / "tiny")
    made.publish("v1")
    return made


@pytest.fixture
def view(store: TestStore) -> StoreView:
    made = StoreView(store.folder, "tiny")
    made.look()
    return made


def again(path: Path) -> None:
    """The same bytes, as if written a moment later."""
    stat = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def no_json(folder: Path) -> None:
    (folder / CARD_NAME).write_text("{")


# -- looking ----------------------------------------------------------------------------------------------------------


def test_versions_are_listed_oldest_first_with_what_current_names(store: TestStore, view: StoreView) -> None:
    v3, v2 = store.publish("v3"), store.publish("v2", current=False)
    assert view.look() == Listing(current="v3", versions=(store.version("v1"), v3, v2))
    assert (view.store, view.problem, view.unreadable, view.refused) == (store.folder, None, {}, {})


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (no_json, "isn't JSON"),
        (with_card(version="v9"), "its card says version v9; publish it again"),
        (with_card(model="other"), "its card says model other, expected tiny"),
    ],
)
def test_a_folder_whose_card_does_not_do_is_left_out_with_the_reason(
    store: TestStore, view: StoreView, spoil: object, expected: str
) -> None:
    store.publish("v2", spoil=spoil)  # type: ignore[arg-type]
    assert view.look().versions == (store.version("v1"),)
    assert list(view.unreadable) == ["v2"]
    assert expected in view.unreadable["v2"]


def test_a_repaired_card_is_read_again_and_a_folder_that_went_is_forgotten(store: TestStore, view: StoreView) -> None:
    store.publish("v2", spoil=no_json)
    view.look()
    v2 = store.publish("v2")
    assert v2 in view.look().versions
    assert view.unreadable == {}
    store.publish("v3", spoil=no_json)
    view.look()
    store.remove("v3")
    view.look()
    assert view.unreadable == {}


def test_a_card_is_read_once_until_its_file_changes(
    store: TestStore, view: StoreView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: Path) -> None:
        raise AssertionError("a card was read")

    before = view.look()
    monkeypatch.setattr("worker.store_listing.load_card", never)
    assert view.look() == before
    again(store.folder / "v1" / MODEL_NAME)
    assert view.look() == before  # of the model's file only the version before was asked
    again(store.folder / "v1" / CARD_NAME)
    with pytest.raises(AssertionError, match="a card was read"):
        view.look()


def test_a_folder_that_cannot_be_listed_is_a_problem_and_no_error(store: TestStore, view: StoreView) -> None:
    store.publish("v2", spoil=truncated)
    view.look()
    view.refuse(store.version("v2"), "sha256")
    aside = store.folder.with_name("away")
    store.folder.rename(aside)
    assert view.look() == Listing(current=None, versions=())
    assert "can't be listed" in (view.problem or "")
    aside.rename(store.folder)
    assert len(view.look().versions) == 2
    assert view.problem is None
    assert view.refused == {store.version("v2"): "sha256"}  # what was refused before is still refused


def test_a_current_that_cannot_be_read_is_a_problem_and_versions_are_listed(store: TestStore, view: StoreView) -> None:
    (store.folder / CURRENT_NAME).write_text("../elsewhere")
    assert view.look() == Listing(current=None, versions=(store.version("v1"),))
    assert "expected the name of a version" in (view.problem or "")


# -- refusing ---------------------------------------------------------------------------------------------------------


def test_what_was_refused_stays_so_whatever_its_times_are(store: TestStore, view: StoreView) -> None:
    v1 = store.version("v1")
    view.refuse(v1, "truncated")
    again(store.folder / "v1" / MODEL_NAME)
    for _ in range(2):  # the second time the new times are known
        view.look()
        assert view.refused == {v1: "truncated"}


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / MODEL_NAME).write_bytes(b"other"),
        lambda folder: (folder / CARD_NAME).write_text("{}"),
        lambda folder: (folder / "plans").mkdir() or (folder / "plans" / "x.plan").write_bytes(b"plan"),
    ],
    ids=["model", "card", "another file"],
)
def test_other_bytes_are_tried_again(store: TestStore, view: StoreView, change: object) -> None:
    view.refuse(store.version("v1"), "truncated")
    change(store.folder / "v1")  # type: ignore[operator]
    view.look()
    assert view.refused == {}


def test_the_same_bytes_under_another_name_are_tried_again(store: TestStore, view: StoreView) -> None:
    note = store.folder / "v1" / "note.txt"
    note.write_bytes(b"built by hand")
    view.refuse(store.version("v1"), "truncated")
    note.rename(note.with_name("other.txt"))
    view.look()
    assert view.refused == {}


def test_a_version_that_left_the_store_is_not_refused_any_more(store: TestStore, view: StoreView) -> None:
    view.refuse(store.version("v1"), "truncated")
    store.remove("v1")
    view.look()
    assert view.refused == {}


def test_what_is_forgiven_may_be_tried_again(store: TestStore, view: StoreView) -> None:
    v1 = store.version("v1")
    view.refuse(v1, "no room")
    view.forgive(v1)
    view.forgive(VersionId("v9", ""))
    assert view.refused == {}


def test_a_refusal_is_about_the_bytes_that_were_tried(store: TestStore, view: StoreView) -> None:
    """A version that is published again while it is loaded was never tried."""
    v1 = store.version("v1")
    view.trying(v1)
    again(store.folder / "v1" / MODEL_NAME)
    view.refuse(v1, "truncated")
    assert view.refused == {v1: "truncated"}
    view.look()
    assert view.refused == {}
    view.trying(v1)
    view.refuse(v1, "truncated")
    view.look()
    assert view.refused == {v1: "truncated"}


def test_a_try_counts_once_and_only_for_its_version(store: TestStore, view: StoreView) -> None:
    v1, v2 = store.version("v1"), store.publish("v2")
    view.trying(v1)
    again(store.folder / "v1" / MODEL_NAME)
    again(store.folder / "v2" / MODEL_NAME)
    view.refuse(v2, "bad")
    view.refuse(v1, "bad")
    view.refuse(v1, "bad")  # not tried anew: as it is now
    view.look()
    assert set(view.refused) == {v1, v2}


def test_a_version_that_is_gone_can_be_refused(store: TestStore, view: StoreView) -> None:
    v1 = store.version("v1")
    view.trying(v1)
    store.remove("v1")
    view.refuse(v1, "its folder is gone")
    view.look()
    assert view.refused == {}


def test_files_that_go_away_while_they_are_read_are_no_error(
    store: TestStore, view: StoreView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(*_: object, **__: object) -> object:
        raise FileNotFoundError(2, "gone")

    v1 = store.version("v1")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", vanished)  # between listing and reading
        view.refuse(v1, "bad")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rglob", vanished)  # while listing, as older versions of Python tell it
        view.refuse(v1, "bad")
        view.look()
    assert view.look().versions == (v1,)
    assert view.refused == {}  # what was refused are other bytes than those that can be read now


# -- names and sizes --------------------------------------------------------------------------------------------------


def test_the_models_size_is_its_files(store: TestStore) -> None:
    folder = store.folder / "v1"
    assert model_bytes(folder) == (folder / MODEL_NAME).stat().st_size > 0
    assert model_bytes(store.folder / "v9") == 0


def test_the_models_name_is_said_by_the_current_versions_card(store: TestStore) -> None:
    store.publish("v2", spoil=with_card(model="other"), current=False)
    assert model_name(store.folder) == "tiny"
    store.make_current("v2")
    assert model_name(store.folder) == "other"


@pytest.mark.parametrize("current", ["v9", "../x"])
def test_else_by_the_newest_card_that_can_be_read(store: TestStore, current: str) -> None:
    store.publish("v2", spoil=with_card(model="other"))
    store.publish("v3", spoil=no_json)
    (store.folder / CURRENT_NAME).write_text(current)
    assert model_name(store.folder) == "other"


def test_without_a_readable_card_there_is_no_name_and_all_problems_are_said(tmp_path: Path) -> None:
    made = TestStore(tmp_path / "tiny")
    for name in ("v1", "v2"):
        made.publish(name, spoil=no_json)
    with pytest.raises(StoreError, match="no version has a readable card; publish one first") as raised:
        model_name(made.folder)
    assert str(raised.value).count("isn't JSON") == 3  # CURRENT's, and both

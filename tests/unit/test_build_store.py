from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine_build.errors import PublishError
from engine_build.publish import Publisher
from engine_build.store import collect_garbage, listed, sign_version, use_version, verify_version
from schemas.model_store import StoreError, current_name, version_names
from tests.helpers.releases import CrashError, FailingDisk, plan, release, render


def store_with(tmp_path: Path, *names: str) -> Path:
    for age, name in enumerate(names):
        Publisher(tmp_path, render=render, disk=FailingDisk()).publish(release(version=name))
        moment = 1_700_000_000 + age
        os.utime(tmp_path / "test" / name / "model.onnx", (moment, moment))
    return tmp_path / "test"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_version_has_no_problems(tmp_path: Path) -> None:
    assert verify_version(store_with(tmp_path, "1") / "1") == ()


@pytest.mark.parametrize("pattern", ["model.onnx", "golden.npz", "graphs/*.onnx", "plans/*.plan"])
def test_a_flipped_bit_and_a_missing_end_are_found(tmp_path: Path, pattern: str) -> None:
    folder = store_with(tmp_path, "1") / "1"
    (path,) = folder.glob(pattern)
    flip(path)
    (problem,) = verify_version(folder)
    assert str(path) in problem
    assert "the file is damaged or was replaced" in problem
    flip(path)
    assert verify_version(folder) == ()
    path.write_bytes(path.read_bytes()[:-1])
    assert len(verify_version(folder)) == 1
    path.unlink()
    (problem,) = verify_version(folder)
    assert "the version isn't complete" in problem


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    folder = store_with(tmp_path, "1") / "1"
    flip(folder / "model.onnx")
    flip(next(folder.glob("plans/*")))
    moved = folder.rename(folder.with_name("9"))
    assert len(verify_version(moved)) == 3


def test_a_plan_of_an_unknown_graph_is_told(tmp_path: Path) -> None:
    Publisher(tmp_path, render=render, disk=FailingDisk()).publish(release(plan(b"plan", graph=b"unknown")))
    (problem,) = verify_version(tmp_path / "test" / "1")
    assert "which the version doesn't have" in problem


def test_a_card_that_is_none_is_the_only_problem(tmp_path: Path) -> None:
    folder = store_with(tmp_path, "1") / "1"
    (folder / "card.json").write_text("{")
    (problem,) = verify_version(folder)
    assert "isn't JSON" in problem


def test_trusted_keys_make_an_unsigned_version_a_problem(tmp_path: Path) -> None:
    store, key = store_with(tmp_path, "1"), Ed25519PrivateKey.generate()
    (problem,) = verify_version(store / "1", [key.public_key()])
    assert "isn't signed" in problem
    sign_version(store, "1", key)
    assert verify_version(store / "1", [key.public_key()]) == ()


def test_a_damaged_version_is_not_signed_and_not_made_current(tmp_path: Path) -> None:
    store = store_with(tmp_path, "1", "2")
    flip(next((store / "1").glob("plans/*")))
    with pytest.raises(PublishError, match="it stays unsigned"):
        sign_version(store, "1", Ed25519PrivateKey.generate())
    with pytest.raises(PublishError, match="`CURRENT` stays"):
        use_version(store, "1")
    assert current_name(store) == "2"


def test_rolling_back_and_forth(tmp_path: Path) -> None:
    store = store_with(tmp_path, "1", "2")
    use_version(store, "1")
    assert current_name(store) == "1"
    use_version(store, "2")
    assert current_name(store) == "2"
    with pytest.raises(StoreError, match="there is no version 3"):
        use_version(store, "3")


def test_versions_are_listed_with_what_is_wrong(tmp_path: Path) -> None:
    store = store_with(tmp_path, "1", "2")
    (store / "1" / "card.json").write_text("{")
    first, second = listed(store)
    assert (first.name, first.is_current, first.card) == ("1", False, None)
    assert first.problem is not None
    assert (second.name, second.is_current, second.problem) == ("2", True, None)
    assert second.size_bytes > 0


def test_old_versions_go_but_never_the_current_or_a_pinned_one(tmp_path: Path) -> None:
    store = store_with(tmp_path, *"abcdef")
    use_version(store, "b")
    assert collect_garbage(store, keep=2, pinned=["c"]) == ("a", "d")
    assert version_names(store) == ("b", "c", "e", "f")
    assert collect_garbage(store, keep=2, pinned=["c"]) == ()


def test_what_gc_is_told_must_make_sense(tmp_path: Path) -> None:
    store = store_with(tmp_path, "a", "b")
    with pytest.raises(PublishError, match="expected 1 or more"):
        collect_garbage(store, keep=0)
    with pytest.raises(PublishError, match="no such version; there are: a, b"):
        collect_garbage(store, keep=1, pinned=["x"])
    (store / "CURRENT").write_text("../etc")
    with pytest.raises(StoreError, match="expected the name of a version"):
        collect_garbage(store, keep=1)
    assert version_names(store) == ("a", "b")


def test_gc_that_dies_is_finished_by_the_next(tmp_path: Path) -> None:
    store = store_with(tmp_path, "a", "b")
    with pytest.raises(CrashError):
        collect_garbage(store, keep=1, disk=FailingDisk(2))
    assert version_names(store) == ("b",)
    assert list(store.glob(".removed-*"))
    assert collect_garbage(store, keep=1) == ()
    assert not list(store.glob(".removed-*"))


def test_gc_removes_plans_that_no_card_names_and_passes_over_damaged_versions(tmp_path: Path) -> None:
    store = store_with(tmp_path, "1", "2")
    Publisher(tmp_path, render=render, disk=FailingDisk()).publish(release(plan(b"new"), version="2"))
    flip(store / "1" / "model.onnx")
    assert len(list((store / "2" / "plans").iterdir())) == 2
    collect_garbage(store, keep=5)
    assert [path.read_bytes() for path in (store / "2" / "plans").iterdir()] == [b"new"]

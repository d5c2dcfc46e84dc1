from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine_build.disk import Disk, publisher_lock
from engine_build.errors import PublishError
from engine_build.publish import Publisher, Release, merged
from engine_build.store import verify_version
from schemas.card_signature import load_signed_card
from schemas.engine_card import load_card
from schemas.model_store import current_name, open_version, version_names
from tests.helpers.releases import CrashError, FailingDisk, plan, release, render, sha256


def publisher(models: Path, disk: Disk | None = None, **options: Any) -> Publisher:
    return Publisher(models, render=render, disk=disk or FailingDisk(), **options)


def hidden(store: Path) -> list[str]:
    return sorted(path.name for path in store.rglob(".*") if path.name != ".lock")


def state(store: Path) -> tuple[str | None, dict[str, str]]:
    """What a reader finds: the current version, and each version with the digest of its card. All of it must be whole."""
    versions = {}
    for name in version_names(store) if store.is_dir() else ():
        assert verify_version(store / name) == ()
        versions[name] = sha256((store / name / "card.json").read_bytes())
    return (current_name(store) if (store / "CURRENT").exists() else None), versions


def test_a_new_version_is_complete_and_current(tmp_path: Path) -> None:
    done = publisher(tmp_path, Disk()).publish(release())
    store = tmp_path / "test"
    assert (done.folder, done.is_new, done.is_current) == (store / "1", True, True)
    version = open_version(store, current_name(store))
    (entry,) = version.card.plans
    assert (version.folder / entry.file).read_bytes() == b"plan"
    assert (version.folder / version.card.graphs["fp16"].file).read_bytes() == b"half"
    assert version.card.golden_file is not None
    assert (version.folder / version.card.golden_file.file).read_bytes() == b"golden"
    assert json.loads((version.folder / "report.html").read_text()) == ["nvidia-h200"]
    assert hidden(store) == []


def test_a_second_gpu_type_joins_the_version_and_leaves_the_first_alone(tmp_path: Path) -> None:
    publisher(tmp_path).publish(release(plan(b"for h200")))
    publisher(tmp_path, Disk()).publish(release(plan(b"for l4", gpu="NVIDIA L4"), report_name="nvidia-l4"))
    folder = tmp_path / "test" / "1"
    assert {entry.gpu for entry in load_card(folder / "card.json").plans} == {"NVIDIA H200", "NVIDIA L4"}
    assert verify_version(folder) == ()
    assert json.loads((folder / "report.html").read_text()) == ["nvidia-l4", "nvidia-h200"]
    assert sorted(path.name for path in (folder / "reports").iterdir()) == ["nvidia-h200.json", "nvidia-l4.json"]


def test_a_rebuilt_type_replaces_its_plan_only_and_the_old_file_goes_with_the_next_publisher(tmp_path: Path) -> None:
    publisher(tmp_path).publish(release(plan(b"old"), plan(b"for l4", gpu="NVIDIA L4")))
    folder = tmp_path / "test" / "1"
    plans = folder / "plans"
    publisher(tmp_path).publish(release(plan(b"new")))
    card = load_card(folder / "card.json")
    assert [(entry.gpu, (folder / entry.file).read_bytes()) for entry in card.plans] == [
        ("NVIDIA H200", b"new"),
        ("NVIDIA L4", b"for l4"),
    ]
    assert len(list(plans.iterdir())) == 3  # a reader with the old card still finds the old plan
    publisher(tmp_path).publish(release(plan(b"newer")))
    assert sorted(path.read_bytes() for path in plans.iterdir()) == [b"for l4", b"new", b"newer"]


def test_the_same_again_changes_nothing_that_readers_see(tmp_path: Path) -> None:
    publisher(tmp_path).publish(release())
    before = state(tmp_path / "test")
    publisher(tmp_path).publish(release())
    assert state(tmp_path / "test") == before


def test_a_version_that_was_there_does_not_become_current_again(tmp_path: Path) -> None:
    publisher(tmp_path).publish(release(version="1"))
    publisher(tmp_path).publish(release(version="2"))
    done = publisher(tmp_path).publish(release(plan(b"for l4", gpu="NVIDIA L4"), version="1"))
    assert not done.is_current
    assert current_name(tmp_path / "test") == "2"


def test_current_stays_if_that_is_wanted(tmp_path: Path) -> None:
    publisher(tmp_path).publish(release(version="1"))
    assert not publisher(tmp_path).publish(release(version="2"), make_current=False).is_current
    assert current_name(tmp_path / "test") == "1"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (release(model=b"other"), "is there with another model: .* publish under another --version"),
        (release(graphs={"fp16": b"otherwise"}), "is there with another fp16 graph"),
        (release(version="../1"), r"version '\.\./1' can't be a folder's name"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_nothing_changes(
    tmp_path: Path, second: Release, message: str
) -> None:
    publisher(tmp_path).publish(release())
    before = state(tmp_path / "test")
    with pytest.raises(PublishError, match=message):
        publisher(tmp_path).publish(second)
    assert state(tmp_path / "test") == before
    assert hidden(tmp_path / "test") == []


def test_a_damaged_version_gets_no_plans(tmp_path: Path) -> None:
    publisher(tmp_path).publish(release())
    (tmp_path / "test" / "1" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(PublishError, match="version 1 is there and can't be used"):
        publisher(tmp_path).publish(release())


def test_a_signed_version_stays_signed(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    publisher(tmp_path, key=key).publish(release())
    with pytest.raises(PublishError, match="publish with --sign-key"):
        publisher(tmp_path).publish(release(plan(b"new")))
    publisher(tmp_path, key=key).publish(release(plan(b"new")))
    card = load_signed_card(tmp_path / "test" / "1" / "card.json", [key.public_key()])
    assert card.plans[0].sha256 == sha256(b"new")


def crash_points(tmp_path: Path, before: list[Release], last: Release) -> int:
    """How many steps publishing `last` after `before` has."""
    for each in before:
        publisher(tmp_path / "count").publish(each)
    disk = FailingDisk()
    publisher(tmp_path / "count", disk).publish(last)
    return disk.steps


@pytest.mark.parametrize("kind", ["first", "next", "type", "rebuilt"])
def test_a_crash_at_any_step_leaves_the_old_state_or_the_new_and_the_next_publisher_cleans_up(
    tmp_path: Path, kind: str
) -> None:
    before = {
        "first": [],
        "next": [release(version="1")],
        "type": [release(version="1")],
        "rebuilt": [release(version="1"), release(plan(b"again"), version="1")],
    }[kind]
    last = {
        "first": release(version="1"),
        "next": release(version="2", model=b"better"),
        "type": release(plan(b"int8", gpu="NVIDIA L4", graph=b"8", precision="int8"), graphs={"int8": b"8"}),
        "rebuilt": release(plan(b"and again"), version="1"),
    }[kind]
    steps = crash_points(tmp_path, before, last)
    assert steps > 10
    seen = []
    for at in range(steps):
        models = tmp_path / "crash"
        shutil.rmtree(models, ignore_errors=True)
        for each in before:
            publisher(models).publish(each)
        old = state(models / "test")
        with pytest.raises(CrashError):
            publisher(models, FailingDisk(at)).publish(last)
        found = state(models / "test")
        publisher(models).publish(last)
        new = state(models / "test")
        assert hidden(models / "test") == []
        assert found in (old, new, (old[0], new[1]))  # the version may be there before `CURRENT` names it
        seen.append(found)
    assert old in seen


def test_a_process_that_dies_gives_the_lock_back(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from tests.helpers.releases import *; from engine_build.publish import Publisher\n"
        "class Dying(Disk):\n    def rename(self, old, new): os._exit(7)\n"
        f"Publisher(Path({str(tmp_path)!r}), render=render, disk=Dying()).publish(release())\n"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 7
    assert hidden(tmp_path / "test")
    publisher(tmp_path, lock_wait_s=0.0).publish(release())
    assert hidden(tmp_path / "test") == []


def test_one_publisher_at_a_time(tmp_path: Path) -> None:
    store = tmp_path / "test"
    store.mkdir()
    with publisher_lock(store, wait_s=0.0), pytest.raises(PublishError, match="another publisher has held it"):
        publisher(tmp_path, lock_wait_s=0.0).publish(release())


def test_a_publisher_waits_for_the_other(tmp_path: Path) -> None:
    waited: list[float] = []
    with publisher_lock(tmp_path, wait_s=0.0) as _, pytest.raises(PublishError):  # noqa: SIM117 - the order is the test
        with publisher_lock(tmp_path, wait_s=1.0, clock_s=lambda: sum(waited), sleep=waited.append):
            pass
    assert sum(waited) >= 1.0


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "test").write_text("a file")
    with pytest.raises(PublishError, match="can't be written"):
        publisher(tmp_path).publish(release())


def test_merging_keeps_other_types_and_precisions() -> None:
    one, two, three = (plan(b"1")[0], plan(b"2", gpu="NVIDIA L4")[0], plan(b"3", precision="int8")[0])
    again = plan(b"4")[0]
    assert merged((one, two, three), (again,)) == (again, two, three)

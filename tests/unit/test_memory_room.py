from __future__ import annotations

from pathlib import Path

import pytest

from schemas.engine_card import EngineCard
from tests.helpers.cards import card_content, plan_content
from worker.memory_room import (
    HOST_FACTOR,
    NoRoomError,
    host_free_bytes,
    needed_bytes,
    plan_device_bytes,
    require_room,
    stated_device_bytes,
)

MIB = 1 << 20
GROUP = "sys/fs/cgroup"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 2048 KiB available and no control group."""
    write(tmp_path, "proc/meminfo", "MemTotal:  9000 kB\nMemFree:  1000 kB\nMemAvailable:  2048 kB\nBuffers: 1 kB\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def grouped(root: Path, *, limit: str, used: str, stat: str | None = None) -> None:
    write(root, f"{GROUP}/memory.max", f"{limit}\n")
    write(root, f"{GROUP}/memory.current", f"{used}\n")
    if stat is not None:
        write(root, f"{GROUP}/memory.stat", stat)


# -- what is free -----------------------------------------------------------------------------------------------------


def test_without_a_control_group_it_is_what_the_machine_has_available(root: Path) -> None:
    assert host_free_bytes(root) == 2048 * 1024


def test_the_group_counts_where_it_leaves_less(root: Path) -> None:
    grouped(root, limit="1000000", used="400000")
    assert host_free_bytes(root) == 600_000


def test_the_machine_counts_where_it_leaves_less(root: Path) -> None:
    grouped(root, limit="9000000000", used="0")
    assert host_free_bytes(root) == 2048 * 1024


def test_what_the_kernel_can_drop_counts_as_free(root: Path) -> None:
    grouped(root, limit="1000000", used="900000", stat="anon 700000\ninactive_file 150000\nactive_file 50000\n")
    assert host_free_bytes(root) == 250_000


def test_a_group_over_its_limit_leaves_nothing(root: Path) -> None:
    grouped(root, limit="1000", used="2000")
    assert host_free_bytes(root) == 0


@pytest.mark.parametrize(("limit", "used"), [("max", "5"), ("5", "what"), ("", "")])
def test_a_group_without_a_limit_is_none(root: Path, limit: str, used: str) -> None:
    grouped(root, limit=limit, used=used)
    assert host_free_bytes(root) == 2048 * 1024


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert host_free_bytes(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemFree:  1000 kB\n")
    assert host_free_bytes(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemAvailable: ää kB\n")
    assert host_free_bytes(tmp_path) is None


def test_this_machine_says_something_plausible() -> None:
    free = host_free_bytes()
    assert free is None or 0 <= free < 1 << 50


# -- what is needed ---------------------------------------------------------------------------------------------------


def test_an_engine_needs_its_file_some_times_and_its_slots_both_ways() -> None:
    card = EngineCard.model_validate(card_content())
    per_row = 3 + 1 + 2 * 2  # an array of 3, a scalar; two days of two quantiles
    assert needed_bytes(1000, card, slots=2, max_rows=8) == HOST_FACTOR * 1000 + 2 * 8 * per_row * 4
    assert needed_bytes(1000, card, slots=0, max_rows=8) == HOST_FACTOR * 1000


def test_of_the_plans_the_largest_with_what_it_states_counts_for_the_device() -> None:
    plans = [
        plan_content(sha256=letter * 64, file=f"plans/{letter}.plan", size_bytes=size, device_memory_bytes=stated)
        for letter, size, stated in (("a", 1000, 5000), ("b", 4000, None))
    ]
    card = EngineCard.model_validate(card_content(plans=plans))
    assert [plan_device_bytes(plan) for plan in card.plans] == [6000, 4000]
    assert stated_device_bytes(card) == 6000
    assert stated_device_bytes(EngineCard.model_validate(card_content())) == 0


# -- is there room ----------------------------------------------------------------------------------------------------


def test_what_must_stay_free_may_just_stay_free() -> None:
    require_room("host", 30, 100, 70)
    with pytest.raises(NoRoomError):
        require_room("host", 31, 100, 70)


def test_unknown_free_memory_is_enough() -> None:
    require_room("host", 1 << 60, None, 1 << 60)


def test_the_refusal_has_the_figures_and_the_remedy() -> None:
    with pytest.raises(NoRoomError) as raised:
        require_room("device", 3 * 1024 * MIB, 100 * MIB, 256 * MIB)
    assert str(raised.value) == (
        "device memory: needs 3,072 MiB, free are 100 MiB, and 256 MiB must stay free; take other work off this GPU, "
        "lower models.headroom_bytes, or build the plan for a smaller profile"
    )

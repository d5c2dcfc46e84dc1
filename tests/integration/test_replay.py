"""`forecast-worker replay` on a real broker: everything once, also when it is killed, and nothing of the live side touched."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from bench.dirty_log import TOPIC_CONFIG, fill, read, truncate, wait_for_holes
from demo.events import Event
from demo.kafka import EmbeddedKafka
from schemas.engine_card import load_card
from tests.conftest import TopicFactory
from tests.helpers.asking import ask
from tests.helpers.child import Child
from tests.helpers.commands import call_command
from tests.helpers.processes import process_exists
from tests.helpers.replays import Replay, lines
from tests.helpers.topics import produce, read_all
from tests.helpers.waiting import wait_until
from tests.helpers.workers import MODEL, Job, decoded, event, key
from worker.replay_target import shape_of

SPAN = ("--from", "earliest", "--to", "latest")


@pytest.fixture
def dirty(job: Job, topics: TopicFactory) -> Job:
    """A job whose input has committed and aborted transactions, compaction holes, and truncated and empty partitions."""
    job.source = topics("dirty", config=dict(TOPIC_CONFIG))

    def events() -> Iterator[Event]:
        for day in range(3):
            for number in range(4000):
                yield Event(key=key(number), value=event(number, as_of=19_900 + day))

    fill(job.bootstrap, job.source, events())
    wait_for_holes(job.bootstrap, job.source, before=12_000)
    ends = {p: max(r.offset for r in read(job.bootstrap, job.source) if r.partition == p) for p in range(4)}
    truncate(job.bootstrap, job.source, {0: ends[0] // 2, 1: -1})
    return job


def test_the_same_records_as_an_independent_reader_over_markers_holes_and_deleted_segments(dirty: Job) -> None:
    replay = Replay(dirty, "all", *SPAN)
    summary = replay.finish()
    expected = read(dirty.bootstrap, dirty.source)
    assert 0 < len(expected) < 12_000
    assert {r.partition for r in expected} == {0, 2, 3}
    assert summary["totals"]["forecasts"] == summary["totals"]["records"] == len(expected)
    assert replay.outcomes() == {(r.partition, r.offset): 1 for r in expected}
    wanted = sorted((r.partition, r.key) for r in expected)
    assert sorted((m.partition, m.key) for m, _ in replay.published()) == wanted


def test_killed_again_and_again_it_goes_on_with_one_outcome_each(job: Job) -> None:
    job.send(range(4000))
    replay = Replay(job, "killed", *SPAN, replay={"commit_interval_s": 0.1}, batching={"max_rows": 64})
    chance = random.Random(7)
    for more in (None, chance.randint(1, 60), None, chance.randint(1, 60), chance.randint(1, 60)):
        enough = 0 if more is None else replay.reached() + more

        def far_enough(enough: int = enough) -> bool:  # 0: it is killed before it has done anything
            return replay.reached() >= enough if enough else "replay " in process.log

        with replay.process("--rate", "200") as process:
            process.wait_until(far_enough, f"offsets up to {enough} committed")
    summary = replay.finish()
    assert summary["resumed"]
    assert 0 < summary["run"]["records"] < 4000
    assert summary["totals"]["records"] == summary["totals"]["forecasts"] == 4000
    assert replay.outcomes() == {(r.partition, r.offset): 1 for r in job.inputs()}


def test_several_processes_share_the_partitions_and_go_on_after_one_or_all_were_killed(job: Job) -> None:
    job.send(range(6000))
    replay = Replay(job, "team", *SPAN, "--workers", "3", replay={"commit_interval_s": 0.1})
    with replay.process("--rate", "500") as process:
        parts = _children(process, 3)
        process.wait_until(lambda: bool(replay.outcomes()), "the first forecasts were committed")
    wait_until(lambda: not any(map(process_exists, parts)), "orphans end by themselves")
    so_far = len(replay.outcomes())
    with replay.process("--rate", "500") as process:
        parts = _children(process, 3)
        process.wait_until(lambda: len(replay.outcomes()) > so_far, "it goes on")
        os.kill(parts[1], signal.SIGKILL)
        assert process.wait() == 6, process
        assert "run the same command to go on" in process.output
    ended = json.loads(replay.summary.read_text(encoding="utf-8"))
    assert [(worker["part"], worker["exit_code"]) for worker in ended["workers"] if not worker["done"]] == [(1, -9)]
    summary = replay.finish()
    assert [worker["exit_code"] for worker in summary["workers"]] == [0, 0, 0]
    assert summary["totals"]["forecasts"] == 6000
    assert replay.outcomes() == {(r.partition, r.offset): 1 for r in job.inputs()}


def test_a_signal_lets_it_finish_what_is_under_way(job: Job) -> None:
    job.send(range(4000))
    replay = Replay(job, "stopped", *SPAN, "--workers", "2", replay={"commit_interval_s": 0.1})
    with replay.process("--rate", "500") as process:
        _children(process, 2)
        process.wait_until(lambda: bool(replay.outcomes()), "the first forecasts were committed")
        process.send(signal.SIGTERM)
        assert process.wait() == 6, process
    ended = json.loads(replay.summary.read_text(encoding="utf-8"))
    assert [worker["exit_code"] for worker in ended["workers"]] == [0, 0]
    assert 0 < ended["totals"]["forecasts"] == len(replay.outcomes()) < 4000
    assert replay.finish()["totals"]["forecasts"] == 4000


def _children(process: Child, count: int) -> list[int]:
    """The processes that a replay has started, in the order of their numbers."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    process.wait_until(lambda: len(path.read_text().split()) == count, "the replay started its processes")
    return sorted(map(int, path.read_text().split()))


def test_a_second_one_of_the_same_name_fences_the_first(job: Job) -> None:
    job.send(range(4000))
    replay = Replay(job, "twice", *SPAN, replay={"commit_interval_s": 0.1})
    with replay.process("--rate", "50") as first:
        first.wait_until(lambda: bool(replay.outcomes()), "the first one committed forecasts")
        assert replay.finish()["totals"]["forecasts"] == 4000
        assert first.wait() == 4, first
    assert replay.outcomes() == {(r.partition, r.offset): 1 for r in job.inputs()}


def test_only_the_chosen_keys_and_partitions_and_offsets(job: Job, tmp_path: Path) -> None:
    job.send(range(400))
    chosen = {key(number) for number in range(0, 400, 3)}
    keys = lines(tmp_path / "keys", [each.decode() for each in chosen])
    replay = Replay(
        job, "some", "--from", "offset:10", "--to", "offset:90", "--partitions", "0,2-3", "--keys", str(keys)
    )
    summary = replay.finish()
    expected = [r for r in job.inputs() if r.partition != 1 and 10 <= r.offset < 90 and r.key in chosen]
    assert replay.outcomes() == {(r.partition, r.offset): 1 for r in expected}
    assert summary["totals"]["records"] == 240
    assert summary["totals"]["not_selected"] == 240 - len(expected)


def test_times_choose_by_the_events_own(job: Job) -> None:
    job.send(range(1000))  # 1,700,000,000,000 ms and one more for each
    start, end = "2023-11-14T22:13:20.200Z", "2023-11-14T23:13:20.700+01:00"
    replay = Replay(job, "hour", "--from", start, "--to", end)
    replay.finish()
    assert {(r.partition, r.offset) for r in job.inputs() if 200 <= r.timestamp_ms - 1_700_000_000_000 < 700} == set(
        replay.outcomes()
    )


def test_the_same_event_gives_the_same_forecast(job: Job, topics: TopicFactory) -> None:
    job.source, job.forecasts, job.dead_letters, job.partitions = topics("f", 1), topics("o", 1), topics("d", 1), 1
    same_cut: dict[str, object] = {"max_rows": 256, "linger_s": 1.0, "max_wait_s": 4.0}
    job.send(range(1024))
    with job.worker("live", batching=same_cut, delivery={"commit_interval_s": 3.0}) as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    live = {m["source_offset"]: np.float32(m["quantiles"]) for _, m in job.published()}
    assert len(live) == 1024
    equal = Replay(job, "equal", *SPAN, batching=same_cut, replay={"commit_interval_s": 4.0})
    equal.finish()
    for _, m in equal.published():
        assert np.array_equal(np.float32(m["quantiles"]), live[m["source_offset"]])
    other = Replay(job, "other", *SPAN, batching={"max_rows": 100})
    other.finish()
    golden = load_card(MODEL / "card.json").golden
    for _, m in other.published():
        np.testing.assert_allclose(
            np.float32(m["quantiles"]),
            live[m["source_offset"]],
            rtol=golden.relative_tolerance,
            atol=golden.absolute_tolerance,
        )


def test_the_target_is_made_like_the_live_topic(job: Job, topics: TopicFactory, kafka: EmbeddedKafka) -> None:
    job.forecasts = topics("forecasts", 4, {"cleanup.policy": "compact", "max.message.bytes": "2000000"})
    job.send(range(10))
    replay = Replay(job, "like", *SPAN)
    replay.finish()
    assert shape_of(kafka._admin(), replay.forecasts) == shape_of(kafka._admin(), job.forecasts)


def test_the_live_group_is_never_touched_and_comes_first(job: Job) -> None:
    job.send(range(3000))
    with job.worker("live") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    committed = job.committed()
    job.send(range(3000, 9000))
    replay = Replay(job, "behind", *SPAN, replay={"pause_above_lag_records": 1000, "lag_check_s": 0.2})
    with replay.process() as process:
        process.wait_until(lambda: "replay pauses: live work comes first" in process.log, "it pauses")
        assert replay.outcomes() == {}
        assert job.committed() == committed
        assert "replay goes on" not in process.log
        with job.worker("live"):
            assert process.wait() == 0, process
    assert set(replay.outcomes().values()) == {1}
    assert len(replay.outcomes()) == 9000


# -- to the live topic -------------------------------------------------------------------------------------------------


def _live(job: Job) -> dict[bytes, tuple[int, int]]:
    """Key -> as_of and source offset of the newest live record; withdrawn keys aren't in it."""
    newest: dict[bytes, tuple[int, int]] = {}
    for m in read_all(job.bootstrap, job.forecasts):
        assert m.key is not None
        if m.value is None:
            newest.pop(m.key, None)
        else:
            content = decoded("sku_forecast", m.value)
            newest[m.key] = ((content["as_of"] - date(1970, 1, 1)).days, content["source_offset"])
    return newest


def test_to_live_changes_no_forecast_that_is_as_fresh(job: Job) -> None:
    """Keys 0..499 have fresher live forecasts, 500..599 equally fresh ones, 600..649 were withdrawn; the rest is missing."""
    base = 1_700_000_000_000
    fresh = [(key(n), event(n, as_of=19_950 if n < 500 else 19_900), base, n % 4) for n in range(650)]
    withdrawn = [(key(n), None, base + 1, n % 4) for n in range(600, 650)]
    produce(job.bootstrap, job.source, [*fresh, *withdrawn])
    with job.worker("live") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    before = _live(job)
    assert len(before) == 600
    first = {r.partition: r.offset for r in reversed(job.inputs())}
    assert set(first.values()) == {0}
    start = max(r.offset for r in job.inputs()) + 1
    produce(job.bootstrap, job.source, [(key(n), event(n), base - 1000, n % 4) for n in range(1000)])
    replay = Replay(job, "back", *SPAN, "--to-live")
    totals = replay.finish()["totals"]
    after = _live(job)
    assert {k: v for k, v in after.items() if k in before} == before
    assert set(after) == {key(n) for n in range(1000) if not 600 <= n < 650}
    assert all(after[key(n)][0] == 19_900 for n in range(650, 1000))
    assert totals["forecasts"] == 350
    assert totals["left_alone"] == totals["records"] - 350 == 650 + 50 + 650
    assert start > 0


def test_live_forecasts_that_come_while_it_runs_are_not_buried(job: Job) -> None:
    job.send(range(3000))
    job.extra = {"input": {"offset_reset": "latest"}}
    replay = Replay(
        job, "race", *SPAN, "--to-live", replay={"commit_interval_s": 0.3, "pause_above_lag_records": "off"}
    )
    with job.worker("live", delivery={"commit_interval_s": 0.5}) as worker:
        worker.wait_ready()
        with replay.process("--rate", "1000") as process:
            process.wait_until(lambda: "live forecasts read" in process.log, "it begins")
            for first in range(0, 3000, 100):  # from the end and as fast as the replay, so that both meet in the middle
                process.wait_until(lambda: replay.reached() >= first, f"{first} offsets replayed")  # noqa: B023
                fresh = range(2900 - first, 3000 - first)
                base = 1_700_000_100_000
                produce(job.bootstrap, job.source, [(key(n), event(n, as_of=19_950), base, n % 4) for n in fresh])
            assert process.wait() == 0, process
        job.wait_done({p: r.offset + 1 for r in job.inputs() for p in [r.partition]})
        assert worker.stop() == 0, worker.log
    live = _live(job)
    assert len(live) == 3000
    assert {as_of for as_of, _ in live.values()} == {19_950}


# -- refused, before anything is written -------------------------------------------------------------------------------


def topic_names(kafka: EmbeddedKafka) -> set[str]:
    admin = kafka._admin()
    return set(ask(lambda: admin.list_topics(timeout=10.0).topics, "the topics"))


def refused(replay: Replay, *more: str) -> str:
    """The message of a replay that must be refused; nothing may have been written."""
    done = call_command(*replay.arguments(*more))
    assert done.code == 2, done
    assert done.output == ""
    assert "Traceback" not in done.message
    assert done.message.startswith("forecast-worker: ")
    return done.message


def test_what_is_refused_leaves_nothing_behind(job: Job, tmp_path: Path, kafka: EmbeddedKafka) -> None:
    job.send(range(400))
    truncate(job.bootstrap, job.source, {0: 50})
    there = topic_names(kafka)
    odd = Replay(job, "odd")
    assert "the oldest record left is at offset 50" in refused(odd, "--from", "offset:3", "--to", "latest")
    message = refused(odd, "--from", "2023-11-14T22:00:00Z", "--to", "latest")
    assert "partition 0: --from 2023-11-14T22:00:00Z: the oldest record left, offset 50, is of" in message
    assert "--allow-gaps" in message
    assert "isn't before the end" in refused(odd, "--from", "offset:9", "--to", "offset:8")
    assert "isn't before the end" in refused(odd, "--from", "2023-11-15T00:00:00Z", "--to", "2023-11-14T00:00:00Z")
    assert "behind the end, expected at most 100" in refused(odd, "--from", "offset:60", "--to", "offset:500")
    assert "expected a time with its zone" in refused(odd, "--from", "2023-11-14T22:00:00", "--to", "latest")
    assert "has 0 to 3" in refused(odd, *SPAN, "--partitions", "3-4")
    assert "one for each partition" in refused(odd, *SPAN, "--workers", "5")
    assert "--model: got 'v9'" in refused(odd, *SPAN, "--model", "v9")
    assert "aren't keys" in refused(odd, *SPAN, "--keys", str(lines(tmp_path / "k", ["sku1|store", "sku1"])))
    assert "got no key" in refused(odd, *SPAN, "--keys", str(lines(tmp_path / "k", [])))
    assert "can't be written" in refused(odd, *SPAN, "--json", str(tmp_path / "nowhere" / "x.json"))
    assert topic_names(kafka) == there


def test_a_name_with_other_arguments_and_a_target_of_another_schema(job: Job, kafka: EmbeddedKafka) -> None:
    job.send(range(40))
    replay = Replay(job, "named", *SPAN)
    replay.finish()
    message = refused(replay, "--to", "offset:5")
    assert "--name named was used with other arguments:\n  - --to: was latest, now offset:5" in message
    assert "--partitions: was not given, now 2" in refused(replay, "--partitions", "2")
    part = Replay(job, "part", *SPAN, "--to-live", "--partitions", "0")
    part.finish()
    assert "--partitions: was 0, now 1,2,3" in refused(part, "--partitions", "1-3")
    other = Replay(job, "foreign", *SPAN)
    kafka.create_topic(other.forecasts)
    produce(job.bootstrap, other.forecasts, [(b"k", b"something else", 0, 0)])
    assert "holds records of another schema" in refused(other)
    forgotten = Replay(job, "forgotten", *SPAN)
    kafka.create_topic(forgotten.forecasts)
    value = replay.published()[0][0].value
    produce(job.bootstrap, forgotten.forecasts, [(b"k", value, 0, 0)])
    assert "no progress is kept for this --name" in refused(forgotten)

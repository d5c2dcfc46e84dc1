"""Replay at its full size: a log with everything in it, killed ten times, beside live work, and onto the live topic.

Every figure is asserted: the benchmark fails if a record is lost, comes twice, or a fresher forecast is buried.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from bench.dirty_log import TOPIC_CONFIG, Place, fill, read, truncate, wait_for_holes
from bench.job import MODEL, ROOT, ContenderError, Job, run_contender
from bench.latency import Player
from bench.machine import load_average, machine
from bench.replay_run import Replays, outcomes
from bench.spread import percentiles, spread
from bench.workload import events as bakery_events
from bench.workload import write_schema
from demo import freshretailnet
from demo.events import EventWriter, writer_schema
from demo.kafka import EmbeddedKafka
from demo.worker_process import WorkerProcess

RESULT = ROOT / "bench" / "results" / "replay.json"
HEAP = "1g"
JVM_OPTIONS = ("-XX:+UseSerialGC",)
PARTITIONS = 8
EVENTS = 200_000
COMPACTED_SERIES, COMPACTED_DAYS = 15_000, 4
"""Sent first, and thinned out by compaction."""
TRUNCATED_RECORDS = 3000
"""Deleted at the front of two partitions."""
BROKER = {"log.cleaner.backoff.ms": "500"}
START_UP_S = 6.0
KILLS = 10
KILL_RATE_PER_S = 6000
ROUNDS = 6
LIVE_RATE_PER_S = 500
REPLAY_RATE_PER_S = 2000
LIVE_SECONDS = 15.0
WARM_UP_S = 5.0
COMMIT_INTERVAL_S = 0.5
"""Of the live path, and of the replays that are killed. The others commit as often as a replay does by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The broker, its input topic, and where files go."""

    servers: str
    topic: str
    writer_schemas: tuple[str, ...]
    directory: Path

    def settings(self, live: str) -> dict[str, dict[str, object]]:
        """A worker's settings, whose group and output topics are called after `live`."""
        return {
            "kafka": {"bootstrap.servers": self.servers},
            "input": {"topic": self.topic, "group_id": live},
            "output": {"topic": f"forecasts-{live}", "dead_letter_topic": f"letters-{live}"},
            "wire": {"writer_schemas": list(self.writer_schemas)},
            "engine": {"model": str(MODEL)},
            "guard": {
                "without_backup": "publish"
            },  # the light model knows the bakeries' events, not all that are played
            "batching": {"coalesce": False},
            "delivery": {"transactional_id": live, "commit_interval_s": COMMIT_INTERVAL_S},
            "log": {"level": "warning", "format": "text"},
        }

    def replays(self, live: str, folder: str = "", **replay: object) -> Replays:
        """Runs replays of what `live` reads. `folder`: for its files, below ours; `replay`: settings of that section."""
        place = self.directory / (folder or live)
        place.mkdir()
        return Replays(self.settings(live) | {"replay": replay}, place)

    def committed(self, group: str) -> Mapping[int, int]:
        """The group's offsets."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": group})
        places = consumer.committed([TopicPartition(self.topic, p) for p in range(PARTITIONS)], timeout=30.0)
        consumer.close()
        return {place.partition: int(place.offset or 0) for place in places}


def make_log(kafka: EmbeddedKafka, topic: str) -> tuple[Sequence[Place], Mapping[str, object]]:
    """Compacted in front, plain behind, truncated in two partitions: what a plain reader finds, and how it was made."""
    servers, series = kafka.bootstrap_servers, freshretailnet.load()
    few, days = series.select(np.arange(COMPACTED_SERIES)), series.as_of_dates(40)
    kafka.create_topic(topic, PARTITIONS, TOPIC_CONFIG)
    fill(servers, topic, chain.from_iterable(EventWriter(few).events_of(day) for day in days[:COMPACTED_DAYS]))
    compacted = COMPACTED_SERIES * COMPACTED_DAYS
    left = wait_for_holes(servers, topic, compacted)
    stop_compaction(servers, topic)
    plain = chain.from_iterable(EventWriter(series).events_of(day) for day in days[COMPACTED_DAYS:])
    fill(servers, topic, islice(plain, EVENTS))
    sent = read(servers, topic)
    truncated = {p: [place.offset for place in sent if place.partition == p][TRUNCATED_RECORDS] for p in (2, 5)}
    truncate(servers, topic, truncated)
    found = read(servers, topic)
    ends = {p: max(place.offset for place in found if place.partition == p) for p in range(PARTITIONS)}
    made = {
        "data": series.name,
        "sent": compacted + EVENTS,
        "left_by_compaction": left,
        "removed_by_truncation": len(sent) - len(found),
        "records": len(found),
        "offsets": sum(ends.values()),
        "truncated_before": {str(partition): offset for partition, offset in truncated.items()},
    }
    return found, made


def stop_compaction(servers: str, topic: str) -> None:
    """From here on the topic keeps everything: the holes stay where they are."""
    resource = ConfigResource(
        ConfigResource.Type.TOPIC,
        topic,
        incremental_configs=[
            ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET),
        ],
    )
    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30.0)


def check_once(expected: Sequence[Place], found: Counter[tuple[int, int]], what: str) -> None:
    """Raise `ContenderError` unless each record has exactly one outcome, and nothing else has one."""
    wanted = Counter((place.partition, place.offset) for place in expected)
    if found != wanted:
        lost, more = wanted - found, found - wanted
        raise ContenderError(f"{what}: {len(lost)} lost, {len(more)} too many, e.g. {[*lost, *more][:3]}")


def check_keys(expected: Sequence[Place], servers: str, topic: str, what: str) -> None:
    """Raise `ContenderError` unless the topic holds the same keys, in the same partitions, as often."""
    wanted = Counter((place.partition, place.key) for place in expected)
    if Counter((place.partition, place.key) for place in read(servers, topic)) != wanted:
        raise ContenderError(f"{what}: keys or counts of {topic} aren't those that the independent reader found")


def measure_once(setting: Setting, expected: Sequence[Place]) -> Mapping[str, object]:
    """One replay of everything by two processes, and another one that is killed again and again."""
    replays = setting.replays("once", commit_interval_s=COMMIT_INTERVAL_S)
    whole = replays.finish("whole", "--workers", "2")
    target = "forecasts-once.replay.whole"
    check_once(expected, outcomes(setting.servers, target, "letters-once.replay.whole"), "whole")
    check_keys(expected, setting.servers, target, "whole")
    after_s = replays.kill("killed", KILLS, KILL_RATE_PER_S, random.Random(20261123))
    rest = replays.finish("killed")
    target = "forecasts-once.replay.killed"
    check_once(expected, outcomes(setting.servers, target, "letters-once.replay.killed"), "killed")
    check_keys(expected, setting.servers, target, "killed")
    return {
        "whole": {"workers": 2, **whole["totals"]},
        "killed": {"kills_after_s": after_s, "left_for_the_last_run": rest["run"]["records"], **rest["totals"]},
    }


def measure_rate(kafka: EmbeddedKafka, setting: Setting, records: int, rounds: int) -> Mapping[str, object]:
    """Live path and replay over the same topic, in turns, `rounds` times. The first round warms and isn't counted.

    The replay runs twice a round: committing as often as a replay does by default, and as often as the live path.
    """
    loads: list[float] = []
    rates: dict[str, list[float]] = {"live": [], "replay": [], "equal": []}
    for number in range(rounds + 1):
        loads.append(load_average())
        name = f"rate{number}"
        for topic in (f"forecasts-{name}", f"letters-{name}"):
            kafka.create_topic(topic, PARTITIONS)
        order = [*rates]
        first = number % len(
            order
        )  # who comes later finds the log in the page cache, so everybody is first now and then
        for kind in order[first:] + order[:first]:
            if kind == "live":
                job = _live_job(setting, name, records)
                outcome = run_contender("bench.worker_run", job)
                rates[kind].append(outcome.events / outcome.seconds)
                committed = setting.committed(name)
            else:
                every = {} if kind == "replay" else {"commit_interval_s": COMMIT_INTERVAL_S}
                replays = setting.replays(name, folder=f"{name}-{kind}", **every)
                rates[kind].append(float(replays.finish(kind)["run"]["records_per_s"]))
        if first == 0 and setting.committed(name) != committed:
            raise ContenderError(f"the live group's offsets changed: {committed} -> {setting.committed(name)}")
    counted = {kind: values[1:] for kind, values in rates.items()}
    ratios = {
        kind: [replay / live for replay, live in zip(counted[kind], counted["live"], strict=True)]
        for kind in ("replay", "equal")
    }
    return {
        "load": loads,
        "live_rows_per_s": spread(counted["live"]),
        "replay_rows_per_s": spread(counted["replay"]),
        "equal_rows_per_s": spread(counted["equal"]),
        "replay_to_live": spread(ratios["replay"]),
        "equal_to_live": spread(ratios["equal"]),
        "live_offsets": "unchanged",
    }


def _live_job(setting: Setting, name: str, records: int) -> Job:
    return Job(
        bootstrap_servers=setting.servers,
        input_topic=setting.topic,
        output_topic=f"forecasts-{name}",
        dead_letter_topic=f"letters-{name}",
        group=name,
        writer_schema=",".join(setting.writer_schemas),
        events=records,
        engine="light",
        commit_interval_s=COMMIT_INTERVAL_S,
    )


def measure_to_live(setting: Setting) -> Mapping[str, object]:
    """Everything once more onto the live topic of the first rate round, where each key is as fresh or fresher."""
    live = "rate0"
    topic = f"forecasts-{live}"
    before = read(setting.servers, topic)
    folder = setting.directory / "to-live"
    folder.mkdir()
    totals = Replays(setting.settings(live), folder).finish("to-live", "--to-live")["totals"]
    if read(setting.servers, topic) != before:
        raise ContenderError("--to-live changed a topic on which everything was as fresh")
    return {"live_records": len(before), **totals}


def measure_beside(kafka: EmbeddedKafka, setting: Setting, rounds: int, seconds: float) -> Mapping[str, object]:
    """Live end-to-end time with and without a replay beside it, turn by turn."""
    for topic in ("forecasts-beside", "letters-beside"):
        kafka.create_topic(topic, PARTITIONS)
    replays = setting.replays("beside")
    settings = setting.settings("beside") | {
        "input": {"topic": setting.topic, "group_id": "beside", "offset_reset": "latest"}
    }
    folder = setting.directory / "live"
    folder.mkdir()
    turns: list[Mapping[str, object]] = []
    p99_s: dict[str, list[float]] = {"alone": [], "beside": []}
    with WorkerProcess(settings, folder) as worker:
        player = Player(setting.servers, setting.topic, "forecasts-beside")
        played = bakery_events(10_000_000)
        player.play(played, LIVE_RATE_PER_S, WARM_UP_S)
        for number in range(rounds):
            for kind in ("alone", "beside") if number % 2 == 0 else ("beside", "alone"):
                process = _begun(replays, f"n{number}") if kind == "beside" else None
                load = load_average()
                latencies_s = [late_s for _, late_s in player.play(played, LIVE_RATE_PER_S, seconds)]
                if process is not None:
                    if process.poll() is not None:
                        raise ContenderError(f"the replay ended too early: {process.communicate()[1][-2000:]}")
                    process.terminate()
                    process.communicate(timeout=60)
                found = percentiles(latencies_s)
                p99_s[kind].append(found["p99"])
                turns.append({"kind": kind, "load": load, "latency_s": found})
        player.close()
        worker.stop()
    return {
        "live_rate_per_s": LIVE_RATE_PER_S,
        "replay_rate_per_s": REPLAY_RATE_PER_S,
        "seconds": seconds,
        "turns": turns,
        "p99_s": {kind: spread(values) for kind, values in p99_s.items()},
        "p99_ratio": statistics.median(p99_s["beside"]) / statistics.median(p99_s["alone"]),
    }


def _begun(replays: Replays, name: str) -> subprocess.Popen[str]:
    """A replay that has started up: loading its libraries is no part of what is measured."""
    process = replays.start(name, "--rate", str(REPLAY_RATE_PER_S))
    time.sleep(START_UP_S)
    return process


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write `RESULT`."""
    parser = argparse.ArgumentParser(prog="python -m bench replay", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of rates and latencies (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=LIVE_SECONDS, help="per latency turn (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS, config=BROKER) as kafka, TemporaryDirectory() as place:
        topic, directory = "features", Path(place)
        expected, made = make_log(kafka, topic)
        schemas = (str(write_schema(directory)), str(_retail_schema(directory)))
        setting = Setting(servers=kafka.bootstrap_servers, topic=topic, writer_schemas=schemas, directory=directory)
        for name in ("forecasts-once", "letters-once"):
            kafka.create_topic(name, PARTITIONS)
        result: dict[str, object] = {"machine": machine(HEAP, JVM_OPTIONS), "partitions": PARTITIONS, "log": made}
        result["once"] = measure_once(setting, expected)
        result["rate"] = measure_rate(kafka, setting, len(expected), given.rounds)
        result["to_live"] = measure_to_live(setting)
        result["beside"] = measure_beside(kafka, setting, given.rounds, given.seconds)
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("log", "once", "rate", "to_live")}, indent=1))
    print(f"written to {given.output}")
    return 0


def _retail_schema(directory: Path) -> Path:
    fields = ("promo", "discount", "holiday", "temperature", "in_stock")
    return write_schema(directory, writer_schema(fields), "freshretailnet_features.avsc")


if __name__ == "__main__":
    sys.exit(main())

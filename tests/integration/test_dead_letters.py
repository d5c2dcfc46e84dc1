"""Dead letters on a real broker: listed, shown, and redriven once each, wherever the redrive is killed."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer

from tests.helpers.child import Child
from tests.helpers.commands import Ended, call_command
from tests.helpers.topics import read_messages
from tests.helpers.workers import PREFIX, Job, avro, event, features, key
from worker.dead_letters import REDRIVE_ATTEMPT, REDRIVE_LETTER, REDRIVEN_FROM

BASE_MS = 1_700_000_000_000


def broken(number: int) -> bytes:
    """An event of one day's history: `wrong_length`."""
    return PREFIX + avro("sku_features", {**features(number), "sales": [1.0]})


def send(job: Job, messages: list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes]]]]) -> None:
    producer = Producer({"bootstrap.servers": job.bootstrap})
    for place, (name, value, partition, headers) in enumerate(messages):
        producer.produce(
            job.source, value=value, key=name, partition=partition, headers=list(headers), timestamp=BASE_MS + place
        )
    assert producer.flush(30.0) == 0


def tool(job: Job, *arguments: str) -> Ended:
    return call_command("dead-letters", *arguments, "--config", str(job.config("tool", log={"format": "json"})))


def asked(job: Job, *arguments: str) -> dict[str, object]:
    ended = tool(job, *arguments, "--json")
    assert (ended.code, ended.message) == (0, ""), ended
    content = json.loads(ended.output)
    assert isinstance(content, dict)
    return content


def headers_of(message: Message) -> dict[str, bytes]:
    found = message.headers()
    pairs = found.items() if isinstance(found, dict) else found or []
    return {name: bytes(value or b"") for name, value in pairs if not isinstance(value, str)}


def run_worker(job: Job, name: str = "w") -> None:
    with job.worker(name) as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log


@pytest.fixture
def rejected(job: Job) -> Job:
    """24 good events and 16 that are rejected, for two reasons, with headers."""
    messages: list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes]]]] = []
    for number in range(40):
        kind = number % 5
        value = broken(number) if kind == 0 else b"\x00no such framing" if kind == 1 else event(number)
        messages.append((key(number), value, number % 4, [("traceparent", b"00-%032d" % number)]))
    send(job, messages)
    run_worker(job)
    assert len(job.letters()) == 16
    return job


def test_list_counts_by_reason_and_shows_samples(rejected: Job) -> None:
    content = asked(rejected, "list", "--samples", "2")
    reasons = content["reasons"]
    assert isinstance(reasons, list)
    assert {each["reason"]: (each["letters"], each["redriven"]) for each in reasons} == {
        "bad_magic": (8, 0),
        "wrong_length": (8, 0),
    }
    assert all(len(each["samples"]) == 2 for each in reasons)
    assert asked(rejected, "list", "--reason", "bad_magic", "--partition", "1")["letters"] == 2
    assert asked(rejected, "list", "--to", "2020-01-01")["letters"] == 0
    assert asked(rejected, "list", "--from", "2020-01-01")["letters"] == 16
    shown = tool(rejected, "list")
    assert "wrong_length" in shown.output
    assert "field sales: got 1 values, expected 30" in shown.output


def test_show_gives_one_letter_in_full_and_saves_its_bytes(rejected: Job, tmp_path: Path) -> None:
    reasons = asked(rejected, "list", "--reason", "bad_magic")["reasons"]
    assert isinstance(reasons, list)
    place = reasons[0]["samples"][0]["letter"]
    path = tmp_path / "event.bin"
    shown = tool(rejected, "show", place, "--save", str(path))
    assert shown.code == 0
    assert path.read_bytes() == b"\x00no such framing"
    assert "reason       bad_magic" in shown.output
    assert "traceparent: 00-" in shown.output
    assert "no such framing" in shown.output  # in the dump
    decoded = asked(rejected, "list", "--reason", "wrong_length")["reasons"]
    assert isinstance(decoded, list)
    content = asked(rejected, "show", decoded[0]["samples"][0]["letter"])["content"]
    assert isinstance(content, dict)
    assert content["sales"] == [1.0]
    missing = tool(rejected, "show", "0/99999")
    assert missing.code == 2
    assert f"there is no letter {rejected.dead_letters}/0/99999" in missing.message


def test_redrive_keeps_bytes_key_headers_timestamp_and_partition(rejected: Job) -> None:
    before = read_messages(rejected.bootstrap, rejected.source)
    originals = {(m.partition(), m.offset()): m for m in before}
    refused = tool(rejected, "redrive")
    assert refused.code == 2
    assert "or say --all" in refused.message
    dry = asked(rejected, "redrive", "--reason", "bad_magic", "--dry-run")
    assert (dry["redriven"], dry["dry_run"]) == (8, True)
    assert asked(rejected, "redrive", "--reason", "bad_magic")["redriven"] == 8
    again = asked(rejected, "redrive", "--all")
    assert (again["redriven"], again["redriven_before"], again["by_reason"]) == (8, 8, {"wrong_length": 8})
    assert asked(rejected, "redrive", "--all")["redriven"] == 0
    after = [m for m in read_messages(rejected.bootstrap, rejected.source) if REDRIVEN_FROM in headers_of(m)]
    assert len(after) == 16
    for message in after:
        headers = headers_of(message)
        topic, partition, offset = headers[REDRIVEN_FROM].decode().split("/")
        original = originals[int(partition), int(offset)]
        assert topic == rejected.source
        assert (message.value(), message.key(), message.partition(), message.timestamp()) == (
            original.value(),
            original.key(),
            original.partition(),
            original.timestamp(),
        )
        assert headers["traceparent"] == headers_of(original)["traceparent"]
        assert headers[REDRIVE_ATTEMPT] == b"1"
        assert headers[REDRIVE_LETTER].decode().startswith(rejected.dead_letters)
    assert {each["redriven"] for each in asked(rejected, "list")["reasons"]} == {8}  # type: ignore[attr-defined]


def test_what_fails_again_is_a_letter_again_and_not_redriven_for_ever(rejected: Job) -> None:
    for attempt in range(1, 4):
        content = asked(rejected, "redrive", "--reason", "wrong_length")
        assert content["redriven"] == 8, attempt
        run_worker(rejected, f"again{attempt}")
    last = asked(rejected, "redrive", "--reason", "wrong_length")
    assert (last["redriven"], last["redriven_before"], last["refused"]) == (0, 24, 8)
    assert "redriven 3 times already; --force" in str(last["refused_first"])
    assert asked(rejected, "redrive", "--reason", "wrong_length", "--force")["redriven"] == 8
    rejected_again = [
        headers_of(m) for m in read_messages(rejected.bootstrap, rejected.dead_letters) if m.headers() is not None
    ]
    firsts = Counter(headers[REDRIVEN_FROM] for headers in rejected_again if REDRIVEN_FROM in headers)
    assert set(firsts.values()) == {3}  # the position of the first rejection is kept
    assert len(firsts) == 8


def test_killed_anywhere_and_run_again_each_letter_is_redriven_once(job: Job) -> None:
    send(job, [(key(number), broken(number), number % 4, []) for number in range(3000)])
    job.extra = {"breaker": {"rejected_share": 1.0}}
    run_worker(job)
    config = job.config("redrive")
    chance = random.Random(7)
    killed = 0
    for _ in range(10):
        step, hit = chance.choice(["produced", "noted", "committed"]), chance.randint(1, 3)
        command = [sys.executable, "-m", "tests.helpers.killable_redrive", str(config), step, str(hit)]
        with Child(command) as process:
            code = process.wait()
            assert code in {0, -signal.SIGKILL}, process
        killed += code == -signal.SIGKILL
    assert killed >= 3
    asked(job, "redrive", "--all")
    again = Counter(
        headers_of(m)[REDRIVEN_FROM] for m in read_messages(job.bootstrap, job.source) if REDRIVEN_FROM in headers_of(m)
    )
    assert len(again) == 3000
    assert set(again.values()) == {1}

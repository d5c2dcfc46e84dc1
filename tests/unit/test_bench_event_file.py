from __future__ import annotations

from pathlib import Path

from bench.event_file import read_events, write_events
from demo.events import Event


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    events = [Event(key=b"k%d" % n, value=bytes([n]) * n) for n in range(5)] + [Event(key=b"", value=b"x")]
    path = tmp_path / "events.npz"
    assert write_events(path, {"type": "record", "name": "É", "fields": []}, iter(events)) == 6
    schema, found = read_events(path)
    assert schema == {"type": "record", "name": "É", "fields": []}
    assert list(found) == events


def test_no_events_are_no_events(tmp_path: Path) -> None:
    write_events(tmp_path / "none", {}, [])
    assert read_events(tmp_path / "none") == ({}, [])

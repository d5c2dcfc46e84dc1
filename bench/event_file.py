"""Real events in one file, for a machine that has neither the data nor what reads them: `python -m bench events --help`.

The file holds keys and values as they go onto the topic, and the schema that they were written with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo import freshretailnet
from demo.events import Event, EventWriter, Schema

_ALL_DAYS = 10**6


def newest(count: int) -> tuple[Schema, Iterator[Event]]:
    """The schema, and `count` events of FreshRetailNet: of all series on the last day, then on the day before, and so on."""
    data = freshretailnet.load()
    writer = EventWriter(data)
    days = reversed(data.as_of_dates(_ALL_DAYS))
    return writer.schema, islice((event for day in days for event in writer.events_of(day)), count)


def write_events(path: Path, schema: Schema, events: Iterable[Event]) -> int:
    """Write them, compressed; returns how many there were."""
    found = list(events)
    keys, values = [event.key for event in found], [event.value for event in found]
    text = np.frombuffer(json.dumps(schema).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            schema=text,
            keys=_joined(keys),
            key_ends=_ends(keys),
            values=_joined(values),
            value_ends=_ends(values),
        )
    return len(found)


def read_events(path: Path) -> tuple[Schema, Sequence[Event]]:
    """What `write_events` wrote."""
    with np.load(path) as content:
        schema: Schema = json.loads(content["schema"].tobytes())
        keys = _split(content["keys"], content["key_ends"])
        values = _split(content["values"], content["value_ends"])
    return schema, [Event(key=key, value=value) for key, value in zip(keys, values, strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a file of FreshRetailNet's events."""
    parser = argparse.ArgumentParser(prog="python -m bench events", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="file to write (.npz)")
    parser.add_argument("--events", type=int, default=50_000, help="how many (default %(default)s)")
    given = parser.parse_args(arguments)
    schema, events = newest(given.events)
    count = write_events(given.out, schema, events)
    print(f"{count:,} events, {given.out.stat().st_size / 2**20:.1f} MiB: {given.out}")
    return 0 if count == given.events else 1


def _joined(parts: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(parts), np.uint8)


def _ends(parts: Sequence[bytes]) -> NDArray[np.int64]:
    return np.cumsum([len(part) for part in parts], dtype=np.int64)


def _split(joined: NDArray[np.uint8], ends: NDArray[np.int64]) -> Iterator[bytes]:
    data, start = joined.tobytes(), 0
    for end in ends.tolist():
        yield data[start:end]
        start = end

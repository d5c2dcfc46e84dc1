"""The rolling rhythm: an event for every series every hour, at a chosen speed, onto a topic of any broker.

    python -m demo.hourly --bootstrap-servers localhost:9092 --data bakery --speed 3600

The data are daily: an hour's events have the day's windows, and after 24 hours the next day comes; behind the last day it
starts over. Within an hour the series come one after the other, evenly spread, as re-forecasts of a whole assortment do.
A message's timestamp is the moment of sending, whatever the speed, so the worker's freshness figures are of real time:
at speed 3600, set `freshness.window_s` to 1 for "within the hour".
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from demo import bakery, freshretailnet
from demo.bakery import DataUnavailableError
from demo.events import Event, EventWriter
from demo.play import PlayError, Sender
from demo.series import SeriesSet

HOUR_S: Final = 3600.0
HOURS_PER_DAY: Final = 24
DAYS: Final = 60
_NAP_S: Final = 0.002
_SAY_EVERY_S: Final = 10.0

LOADERS: Final[dict[str, Callable[[], SeriesSet]]] = {"bakery": bakery.load, "freshretailnet": freshretailnet.load}


def hours(series: SeriesSet, days: int = DAYS) -> Iterator[Sequence[Event]]:
    """The events of one hour after the other, endlessly: one for each series, in their order."""
    writer = EventWriter(series)
    for as_of in itertools.cycle(series.as_of_dates(days)):
        events = list(writer.events_of(as_of))
        yield from itertools.repeat(events, HOURS_PER_DAY)


def due(count: int, passed_s: float, speed: float) -> int:
    """How many of an hour's `count` events are to have been sent `passed_s` after its start."""
    return min(count, int(count * passed_s * speed / HOUR_S) + 1)


def play_hours(
    played: Iterator[Sequence[Event]],
    sender: Sender,
    *,
    speed: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    nap: Callable[[float], None] = time.sleep,
) -> int:
    """Send hour after hour: how many events that were. An hour that takes longer than it may is finished all the same."""
    start_s = said_s = clock()
    total = 0
    for number, events in enumerate(played):
        hour_s = start_s + number * HOUR_S / speed
        sent = 0
        while sent < len(events):
            wanted = due(len(events), clock() - hour_s, speed) if clock() >= hour_s else 0
            for event in events[sent:wanted]:
                sender.send(event)
            if wanted <= sent:
                sender.serve()
                nap(_NAP_S)
            sent = max(sent, wanted)
        total += len(events)
        now_s = clock()
        if now_s - said_s >= _SAY_EVERY_S:
            late_s = max(0.0, now_s - hour_s - HOUR_S / speed)
            say(f"hour {number + 1}: {total:,} events, {total / (now_s - start_s):,.0f}/s, {late_s:.1f} s late")
            said_s = now_s
    sender.flush()
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Play until interrupted, or for `--hours`."""
    parser = argparse.ArgumentParser(prog="python -m demo.hourly", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--bootstrap-servers", required=True, help="host:port of a broker")
    parser.add_argument("--topic", default="sku-features", help="topic of the events (default %(default)s)")
    parser.add_argument("--data", choices=sorted(LOADERS), default="bakery", help="data set (default %(default)s)")
    parser.add_argument("--speed", type=float, default=3600.0, help="times real time (default %(default)s)")
    parser.add_argument("--hours", type=int, help="stop after so many hours of the data's time (default: never)")
    given = parser.parse_args(arguments)
    if not given.speed > 0:
        parser.error(f"--speed: got {given.speed:g}, expected more than 0")
    try:
        series = LOADERS[given.data]()
        print(f"{len(series):,} series an hour, an hour every {HOUR_S / given.speed:g} s; Ctrl-C ends it", flush=True)
        played = itertools.islice(hours(series), given.hours)
        total = play_hours(played, Sender(given.bootstrap_servers, given.topic), speed=given.speed, say=_say)
    except KeyboardInterrupt:
        return 0
    except (DataUnavailableError, PlayError) as error:
        print(f"demo.hourly: {error}", file=sys.stderr)
        return 1
    _say(f"{total:,} events sent")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

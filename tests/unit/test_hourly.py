from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.events import Event
from demo.hourly import HOUR_S, due, hours, main, play_hours
from tests.helpers.clock import ManualClock
from tests.helpers.series import made_series


class FakeSender:
    """Writes down when each event was sent."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, Event]] = []

    def send(self, event: Event) -> None:
        self.sent.append((self.clock(), event))

    def serve(self) -> None:
        pass

    def flush(self) -> None:
        pass


def test_an_hour_has_one_event_of_each_series_and_a_day_24_equal_hours() -> None:
    series = made_series()
    played = list(islice(hours(series, days=2), 50))
    assert {len(events) for events in played} == {len(series)}
    assert played[0] == played[23] != played[24] == played[47]
    assert played[48] == played[0], "behind the last day it starts over"
    assert len({event.key for event in played[0]}) == len(series)


def test_events_are_spread_over_their_hour() -> None:
    clock = ManualClock()
    sender = FakeSender(clock)
    events = [Event(key=bytes([number]), value=b"") for number in range(10)]
    total = play_hours(
        iter([events, events]),
        sender,  # type: ignore[arg-type] # the three methods that are used
        speed=360.0,  # an hour is 10 s
        say=lambda _: None,
        clock=clock,
        nap=lambda _: clock.advance(0.25),
    )
    assert total == 20
    assert [event for _, event in sender.sent] == events * 2
    for number, (sent_s, _) in enumerate(sender.sent):
        assert 0 <= sent_s - sender.sent[0][0] - number <= 0.5


@given(count=st.integers(1, 1000), speed=st.floats(0.1, 1e5), share=st.floats(0, 1.5))
def test_what_is_due_grows_from_one_to_all(count: int, speed: float, share: float) -> None:
    at = due(count, share * HOUR_S / speed, speed)
    assert 1 <= at <= count
    assert at == count or abs(at - 1 - count * share) <= 1.001


def test_a_speed_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--bootstrap-servers", "x", "--speed", "0"])
    assert "--speed: got 0, expected more than 0" in capsys.readouterr().err

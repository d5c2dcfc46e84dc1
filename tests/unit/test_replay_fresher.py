"""A model of a compacted topic: live workers and a replay write in any order; no fresher forecast stays buried."""

from __future__ import annotations

from collections.abc import Callable

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.load import load_schema
from tests.helpers.workers import FRAMING, avro
from worker.errors import ContractError
from worker.replay_fresher import AsOfReader, Fresher, Live

SCHEMA = load_schema(None, "sku_forecast")


def live(as_of: int | None, timestamp_ms: int = 0, value: bytes | None = None) -> Live:
    return Live(as_of, timestamp_ms, 0, value)


def test_a_forecast_is_written_if_the_live_one_is_older_or_missing() -> None:
    fresher = Fresher()
    fresher.saw(b"k", live(10))
    assert [fresher.allows(b"k", as_of) for as_of in (9, 10, 11)] == [False, False, True]
    assert fresher.allows(b"unknown", 1)
    fresher.saw(b"k", live(None))
    assert not fresher.allows(b"k", 99), "a withdrawn key stays withdrawn"
    assert len(fresher) == 1


def test_what_is_in_the_open_transaction_counts_until_it_is_aborted() -> None:
    fresher = Fresher()
    fresher.produced(b"k", live(10))
    assert [fresher.allows(b"k", 9), fresher.allows(b"k", 11)] == [False, True]
    fresher.settled(committed=False)
    assert fresher.allows(b"k", 9)
    fresher.produced(b"k", live(10))
    fresher.settled(committed=True)
    assert not fresher.allows(b"k", 9)


def test_a_later_event_of_the_same_day_takes_the_place_of_our_own_but_not_of_a_live_one() -> None:
    fresher = Fresher()
    fresher.produced(b"k", live(10, value=b"first"))
    assert fresher.allows(b"k", 10), "in the same transaction"
    fresher.settled(committed=True)
    assert fresher.allows(b"k", 10), "committed"
    fresher.saw(b"k", live(10, value=b"first"))
    assert fresher.allows(b"k", 10), "and seen"
    fresher.saw(b"k", live(10, value=b"of a live worker"))
    assert not fresher.allows(b"k", 10)


def test_our_own_withdrawal_yields_to_a_later_event_and_a_live_one_does_not() -> None:
    fresher = Fresher()
    fresher.saw(b"k", live(10, timestamp_ms=50))
    fresher.produced(b"k", live(None, timestamp_ms=60))
    assert fresher.allows(b"k", 11), "in the same transaction"
    fresher.settled(committed=True)
    fresher.saw(b"k", live(None, timestamp_ms=60))
    assert fresher.allows(b"k", 11)
    fresher.saw(b"k", live(None, timestamp_ms=70))
    assert not fresher.allows(b"k", 11)


def test_a_live_forecast_that_came_while_our_withdrawal_was_open_is_put_back() -> None:
    fresher = Fresher()
    fresher.saw(b"k", live(10, timestamp_ms=50))
    fresher.produced(b"k", live(None, timestamp_ms=60))
    fresher.saw(b"k", live(11, timestamp_ms=70, value=b"newer"))
    assert fresher.buried() == [(b"k", live(11, 70, b"newer"))]


@pytest.mark.parametrize(("timestamp_ms", "put_back"), [(59, []), (70, [(b"k", live(11, 70, b"newer"))])])
def test_one_that_our_withdrawal_buried_is_put_back_if_its_event_is_newer(
    timestamp_ms: int, put_back: list[tuple[bytes, Live]]
) -> None:
    fresher = Fresher()
    fresher.saw(b"k", live(10, timestamp_ms=50))
    fresher.produced(b"k", live(None, timestamp_ms=60))
    fresher.settled(committed=True)
    fresher.saw(b"k", live(11, timestamp_ms, b"newer"))
    fresher.saw(b"k", live(None, timestamp_ms=60))
    assert fresher.buried() == put_back


def test_after_an_abort_nothing_of_ours_buries_and_what_came_last_stays() -> None:
    fresher = Fresher()
    fresher.produced(b"k", live(5, value=b"ours"))
    fresher.saw(b"k", live(6, value=b"R1"))
    fresher.settled(committed=False)
    fresher.saw(b"k", live(7, value=b"R3"))
    assert fresher.buried() == []
    fresher.produced(b"k", live(8, value=b"ours"))
    fresher.saw(b"k", live(9, value=b"R4"))
    fresher.saw(b"k", live(10, value=b"R5"))
    assert fresher.buried() == [(b"k", live(10, value=b"R5"))]


def test_a_newer_live_record_replaces_the_one_that_was_to_be_put_back_again() -> None:
    fresher = Fresher()
    fresher.produced(b"k", live(3, value=b"ours"))
    fresher.settled(committed=True)
    fresher.saw(b"k", live(5, value=b"hidden"))
    fresher.saw(b"k", live(3, value=b"ours"))
    assert fresher.buried() == [(b"k", live(5, value=b"hidden"))]
    fresher.settled(committed=False)
    fresher.saw(b"k", live(6, value=b"on top"))
    assert fresher.buried() == []


def test_what_a_put_back_record_buries_is_put_back_too() -> None:
    fresher = Fresher()
    fresher.produced(b"k", live(3, value=b"ours"))
    fresher.saw(b"k", live(6, value=b"A"))
    assert fresher.buried() == [(b"k", live(6, value=b"A"))]
    fresher.settled(committed=True)
    for as_of, value in ((3, b"ours"), (7, b"B"), (6, b"A")):
        fresher.saw(b"k", live(as_of, value=value))
    assert fresher.buried() == [(b"k", live(7, value=b"B"))]
    fresher.settled(committed=True)
    fresher.saw(b"k", live(7, value=b"B"))
    assert fresher.buried() == []


def test_a_withdrawal_needs_an_older_forecast_to_withdraw() -> None:
    fresher = Fresher()
    assert not fresher.allows_withdrawal(b"k", 100)
    fresher.saw(b"k", live(10, timestamp_ms=50))
    assert [fresher.allows_withdrawal(b"k", time_ms) for time_ms in (49, 50, 51)] == [False, False, True]
    fresher.produced(b"k", live(None, timestamp_ms=51))
    assert not fresher.allows_withdrawal(b"k", 60)


def test_as_of_is_read_without_the_rest() -> None:
    reader = AsOfReader(SCHEMA, FRAMING.prefix_bytes)
    content: dict[str, object] = {"sku_id": "a", "store_id": "b", "as_of": 19_950}
    content |= {"quantile_levels": [0.5], "quantiles": [[1.0]], "source_partition": 0, "source_offset": 5}
    content |= {"generated_at": 0, "model": "m", "model_version": "1", "engine_digest": "", "precision": "fp32"}
    value = b"x" * FRAMING.prefix_bytes + avro("sku_forecast", content | {"fallback_reason": None})
    assert reader.read(value) == 19_950
    for wrong in (b"", value[:14], b"\xff" * 40):
        with pytest.raises(ValueError, match="isn't a forecast of this schema"):
            reader.read(wrong)


def test_a_schema_without_as_of_cannot_tell() -> None:
    schema = fastavro.parse_schema(
        {"type": "record", "name": "Other", "fields": [{"name": "sku_id", "type": "string"}]}
    )
    assert isinstance(schema, dict)
    with pytest.raises(ContractError, match="Other has no field as_of of type int or long"):
        AsOfReader(schema, 0)


class Log:
    """One key on a topic whose readers see committed records, up to the first record of an open transaction."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int, bool | None]] = []  # writer, as_of, committed (None: not yet)
        self.seen = 0

    def write(self, writer: str, as_of: int) -> None:
        self.records.append((writer, as_of, None))

    def settle(self, writer: str, *, committed: bool) -> None:
        self.records = [(w, a, committed if state is None and w == writer else state) for w, a, state in self.records]

    def news(self) -> list[int]:
        """What has become visible since the last call, in the log's order."""
        found = []
        while self.seen < len(self.records) and self.records[self.seen][2] is not None:
            if self.records[self.seen][2]:
                found.append(self.records[self.seen][1])
            self.seen += 1
        return found

    @property
    def last(self) -> int | None:
        """What compaction keeps."""
        return next((a for _, a, committed in reversed(self.records) if committed), None)


def kept(*steps: str) -> int | None:
    """What stays of the key after a live worker wrote day 5 and a replay day 3, in an order that hides the one."""
    log = Log()
    replay = Replay(log)
    acts: dict[str, Callable[[], None]] = {
        "live writes": lambda: log.write("live", 5),
        "live commits": lambda: log.settle("live", committed=True),
        "replay writes": lambda: replay.write(3),
        "replay commits": replay.commit,
        "replay aborts": lambda: replay.settle(committed=False),
    }
    for step in steps:
        acts[step]()
    return log.last


def test_a_live_forecast_that_comes_while_ours_is_open_is_put_back_in_the_same_transaction() -> None:
    assert kept("replay writes", "live writes", "live commits", "replay commits") == 5
    assert kept("live writes", "replay writes", "live commits", "replay commits", "replay commits") == 5


def test_one_that_was_hidden_in_an_open_transaction_is_put_back_in_the_next() -> None:
    order = ("live writes", "replay writes", "replay commits", "live commits")
    assert kept(*order) == 3
    assert kept(*order, "replay commits") == 5


def test_and_again_if_that_one_is_aborted() -> None:
    log = Log()
    replay = Replay(log)
    log.write("live", 5)
    replay.write(3)
    replay.commit()
    log.settle("live", committed=True)
    replay.look()
    assert [there.as_of for _, there in replay.fresher.buried()] == [5]
    replay.settle(committed=False)
    assert log.last == 3
    replay.commit()
    assert log.last == 5


def test_nothing_is_put_back_that_lies_where_it_should() -> None:
    log = Log()
    replay = Replay(log)
    replay.write(3)
    replay.commit()
    log.write("live", 5)
    log.settle("live", committed=True)
    before = len(log.records)
    replay.commit()
    assert len(log.records) == before


steps = st.lists(st.sampled_from(["live", "live commits", "replay", "replay commits", "replay aborts"]), max_size=30)


class Replay:
    """Writes to a `Log` as a replay does: looks, asks, produces, puts back."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.fresher = Fresher()

    def write(self, as_of: int) -> None:
        self.look()
        if self.fresher.allows(b"k", as_of):
            self.fresher.produced(b"k", live(as_of, value=b"%d" % as_of))
            self.log.write("replay", as_of)

    def commit(self) -> None:
        self.look()
        for _, there in self.fresher.buried():
            self.log.write("replay", int(there.value or b"0"))
        self.settle(committed=True)

    def settle(self, *, committed: bool) -> None:
        self.log.settle("replay", committed=committed)
        self.fresher.settled(committed=committed)

    def look(self) -> None:
        for as_of in self.log.news():
            self.fresher.saw(b"k", live(as_of, value=b"%d" % as_of))


@given(steps=steps, ages=st.lists(st.integers(0, 5), min_size=30, max_size=30))
def test_whoever_writes_in_whatever_order_the_freshest_live_forecast_is_never_buried_for_good(
    steps: list[str], ages: list[int]
) -> None:
    """Live forecasts of a key get fresher with time; the replay's are of any age."""
    log, freshest = Log(), 0
    replay = Replay(log)
    for step, age in zip(steps, ages, strict=False):
        if step == "live":
            freshest += 1
            log.write("live", freshest)
        elif step == "live commits":
            log.settle("live", committed=True)
        elif step == "replay":
            replay.write(age)
        elif step == "replay commits":
            replay.commit()
        else:
            replay.settle(committed=False)
    replay.settle(committed=False)
    log.settle("live", committed=True)
    before = -1
    while before != len(log.records):  # the last looks wait until everything is decided
        before = len(log.records)
        replay.commit()
    if freshest:
        assert log.last is not None
        assert log.last >= freshest


WRITERS = ("live 1", "live 2", "ours")
messages = st.builds(
    live,
    st.one_of(st.none(), st.integers(0, 4)),
    timestamp_ms=st.integers(0, 4),
    value=st.sampled_from([b"a", b"b", b"c"]),
)
acts = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(WRITERS), messages),
    st.tuples(st.sampled_from(["commit", "abort"]), st.sampled_from(WRITERS), st.none()),
)


class Topic:
    """One key: what lies there, by whom, and the state of its transaction (None: open)."""

    def __init__(self) -> None:
        self.lies: list[tuple[str, Live, bool | None]] = []
        self.fresher = Fresher()
        self._seen = 0

    def write(self, writer: str, message: Live) -> None:
        if writer == "ours":
            self._look()
            if message.as_of is None:
                allowed = self.fresher.allows_withdrawal(b"k", message.timestamp_ms)
            else:
                allowed = self.fresher.allows(b"k", message.as_of)
            if not allowed:
                return
            self.fresher.produced(b"k", message)
        self.lies.append((writer, message, None))

    def end(self, writer: str, *, committed: bool) -> None:
        if writer == "ours":
            self._look()
            self.lies += [("put back", there, None) for _, there in self.fresher.buried()] if committed else []
            self.fresher.settled(committed=committed)
        own = {writer, "put back"} if writer == "ours" else {writer}
        self.lies = [(w, m, committed if state is None and w in own else state) for w, m, state in self.lies]

    def settle(self) -> None:
        for writer in WRITERS:
            self.end(writer, committed=True)
        before = -1
        while before != len(self.lies):
            before = len(self.lies)
            self.end("ours", committed=True)
            assert before < 200, "it never comes to an end"

    def _look(self) -> None:
        while self._seen < len(self.lies) and self.lies[self._seen][2] is not None:
            _, message, committed = self.lies[self._seen]
            if committed:
                self.fresher.saw(b"k", message)
            self._seen += 1


@given(taken=st.lists(acts, max_size=40))
def test_in_the_end_the_last_live_record_lies_under_none_that_it_overrules(
    taken: list[tuple[str, str, Live | None]],
) -> None:
    """Two live workers, withdrawals, equal days, aborts on all sides, and messages that look alike."""
    topic = Topic()
    for act, writer, message in taken:
        if message is not None:
            topic.write(writer, message)
        else:
            topic.end(writer, committed=act == "commit")
    topic.settle()
    left = [(writer, message) for writer, message, committed in topic.lies if committed]
    from_live = [message for writer, message in left if writer.startswith("live")]
    if from_live:
        assert not from_live[-1].overrules(left[-1][1])

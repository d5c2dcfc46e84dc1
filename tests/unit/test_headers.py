from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Message

from tests.helpers.confluent import FakeMessage
from worker.headers import HeadersOnDemand, headers_of


class Undecodable(FakeMessage):
    """What confluent_kafka does with a header whose name isn't UTF-8."""

    def headers(self) -> object:
        return b"\xff".decode()


@pytest.mark.parametrize("given", [None, [], {}, [("a", b"1"), ("a", None)], {"a": b"1"}])
def test_headers_are_pairs_however_they_come(given: Any) -> None:
    expected = list(given.items()) if isinstance(given, dict) else given or []
    assert headers_of(cast(Message, FakeMessage(headers=given))) == expected


def test_headers_that_cant_be_decoded_are_none() -> None:
    assert headers_of(cast(Message, Undecodable())) == []


def test_headers_on_demand_are_those_of_each_message() -> None:
    messages = [cast(Message, FakeMessage(headers=[("n", b"%d" % n)])) for n in range(3)]
    headers = HeadersOnDemand(messages)
    assert len(headers) == 3
    assert headers[2] == [("n", b"2")]
    assert list(headers[1:]) == [[("n", b"1")], [("n", b"2")]]

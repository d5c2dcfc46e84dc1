from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Message

from tests.helpers.confluent import FakeMessage
from worker.headers import headers_of


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

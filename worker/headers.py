"""Messages' headers, as confluent_kafka gives them, made harmless, and only for those who ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from confluent_kafka import Message

from worker.records import Header


def headers_of(message: Message) -> list[Header]:
    """Names and values; empty if a name isn't UTF-8, as one such message must not stop the worker."""
    try:
        found = message.headers()
    except UnicodeDecodeError:
        return []
    return list(found.items() if isinstance(found, dict) else found or ())


class HeadersOnDemand(Sequence[Sequence[Header]]):
    """The headers of `messages`, made when asked for: only rejected records and traces need them, and making them
    costs as much as decoding.
    """

    __slots__ = ("_messages",)

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> Sequence[Header]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[Header]]: ...

    def __getitem__(self, index: int | slice) -> Sequence[Header] | Sequence[Sequence[Header]]:
        if isinstance(index, slice):
            return HeadersOnDemand(self._messages[index])
        return headers_of(self._messages[index])

"""A message's headers, as confluent_kafka gives them, made harmless."""

from __future__ import annotations

from confluent_kafka import Message


def headers_of(message: Message) -> list[tuple[str, str | bytes | None]]:
    """Names and values; empty if a name isn't UTF-8, as one such message must not stop the worker."""
    try:
        found = message.headers()
    except UnicodeDecodeError:
        return []
    return list(found.items() if isinstance(found, dict) else found or ())

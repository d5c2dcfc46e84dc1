"""Moments as a person writes and reads them."""

from __future__ import annotations

import argparse
import datetime as dt


def moment_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 date or time (UTC if it names no zone), or of a number of milliseconds.

    Raises `argparse.ArgumentTypeError`, as it is made for an option's `type`.
    """
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a time such as 2026-11-23, 2026-11-23T08:30:00Z, or milliseconds since 1970"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * 1000)


def text_of(time_ms: int) -> str:
    """`time_ms` in UTC to the second; the number itself if the calendar doesn't have it."""
    try:
        return dt.datetime.fromtimestamp(time_ms / 1000, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"

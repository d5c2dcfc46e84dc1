import argparse

import pytest

from worker.moments import moment_ms, text_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02", 86_400_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01.5Z", 1500),
        ("1700000000000", 1_700_000_000_000),
        ("-5", -5),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert moment_ms(text) == expected


def test_what_is_no_moment() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="got 'soon', expected a time such as"):
        moment_ms("soon")


def test_text() -> None:
    assert text_of(1500) == "1970-01-01T00:00:01Z"
    assert text_of(10**18) == "1000000000000000000 ms"

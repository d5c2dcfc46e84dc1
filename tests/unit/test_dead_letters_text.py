"""What users called something is printed as it is, and JSON is JSON."""

from __future__ import annotations

import json
from typing import Any

from worker.dead_letters import Group, Letter, Place
from worker.dead_letters_text import group_lines, letter_json, letter_lines

LETTER = Letter(
    place=Place(topic="dead", partition=1, offset=0),
    source=Place(topic="in", partition=1, offset=100),
    timestamp_ms=5000,
    key=b"k",
    value=b"value",
    value_bytes=5,
    reason="not_finite",
    detail="why",
    rejected_at_ms=9000,
)


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    group = Group(reason="[bold]odd[/x] :smile:")
    group.add(LETTER, is_redriven=False, max_samples=1)
    text = group_lines("[/dead]", [group], 0)
    assert "dead letters of [/dead]" in text
    assert " [bold]odd[/x] :smile: " in text


def test_numbers_that_json_lacks_are_words() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    content: dict[str, object] = {"sales": [1.5, float("nan")], "more": {"price": float("-inf")}, "raw": b"\x00"}
    found: dict[str, Any] = json.loads(letter_json(LETTER, content), parse_constant=refuse)
    assert found["content"] == {"sales": [1.5, "nan"], "more": {"price": "-inf"}, "raw": "AA=="}
    assert "  sales: [1.5, nan]" in letter_lines(LETTER, content)

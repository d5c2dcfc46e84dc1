"""Dead letters for people (text) and programs (JSON)."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from io import StringIO

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from worker.dead_letters import Group, Letter
from worker.framing import Refusal
from worker.moments import text_of
from worker.redrive import Redriven

_SAMPLE_CHARACTERS = 160
_DUMP_BYTES = 1024
_WIDTH = 110


def group_lines(topic: str, groups: Sequence[Group], unreadable: int) -> str:
    """A table by reason, samples below it."""
    table = Table(box=SIMPLE, title=f"dead letters of {topic}", title_justify="left")
    for heading in ("reason", "letters", "redriven", "first", "last", "partitions"):
        table.add_column(heading, justify="right" if heading in {"letters", "redriven"} else "left")
    for group in groups:
        table.add_row(
            group.reason,
            f"{group.letters:,}",
            f"{group.redriven:,}",
            text_of(group.first_ms),
            text_of(group.last_ms),
            _ranges(sorted(group.partitions)),
        )
    out = StringIO()
    # Topics and reasons are data: what looks like rich's markup in them is none.
    Console(file=out, width=_WIDTH, markup=False, emoji=False, highlight=False).print(table)
    lines = [line.rstrip() for line in out.getvalue().rstrip().splitlines()]
    if not groups:
        lines = [f"no dead letters in {topic} that the conditions hold for"]
    for group in groups:
        if group.samples:
            lines += ["", f"{group.reason}, for instance:"]
        lines += [
            f"  {letter.place.partition}/{letter.place.offset}  {letter.source}  {_short(letter.detail)}"
            for letter in group.samples
        ]
    return "\n".join([*lines, *_unreadable(unreadable)])


def groups_json(topic: str, groups: Sequence[Group], unreadable: int) -> str:
    """The same for programs: times in milliseconds since 1970."""
    return json.dumps(
        {
            "topic": topic,
            "letters": sum(group.letters for group in groups),
            "unreadable": unreadable,
            "reasons": [
                {
                    "reason": group.reason,
                    "letters": group.letters,
                    "redriven": group.redriven,
                    "first_ms": group.first_ms,
                    "last_ms": group.last_ms,
                    "partitions": sorted(group.partitions),
                    "samples": [
                        {"letter": str(letter.place), "source": str(letter.source), "detail": letter.detail}
                        for letter in group.samples
                    ],
                }
                for group in groups
            ],
        },
        indent=2,
    )


def letter_lines(letter: Letter, content: Mapping[str, object] | Refusal) -> str:
    """One letter in full; its value as the record in it, or else as a dump of its first bytes."""
    value, key = letter.value or b"", letter.key
    size = "null" if letter.value is None else f"{letter.value_bytes:,} bytes"
    cut = f", of which {len(value):,} are here" if letter.value_bytes > len(value) else ""
    lines = [
        f"letter       {letter.place}",
        f"rejected     {letter.source}, at {text_of(letter.rejected_at_ms)}",
        f"reason       {letter.reason}",
        f"detail       {letter.detail}",
        f"timestamp    {text_of(letter.timestamp_ms) if letter.timestamp_ms >= 0 else 'none'}",
        f"attempts     {letter.attempts} redriven",
        f"key          {'null' if key is None else _text(key)}{' (cut)' if 'key' in letter.cut else ''}",
        f"value        {size}{cut}",
        f"headers      {'cut' if 'headers' in letter.cut else len(letter.headers) or 'none'}",
        *(f"  {name}: {_header(content)}" for name, content in letter.headers),
    ]
    if isinstance(content, Refusal):
        lines += [f"content      can't be decoded: {content.detail}", *_dump(value[:_DUMP_BYTES])]
        more = len(value) - _DUMP_BYTES
        lines += [f"  ... {more:,} more bytes; --save writes them all"] if more > 0 else []
    else:
        lines += ["content", *(f"  {name}: {shown(item)}" for name, item in content.items())]
    return "\n".join(lines)


def letter_json(letter: Letter, content: Mapping[str, object] | Refusal) -> str:
    """The same for programs: key, value and headers in base64; numbers that JSON lacks as "nan", "inf" and "-inf"."""
    problem, record = (content.detail, None) if isinstance(content, Refusal) else (None, dict(content))
    return json.dumps(
        {
            "letter": str(letter.place),
            "source": str(letter.source),
            "reason": letter.reason,
            "detail": letter.detail,
            "rejected_at_ms": letter.rejected_at_ms,
            "timestamp_ms": letter.timestamp_ms if letter.timestamp_ms >= 0 else None,
            "attempts": letter.attempts,
            "key_base64": _base64(letter.key),
            "value_base64": _base64(letter.value),
            "value_bytes": letter.value_bytes,
            "headers": [[name, _base64(value)] for name, value in letter.headers],
            "cut": sorted(letter.cut),
            "content": _json_value(record),
            "content_problem": problem,
        },
        indent=2,
        allow_nan=False,
    )


def redriven_lines(outcome: Redriven, topic: str, unreadable: int, *, is_dry: bool) -> str:
    """What a redrive did, or would do."""
    verb = "would be redriven" if is_dry else "redriven"
    lines = [f"{outcome.redriven:,} letters {verb} to {topic}"]
    lines += [f"  {reason}: {count:,}" for reason, count in outcome.reasons.most_common()]
    lines.append(f"{outcome.already:,} left alone: redriven before")
    lines.append(f"{outcome.refused:,} left alone: can't be redriven")
    lines += [f"  {letter.place}: {why}" for letter, why in outcome.left]
    more = outcome.refused - len(outcome.left)
    lines += [f"  and {more:,} more"] if more > 0 else []
    return "\n".join([*lines, *_unreadable(unreadable)])


def redriven_json(outcome: Redriven, topic: str, unreadable: int, *, is_dry: bool) -> str:
    """The same for programs."""
    return json.dumps(
        {
            "topic": topic,
            "dry_run": is_dry,
            "redriven": outcome.redriven,
            "by_reason": dict(outcome.reasons),
            "redriven_before": outcome.already,
            "refused": outcome.refused,
            "refused_first": [{"letter": str(letter.place), "why": why} for letter, why in outcome.left],
            "unreadable": unreadable,
        },
        indent=2,
    )


def shown(value: object) -> str:
    """A field's value on one line, numbers without the digits that float32 doesn't have."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _unreadable(count: int) -> list[str]:
    return [f"{count:,} messages of the topic are no dead letters that can be read"] if count else []


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SAMPLE_CHARACTERS else f"{line[: _SAMPLE_CHARACTERS - 3]}..."


def _text(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else f"hex {raw.hex()}"


def _header(value: str | bytes | None) -> str:
    return _text(value) if isinstance(value, bytes) else str(value)


def _json_value(value: object) -> object:
    """A decoded value as JSON has it: bytes in base64, and what JSON has no kind for as its text."""
    if isinstance(value, Mapping):
        return {str(name): _json_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if isinstance(value, bytes):
        return _base64(value)
    is_json = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_json else str(value)


def _base64(raw: str | bytes | None) -> str | None:
    if raw is None:
        return None
    return base64.b64encode(raw.encode() if isinstance(raw, str) else raw).decode()


def _dump(raw: bytes) -> list[str]:
    """Offset, bytes in hex, and what of them is ASCII."""
    lines = []
    for at in range(0, len(raw), 16):
        part = raw[at : at + 16]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"  {at:06x}  {part.hex(' '):<47}  {ascii_text}")
    return lines


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3, 7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number - runs[-1][-1] == 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

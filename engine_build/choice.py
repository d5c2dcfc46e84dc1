"""Which precision to publish: the fastest that passes the gates. Pure.

Lower precision must earn its place: a candidate that isn't faster than the more precise ones by `MIN_GAIN` isn't taken. INT8 on
small networks is often slower than FP16 (the casts cost more than the products save), so it is measured, never assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.engine_card import Precision

ORDER: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
"""From the most precise on."""
UNMEASURED_ORDER: Final[tuple[Precision, ...]] = ("fp16", "fp32", "int8")
"""Preference where nothing could be measured: half precision is faster on every GPU that has it, INT8 may be slower."""
MIN_GAIN: Final = 0.03
"""Two measurements of the same plan differ by about this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A built plan. problems: why it may not be published (accuracy, proof, memory), empty if it may.

    rows_per_s: its throughput at the profile's opt rows; None if it couldn't be measured.
    """

    precision: Precision
    problems: tuple[str, ...]
    rows_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """published: precisions, the one to prefer first; empty if nothing passes. reasons: a sentence for each candidate."""

    published: tuple[Precision, ...]
    reasons: tuple[str, ...]


def choose(candidates: Sequence[Candidate], *, min_gain: float = MIN_GAIN) -> Decision:
    """The fastest of the candidates that pass; if none was measured, all that pass in `UNMEASURED_ORDER`.

    min_gain: share by which a less precise candidate must be faster than the best of the more precise ones.
    """
    passing = sorted((each for each in candidates if not each.problems), key=lambda each: ORDER.index(each.precision))
    reasons = [f"{each.precision} is out: {'; '.join(each.problems)}" for each in candidates if each.problems]
    measured = [(each, each.rows_per_s) for each in passing if each.rows_per_s is not None]
    if not measured:
        kept = tuple(sorted((each.precision for each in passing), key=UNMEASURED_ORDER.index))
        if kept:
            reasons.append(f"nothing was measured, so all that pass are published, preferred first: {', '.join(kept)}")
        return Decision(published=kept, reasons=tuple(reasons))
    reasons += [f"{each.precision} wasn't measured, so it isn't chosen" for each in passing if each.rows_per_s is None]
    best, best_rows_per_s = measured[0]
    for each, rows_per_s in measured[1:]:
        gain = rows_per_s / best_rows_per_s - 1
        compared = f"{rows_per_s:,.0f} rows/s against {best_rows_per_s:,.0f} of {best.precision} ({gain:+.1%})"
        if gain >= min_gain:
            reasons.append(f"{each.precision} is faster: {compared}")
            best, best_rows_per_s = each, rows_per_s
        else:
            reasons.append(f"{each.precision} isn't chosen, it isn't {min_gain:.0%} faster: {compared}")
    reasons.append(f"{best.precision} is chosen: {best_rows_per_s:,.0f} rows/s")
    return Decision(published=(best.precision,), reasons=tuple(reasons))

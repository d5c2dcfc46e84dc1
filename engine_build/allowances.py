"""By how much a plan may differ from ONNX Runtime in FP32, for each precision.                                    (pure)

What a precision costs is the graph's own matter, and judged by the accuracy gate. A plan computes that graph with other kernels,
so it may differ from FP32 by somewhat more than the graph itself does on a CPU (docs/engines.md has both), and one that is wrong
differs by far more. Single rows of an INT8 graph may be far off although the whole is right: hence `own`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from engine_build.errors import InputError
from schemas.engine_card import Precision

_TEXT: Final = re.compile(r"(\w+)=([0-9.eE+-]+):([0-9.eE+-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """pointwise: share of a value, and of the mean forecast in addition, as low precision errs in both; None: the tolerance of
    the card's golden batch. summed: share of the sum of all forecasts that the sum of all differences may have. own: pointwise
    isn't less than this many times what the graph itself errs by on a CPU; 0: it is what it says.
    """

    pointwise: float | None
    summed: float
    own: float = 0.0


ALLOWANCES: Final[Mapping[Precision, Allowance]] = {
    "fp32": Allowance(pointwise=None, summed=0.001),
    "fp16": Allowance(pointwise=0.01, summed=0.002, own=2.0),
    "int8": Allowance(pointwise=0.25, summed=0.03, own=1.5),
}


def parse_allowances(texts: Sequence[str]) -> Mapping[Precision, Allowance]:
    """The defaults, with those that `texts` name (`int8=0.3:0.05`, pointwise and summed) in their place. Raises `InputError`."""
    found = dict(ALLOWANCES)
    problems = []
    for text in texts:
        precision, allowance = _parsed(text)
        if precision is None or allowance is None:
            problems.append(
                f"got {text!r}, expected PRECISION=POINTWISE:SUMMED with {', '.join(ALLOWANCES)} and shares above 0 up to 1, "
                "as in int8=0.3:0.05"
            )
        else:
            found[precision] = allowance
    if problems:
        raise InputError("--tolerance", problems)
    return found


def _parsed(text: str) -> tuple[Precision | None, Allowance | None]:
    match = _TEXT.fullmatch(text)
    if match is None:
        return None, None
    precision: Precision | None = next((each for each in get_args(Precision) if each == match[1]), None)
    try:
        pointwise, summed = float(match[2]), float(match[3])
    except ValueError:
        return None, None
    return precision, Allowance(pointwise=pointwise, summed=summed) if 0 < pointwise <= 1 and 0 < summed <= 1 else None

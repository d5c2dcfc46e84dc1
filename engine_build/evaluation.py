"""What a precision costs in accuracy, and the gate that it must pass.

With an evaluation set (what was sold is known) the candidate's WAPE, bias and pinball loss are held against those of FP32.
Without one, its forecasts are held against FP32's own on the calibration rows: WAPE-to-FP32, which bounds how far WAPE can move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine_build.errors import EvaluationError
from engine_build.onnx_run import BATCH_ROWS, Columns, FloatArray, OnnxRun
from engine_build.parquet_rows import read_columns
from schemas import accuracy as formulas
from schemas.engine_card import Accuracy

LARGEST_LOSS: Final = 0.02
"""Relative, of WAPE and pinball loss; a candidate that loses as much or more is out."""

LARGEST_BIAS_GROWTH: Final = 0.02
"""In shares of the sales (2 points), by which |bias| may not grow: a ratio to a bias close to zero would say nothing."""

ACTUAL: Final = "actual"
DEFAULT_QUANTILES: Final = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationSet:
    """Events and what was sold afterwards. columns: see `Columns`. actual: float32[rows, horizon], units a day."""

    columns: Columns
    actual: FloatArray

    def __len__(self) -> int:
        return len(self.actual)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a candidate is accurate enough. reasons: why not, one sentence each; empty if it passed.

    wape_loss, pinball_loss: relative to the reference (0.01: 1 % worse, below 0: better). bias_growth: of |bias|, in shares
    of the sales. basis: what it was measured on, in words.
    """

    reasons: tuple[str, ...]
    wape_loss: float
    pinball_loss: float
    bias_growth: float
    basis: str

    @property
    def passed(self) -> bool:
        """True if nothing speaks against the candidate."""
        return not self.reasons

    def __str__(self) -> str:
        figures = (
            f"WAPE {self.wape_loss:+.2%}, pinball {self.pinball_loss:+.2%}, |bias| {100 * self.bias_growth:+.2f} points"
        )
        return f"{'passed' if self.passed else 'out'} on {self.basis}: {figures}"


def load_evaluation(
    path: Path, inputs: Mapping[str, int | None], horizon: int, schema: Mapping[str, Any]
) -> EvaluationSet:
    """Rows of a Parquet file: a column for each input, and `actual`, a list of `horizon` numbers: what was sold.

    A column that isn't there takes the schema's default. Raises `EvaluationError` with every problem.
    """
    columns = read_columns(path, {**inputs, ACTUAL: horizon}, schema, error=EvaluationError)
    actual = columns.pop(ACTUAL)
    problems = [
        f"column {name}: {int(bad.sum()):,} rows aren't finite, the first is row {int(np.argmax(bad))}; drop or fill them"
        for name, values in {**columns, ACTUAL: actual}.items()
        if (bad := ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).any()
    ]
    if not problems and not actual.sum(dtype=np.float64) > 0:
        problems = [f"column {ACTUAL}: got a sum of 0, expected some sales to measure errors against"]
    if problems:
        raise EvaluationError(str(path), problems)
    return EvaluationSet(columns=columns, actual=actual)


def onnx_forecasts(path: Path, columns: Columns, batch_rows: int = BATCH_ROWS) -> FloatArray:
    """float32[rows, horizon, quantiles] by ONNX Runtime on the CPU, `batch_rows` rows at a time."""
    return OnnxRun(path).forecasts(columns, batch_rows=batch_rows)


def accuracy(forecast: FloatArray, actual: FloatArray, quantiles: Sequence[float] = DEFAULT_QUANTILES) -> Accuracy:
    """Errors of forecasts float32[rows, horizon, quantiles] against float32[rows, horizon], as cards hold them, not rounded.

    Raises `EvaluationError` if shapes don't fit, or nothing was sold.
    """
    if forecast.shape != (*actual.shape, len(quantiles)):
        expected = (*actual.shape, len(quantiles))
        raise EvaluationError("forecast", [f"shape: got {forecast.shape}, expected {expected} from what was sold"])
    if not np.isfinite(forecast).all():
        raise EvaluationError("forecast", ["holds values that aren't finite; this precision can't be used"])
    try:
        return formulas.accuracy_of(forecast, actual, quantiles)
    except ValueError as error:
        raise EvaluationError("evaluation set", [str(error)]) from error


def compare(candidate: Accuracy, reference: Accuracy) -> Verdict:
    """Hold a candidate's accuracy against the reference's (FP32), both on the same evaluation set."""
    wape_loss = _relative(candidate.wape, reference.wape)
    pinball_loss = _relative(candidate.pinball, reference.pinball)
    growth = abs(candidate.bias) - abs(reference.bias)
    reasons = [
        f"{name} is {got:.5g}, {loss:.2%} worse than FP32's {was:.5g}; expected less than {LARGEST_LOSS:.0%}"
        for name, loss, got, was in (
            ("WAPE", wape_loss, candidate.wape, reference.wape),
            ("pinball loss", pinball_loss, candidate.pinball, reference.pinball),
        )
        if loss >= LARGEST_LOSS
    ]
    if growth >= LARGEST_BIAS_GROWTH:
        reasons.append(
            f"bias is {candidate.bias:+.4f} of the sales, FP32's is {reference.bias:+.4f}; "
            f"expected |bias| to grow by less than {LARGEST_BIAS_GROWTH}"
        )
    return Verdict(
        reasons=tuple(reasons),
        wape_loss=wape_loss,
        pinball_loss=pinball_loss,
        bias_growth=growth,
        basis=f"an evaluation set of {reference.rows:,} rows",
    )


def compare_to_fp32(
    forecast: FloatArray, reference: FloatArray, quantiles: Sequence[float] = DEFAULT_QUANTILES
) -> Verdict:
    """Hold a candidate's forecasts against FP32's own on the same rows, where it isn't known what was sold.

    FP32's median stands for what was sold: WAPE-to-FP32 and bias-to-FP32 of the median, and in place of a pinball loss the
    summed difference of all quantiles over FP32's sum of them. Shapes float32[rows, horizon, quantiles].
    """
    middle = formulas.median_index(quantiles)
    true, found = reference[:, :, middle], forecast[:, :, middle]
    if not np.isfinite(forecast).all():
        found_loss = quantile_loss = drift = float("inf")
    else:
        found_loss, drift = _or_equal(formulas.wape(found, true)), _or_equal(formulas.bias(found, true))
        quantile_loss = _or_equal(formulas.wape(forecast, reference))
    reasons = [
        f"{name} is {got:.3%}; expected less than {limit:.0%}"
        for name, got, limit in (
            ("WAPE-to-FP32", found_loss, LARGEST_LOSS),
            ("difference of the quantiles to FP32's", quantile_loss, LARGEST_LOSS),
            ("bias to FP32", abs(drift), LARGEST_BIAS_GROWTH),
        )
        if got >= limit
    ]
    return Verdict(
        reasons=tuple(reasons),
        wape_loss=found_loss,
        pinball_loss=quantile_loss,
        bias_growth=abs(drift),
        basis=f"{len(reference):,} calibration rows against FP32's own forecasts (no evaluation set given)",
    )


def _relative(candidate: float, reference: float) -> float:
    if reference == 0.0:
        return 0.0 if candidate == 0.0 else float("inf")
    return candidate / reference - 1.0


def _or_equal(value: float) -> float:
    """0 for NaN: both sums are zero only if there is nothing to differ in."""
    return 0.0 if np.isnan(value) else value

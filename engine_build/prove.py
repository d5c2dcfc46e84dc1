"""Proves a plan before it is published: it computes what ONNX Runtime computes in FP32, and a row only from itself.

On a device the plan runs the golden rows at the smallest, the usual, the largest and at odd batch sizes. Without a device that
fits, only its structure can be checked; the card then says so, and whoever loads the plan proves it on loading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine_build.allowances import Allowance
from engine_build.errors import ProofError
from engine_build.trt_types import Shape, TensorFacts
from schemas.engine_card import EngineCard, Profile

FloatArray = NDArray[np.float32]

_BATCH_MATES: Final = 0.1
"""A row may change by this share of the tolerance with what else is in its batch."""


class Runner(Protocol):
    """Runs a plan, or anything that shall compute the same."""

    def run(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """inputs: name -> float32[rows, ...]. The forecasts, float32[rows, horizon, quantiles]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """Rows with what ONNX Runtime computes from them in FP32. Shapes as for `Runner.run`."""

    inputs: Mapping[str, FloatArray]
    outputs: FloatArray

    @classmethod
    def of_card(cls, card: EngineCard) -> Self:
        """The golden batch of `card`, with the outputs that it states."""
        inputs = {name: np.asarray(values, np.float32) for name, values in card.golden.inputs.items()}
        return cls(inputs=inputs, outputs=np.asarray(card.golden.outputs, np.float32))

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """A value may differ by `absolute + relative * |reference|`; the sum of differences by `summed * sum |reference|`."""

    relative: float
    absolute: float
    summed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was seen on a device. worst: largest difference as a share of the tolerance; summed: largest sum of differences as
    a share of the reference's; batch_mates: as `worst`, between the same rows among zeros and among others.
    """

    sizes: tuple[int, ...]
    worst: float
    summed: float
    batch_mates: float


def pointwise_error(found: FloatArray, golden: Golden) -> float:
    """The largest difference to the golden outputs, as a share of the value and the mean forecast together."""
    size = np.abs(golden.outputs).astype(np.float64)
    error = np.abs(found.astype(np.float64) - golden.outputs)
    return float((error / np.maximum(size + size.mean(), np.finfo(np.float32).tiny)).max())


def tolerance_of(allowance: Allowance, card: EngineCard, golden: Golden, own_error: float = 0.0) -> Tolerance:
    """What `allowance` means for a model whose forecasts are as large as those of `golden`.

    own_error: `pointwise_error` of the graph itself, by ONNX Runtime.
    """
    if allowance.pointwise is None:
        stated = card.golden
        return Tolerance(
            relative=stated.relative_tolerance, absolute=stated.absolute_tolerance, summed=allowance.summed
        )
    mean = float(np.abs(golden.outputs).mean())
    share = max(allowance.pointwise, round(allowance.own * own_error, 6))
    return Tolerance(relative=share, absolute=round(share * mean, 9), summed=allowance.summed)


def proof_sizes(profile: Profile) -> tuple[int, ...]:
    """Batch sizes to prove, ascending: min, opt, max, and odd ones that no kernel is made for."""
    low, opt, high = profile.min_rows, profile.opt_rows, profile.max_rows
    odd = (low + 1, 3, 7, 33, opt - 1, opt + 1, (low + high) // 2 | 1, high - 1)
    return tuple(sorted({low, opt, high, *(rows for rows in odd if low <= rows <= high)}))


def prove(runner: Runner, golden: Golden, profile: Profile, tolerance: Tolerance) -> Proof:
    """Run the golden rows at all `proof_sizes`, alone, padded with zeros, and among others. Raises `ProofError`."""
    worst = summed = mates = 0.0
    problems: list[str] = []
    wrong: list[int] = []
    sizes = proof_sizes(profile)
    for rows in sizes:
        repeated, reference = (
            _repeated(golden.inputs, rows),
            np.resize(golden.outputs, (rows, *golden.outputs.shape[1:])),
        )
        found = runner.run(repeated)
        problem = _problem(found, reference, tolerance)
        if problem is not None:
            problems.append(f"{rows} rows: {problem}")
            wrong.append(rows)
            continue
        worst = max(worst, _share(found, reference, tolerance))
        summed = max(summed, _summed(found, reference))
        change = _change_with_mates(runner, golden, rows, tolerance)
        if not change <= _BATCH_MATES:
            problems.append(
                f"{rows} rows: forecasts change with the other rows of the batch by {change:.3g} of the tolerance, "
                f"{_BATCH_MATES:g} is allowed"
            )
            wrong.append(rows)
        mates = max(mates, change)
    if problems:
        then = f"it isn't published{_remedy(wrong, sizes, profile)}"
        raise ProofError(_message("differs from ONNX Runtime in FP32", problems, then))
    return Proof(sizes=sizes, worst=worst, summed=summed, batch_mates=mates)


def _remedy(wrong: Sequence[int], sizes: Sequence[int], profile: Profile) -> str:
    """What helps if only the smallest batches are wrong: TensorRT 10.6's LSTM is, at one row. Else nothing."""
    right = sizes[len(wrong) :]
    if tuple(wrong) != tuple(sizes[: len(wrong)]) or not right or right[0] > profile.opt_rows:
        return ""
    return (
        f"; from {right[0]} rows on it is right, so build it for those: "
        f"--profile {right[0]}:{profile.opt_rows}:{profile.max_rows}, and workers pad smaller batches"
    )


def prove_structure(tensors: Sequence[TensorFacts], card: EngineCard, profiles: Sequence[Profile]) -> None:
    """Check names, types, shapes and batch sizes of a network or an engine. Raises `ProofError` with all that is wrong."""
    expected = {tensor.name: (True, _shape_of(tensor.shape)) for tensor in card.inputs}
    expected |= {tensor.name: (False, _shape_of(tensor.shape)) for tensor in card.outputs}
    problems = [f"{name} is missing" for name in sorted(set(expected) - {tensor.name for tensor in tensors})]
    for tensor in tensors:
        if tensor.name not in expected:
            problems.append(f"{tensor.name} isn't in the card")
            continue
        is_input, shape = expected[tensor.name]
        if (tensor.is_input, tensor.dtype, tensor.shape) != (is_input, "float32", shape):
            problems.append(
                f"{tensor.name}: got {_text(is_input=tensor.is_input, dtype=tensor.dtype, shape=tensor.shape)}, "
                f"expected {_text(is_input=is_input, dtype='float32', shape=shape)}"
            )
        bounds = tuple((p.min_rows, p.opt_rows, p.max_rows) for p in profiles)
        found = tuple((low[0], opt[0], high[0]) for low, opt, high in tensor.profiles)
        if tensor.is_input and found != bounds:
            problems.append(f"{tensor.name}: got profiles {list(found)}, expected {list(bounds)} rows")
    if problems:
        raise ProofError(_message("doesn't fit its card", problems, "build it anew from the card's model"))


def _change_with_mates(runner: Runner, golden: Golden, rows: int, tolerance: Tolerance) -> float:
    """How much the first rows of a batch change when zeros after them are replaced by other rows."""
    own = min(golden.rows, max(rows // 2, 1))
    if own == rows:
        return 0.0
    lonely = {name: np.zeros((rows, *values.shape[1:]), np.float32) for name, values in golden.inputs.items()}
    crowded = {name: np.ascontiguousarray(values[::-1]) for name, values in _repeated(golden.inputs, rows).items()}
    for name, values in golden.inputs.items():
        lonely[name][:own] = crowded[name][:own] = values[:own]
    among_zeros, among_others = runner.run(lonely)[:own], runner.run(crowded)[:own]
    if not (np.isfinite(among_zeros).all() and np.isfinite(among_others).all()):
        return float("inf")
    return _share(among_zeros, among_others, tolerance)


def _repeated(inputs: Mapping[str, FloatArray], rows: int) -> dict[str, FloatArray]:
    return {name: np.resize(values, (rows, *values.shape[1:])) for name, values in inputs.items()}


def _problem(found: FloatArray, reference: FloatArray, tolerance: Tolerance) -> str | None:
    if found.shape != reference.shape:
        return f"got shape {found.shape}, expected {reference.shape}"
    if not np.isfinite(found).all():
        return f"{int((~np.isfinite(found)).sum())} values aren't finite"
    share = _share(found, reference, tolerance)
    if share > 1:
        allowed = _allowed(reference, tolerance)
        place = np.unravel_index(int(np.argmax(np.abs(found - reference) / allowed)), found.shape)
        return (
            f"row {place[0]}, day {place[1]}, quantile {place[2]}: got {found[place]:.6g}, expected {reference[place]:.6g} "
            f"within {allowed[place]:.3g}"
        )
    summed = _summed(found, reference)
    if summed > tolerance.summed:
        return f"differences sum up to {summed:.3%} of the forecasts, {tolerance.summed:.3%} is allowed"
    return None


def _allowed(reference: FloatArray, tolerance: Tolerance) -> NDArray[np.float64]:
    allowed = tolerance.absolute + tolerance.relative * np.abs(reference).astype(np.float64)
    return np.maximum(allowed, np.finfo(np.float32).tiny)


def _share(found: FloatArray, reference: FloatArray, tolerance: Tolerance) -> float:
    return float((np.abs(found.astype(np.float64) - reference) / _allowed(reference, tolerance)).max())


def _summed(found: FloatArray, reference: FloatArray) -> float:
    total = float(np.abs(reference).sum(dtype=np.float64))
    return float(np.abs(found - reference).sum(dtype=np.float64)) / max(total, float(np.finfo(np.float32).tiny))


def _shape_of(shape: tuple[int | str, ...]) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _text(*, is_input: bool, dtype: str, shape: Shape) -> str:
    sizes = ", ".join("batch" if size is None else str(size) for size in shape)
    return f"{'input' if is_input else 'output'} {dtype}[{sizes}]"


def _message(what: str, problems: Sequence[str], then: str) -> str:
    return "\n".join([f"the plan {what}; {then}:", *(f"  - {problem}" for problem in problems)])

"""Proof that an engine computes what its card promises, before it may serve: golden batch, every size, time.

Blocks, and runs on the thread that owns the engine. Nothing here is published.

`loading.py` proves the versions of a store and refuses them one by one. Engines that nothing takes the place of (of a single
model, `engine.backup`, a stand-by, a replay, `diff`) are proved within `refused_unless_proved`, where they are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from schemas.engine_card import EngineCard
from worker.deadline import Clock
from worker.engine import Engine, EngineSpec, Slot, Ticket
from worker.errors import ContractError, EngineError

TIMED_RUNS = 3
"""A full batch is timed so often, and the shortest counts: the others may have waited for a busy processor."""
TIMED_RUNS_AT_MOST = 24
"""So often if it is over the budget: a version that is too slow always is, on a busy processor a fast one is most of the time."""
FAR_OVER = 50.0
"""So many times the budget in each of the first runs is no busy processor: it isn't timed any more."""
WAIT_S = 60.0
"""A batch that isn't back after so long is not coming."""

Columns = Mapping[str, NDArray[np.float32]]


class ProofError(Exception):
    """An engine doesn't do what its card says. The message says where, got and expected."""


class TooSlowError(ProofError):
    """Its numbers are right, but they come later than the card promises."""


@contextmanager
def refused_unless_proved(engine: Engine, setting: str) -> Iterator[None]:
    """Goes around the proof of `engine`: if that fails, the command ends. setting: what named the model.

    Raises `ContractError`, with a remedy, if the engine doesn't do what its card says, or if an ONNX file can't be computed. Whatever
    else comes goes on up, also `EngineError` of a plan, as a device that fails says nothing of the model. Then the engine is closed.
    """
    try:
        yield
    except BaseException as error:
        engine.close()
        spec = engine.spec
        if not isinstance(error, ProofError if spec.plan is not None else ProofError | EngineError):
            raise
        runs = "its ONNX file" if spec.plan is None else spec.plan.file
        raise ContractError(
            f"{setting}: {spec.model} {spec.version}, {runs}, doesn't do what its card says: {error}; {_remedy(spec, error)}"
        ) from error


def golden_columns(card: EngineCard) -> dict[str, NDArray[np.float32]]:
    """The golden batch's inputs: name -> float32[rows] or float32[rows, n]."""
    return {name: np.asarray(values, np.float32) for name, values in card.golden.inputs.items()}


def prove(engine: Engine, card: EngineCard) -> None:
    """Run the golden batch, and raise `ProofError` where it differs by more than the tolerances; `EngineError` if it fails."""
    columns = golden_columns(card)
    rows = len(card.golden.outputs)
    for first in range(0, rows, engine.spec.max_rows):
        last = min(first + engine.spec.max_rows, rows)
        part = {name: column[first:last] for name, column in columns.items()}
        _compare(compute(engine, part, last - first), np.arange(first, last), engine, card, "golden batch")


def prove_sizes(engine: Engine, card: EngineCard) -> None:
    """Run every size that will be used with golden rows; so the first real batches find the engine warm, too.

    A plan runs them in all slots at once, each with the golden rows in another order: slots share memory and contexts on the
    device, and one that is handed another one's forecasts is found out. The ONNX file has one session for all slots.
    Raises `ProofError` if one is wrong or a row depends on its neighbours; `EngineError` if it fails.
    """
    golden = golden_columns(card)
    for rows in sizes(card, engine):
        with _slots(engine, every=engine.spec.plan is not None) as slots:
            batches = [_tiled(golden, rows, first=slot.index) for slot in slots]
            results = _computed_together(engine, slots, [columns for columns, _ in batches], rows)
            for values, (_, places) in zip(results, batches, strict=True):
                _compare(values, places, engine, card, f"batch of {rows} rows")


def warm(engine: Engine, card: EngineCard, clock: Clock) -> float:
    """`prove_sizes`, and the seconds of a full batch.

    Raises as that does, and `TooSlowError` if a full batch takes longer than the card's budget. Every engine of a live worker is
    held to it, also a single model's, after which there is nothing else to start with: what a card promises doesn't depend on how
    the model is named, and a store's first version is refused for its time, too, which stops the start if no older one may
    serve. That a processor is busy is what the best of many runs is for.
    """
    prove_sizes(engine, card)
    full, _ = _tiled(golden_columns(card), engine.spec.max_rows)
    budget_ms = float("inf") if card.latency_budget_ms is None else card.latency_budget_ms
    best_s, runs = float("inf"), 0
    while runs < TIMED_RUNS or (runs < TIMED_RUNS_AT_MOST and budget_ms < best_s * 1000 < FAR_OVER * budget_ms):
        best_s, runs = min(best_s, _timed(engine, full, clock)), runs + 1
    if best_s * 1000 > budget_ms:
        raise TooSlowError(
            f"latency: {engine.spec.max_rows} rows took {best_s * 1000:.1f} ms (the best of {runs}), "
            f"the card's budget is {budget_ms:g} ms"
        )
    return best_s


def sizes(card: EngineCard, engine: Engine) -> list[int]:
    """Batch sizes worth a first run before the first real one: the ends of the profiles, the usual size, every way to run a batch."""
    plan = engine.spec.plan
    profiles = [card.profile] if plan is None else list(plan.profiles)
    wanted = {1, engine.spec.max_rows, *engine.spec.proof_rows, *(() if plan is None else plan.cuda_graph_rows)}
    for profile in profiles:
        wanted |= {profile.min_rows, profile.opt_rows, profile.max_rows}
    return sorted(rows for rows in wanted if rows <= engine.spec.max_rows)


def compute(engine: Engine, columns: Columns, rows: int) -> NDArray[np.float32]:
    """float32[rows, horizon, quantiles] of `columns`, a copy.

    Raises `EngineError`; the engine's slots are all free again afterwards.
    """
    with _slots(engine, every=False) as slots:
        (values,) = _computed_together(engine, slots, [columns], rows)
    return values


@contextmanager
def _slots(engine: Engine, *, every: bool) -> Iterator[list[Slot]]:
    """One free slot, or every one, for so long. Raises `EngineError` if none is free."""
    slots: list[Slot] = []
    try:
        while (every or not slots) and (slot := engine.acquire()) is not None:
            slots.append(slot)
        if not slots:
            raise EngineError("no slot is free")
        yield slots
    finally:
        for slot in slots:
            with suppress(ValueError):  # a batch that didn't come back keeps its slot; the engine goes as a whole
                engine.release(slot)


def _computed_together(
    engine: Engine, slots: Sequence[Slot], batches: Sequence[Columns], rows: int
) -> list[NDArray[np.float32]]:
    """All batches in flight before the first is fetched. After a failure, those that come back are fetched all the same."""
    tickets: list[Ticket] = []
    results = []
    try:
        for slot, columns in zip(slots, batches, strict=True):
            for name, column in slot.columns.items():
                column[:rows] = columns[name]
            tickets.append(engine.submit(slot, rows))
        while tickets:
            results.append(_collected(engine, tickets.pop(0)))
    finally:
        for ticket in tickets:
            with suppress(EngineError):
                _collected(engine, ticket)
    return results


def _collected(engine: Engine, ticket: Ticket) -> NDArray[np.float32]:
    if not engine.wait(ticket, WAIT_S):
        raise EngineError(f"{ticket.rows} rows weren't computed within {WAIT_S:g} s")
    return np.array(engine.collect(ticket).values, np.float32)


def _tiled(golden: Columns, rows: int, first: int = 0) -> tuple[Columns, NDArray[np.intp]]:
    """A batch of golden rows from `first` on, over and over, and which of them each row is."""
    places = (first + np.arange(rows)) % len(next(iter(golden.values())))
    return {name: column[places] for name, column in golden.items()}, places


def _remedy(spec: EngineSpec, error: BaseException) -> str:
    if isinstance(error, TooSlowError):
        return "lower batching.max_rows, use a faster machine, or publish the model with another latency_budget_ms"
    if spec.plan is not None:
        return 'build the plan anew with `engine-build build`, or set engine.runtime to "onnx"'
    return "publish the model anew, together with its card"


def _timed(engine: Engine, columns: Columns, clock: Clock) -> float:
    began_s = clock()
    compute(engine, columns, engine.spec.max_rows)
    return clock() - began_s


def _compare(got: NDArray[np.float32], places: NDArray[np.intp], engine: Engine, card: EngineCard, where: str) -> None:
    """Raise unless row i of `got` is golden row `places[i]` within the plan's or the card's tolerances."""
    expected = np.asarray(card.golden.outputs, np.float32)[places]
    if got.shape != expected.shape:
        raise ProofError(f"{where}: got shape {got.shape}, expected {expected.shape}")
    tolerant = engine.spec.plan or card.golden
    allowed = tolerant.absolute_tolerance + tolerant.relative_tolerance * np.abs(expected)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(got - expected) <= allowed)  # NaN is wrong
    if wrong.any():
        row, day, quantile = (int(i) for i in np.argwhere(wrong)[0])
        raise ProofError(
            f"{where}: row {row}, day {day}, quantile {quantile}: got {got[row, day, quantile]:.6g}, expected "
            f"{expected[row, day, quantile]:.6g} within {allowed[row, day, quantile]:.3g}; "
            f"{int(wrong.sum())} of {wrong.size} numbers differ"
        )

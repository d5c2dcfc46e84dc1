"""Finding the smoother's constants, and writing its folder: model.onnx and card.json."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from demo.events import single_object_header
from demo.series import HORIZON_DAYS, FloatArray, SeriesSet
from demo.smoother import INPUTS, QUANTILES, Constants, forecast, median_and_spread
from demo.smoother_graph import graph_of
from schemas import accuracy
from schemas.accuracy import rounded
from schemas.engine_card import (
    CARD_NAME,
    Accuracy,
    EngineCard,
    GoldenBatch,
    OutputHistogram,
    Profile,
    Tensor,
    sha256_hex,
    write_card,
)
from schemas.load import load_schema

MODEL_NAME: Final = "model.onnx"
VERSION: Final = "1"

_TRIALS: Final = 300
_ORIGIN_STEP_DAYS: Final = 9  # every weekday comes up as an origin
_ORIGINS_FROM: Final = 400  # of the series' days; earlier ones tell less about now
_MAX_ROWS: Final = 20_000
_GOLDEN_ROWS: Final = 4
_EDGES: Final = tuple(round(float(edge), 2) for edge in np.linspace(-2.0, 2.0, 21))
_SHARES: Final = frozenset({"median_share", "level_power", "holiday_factor"})
_FITTED: Final = ("week_weights", "median_share", "decay_days", "level_shrink", "level_power", "eve", "holiday_factor")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """Model inputs and what came after them: float32[rows, 30 | 14]."""

    sales: FloatArray
    holiday: FloatArray
    holiday_next: FloatArray
    actual: FloatArray

    @property
    def inputs(self) -> dict[str, FloatArray]:
        """The model's inputs by name."""
        return {name: getattr(self, name) for name in INPUTS}


def windows_of(series: SeriesSet, as_of_dates: list[int]) -> Windows:
    """All series at all given dates, dates outermost. Without holidays in the data there are none in the windows."""
    events = [series.windows(as_of) for as_of in as_of_dates]
    columns = {
        name: np.concatenate([e.get(name, np.zeros((len(series), width), dtype=np.float32)) for e in events])
        for name, width in INPUTS.items()
    }
    return Windows(**columns, actual=np.concatenate([series.actuals(as_of) for as_of in as_of_dates]))


def fit_dates(series: SeriesSet, test_days: int) -> list[int]:
    """Origins to fit on: those whose whole horizon lies before the first of the last `test_days` origins.

    Raises `ValueError` if none is left.
    """
    dates = series.as_of_dates(len(series.dates))
    first_test = series.as_of_dates(test_days)[0]
    known = [day for day in dates if day + HORIZON_DAYS <= first_test]
    if not known:
        raise ValueError(
            f"{series.name}: {len(dates)} days with a forecast, none left to fit on before {test_days} test days"
        )
    return known[min(_ORIGINS_FROM, len(known) // 2) :: _ORIGIN_STEP_DAYS if len(known) > 100 else 1]


def fit(windows: Windows, *, trials: int = _TRIALS, seed: int = 0) -> Constants:
    """Constants by random search on WAPE per day plus WAPE per total; then the spread's from the errors that are left."""
    random = np.random.default_rng(seed)
    best = Constants()
    lowest = _loss(best, windows)
    for _ in range(trials):
        candidate = _moved(best, random)
        loss = _loss(candidate, windows)
        if loss < lowest:
            best, lowest = candidate, loss
    best = _rounded(best)
    middle, spread = median_and_spread(best, **windows.inputs)
    # Days that the model is sure of (closed: no sales, no spread) say nothing about how wide the quantiles should be.
    errors = np.where(spread > 1e-3, (windows.actual - middle) / np.maximum(spread, 1e-3), np.nan)
    low, high = np.nanquantile(errors, (QUANTILES[0], QUANTILES[2]), axis=0)
    lower = tuple(round(float(max(-value, 0.0)), 4) for value in low)
    upper = tuple(round(float(max(value, 0.0)), 4) for value in high)
    return replace(best, lower=lower, upper=upper)


def build(series: SeriesSet, *, test_days: int, out: Path) -> EngineCard:
    """Fit on the days before the last `test_days` origins, measure on those, and write model.onnx and card.json to `out`.

    Deterministic: the same data give the same bytes.
    """
    random = np.random.default_rng(0)
    dates = fit_dates(series, test_days)
    room = max(_MAX_ROWS // len(dates), 1)
    sample = series.select(np.sort(random.permutation(len(series))[:room]))
    known = windows_of(sample, dates)
    constants = fit(known)
    test = windows_of(sample, series.as_of_dates(test_days))
    out.mkdir(parents=True, exist_ok=True)
    graph = graph_of(constants, name=f"{series.name}-smoother")
    (out / MODEL_NAME).write_bytes(graph.SerializeToString(deterministic=True))
    card = _card(series.name, constants, known, test, sha256_hex(out / MODEL_NAME))
    write_card(card, out / CARD_NAME)
    return card


def load_graph(folder: Path) -> onnx.ModelProto:
    """The graph in a model's folder, checked by ONNX. Raises `OSError` or `onnx.checker.ValidationError`."""
    graph = onnx.load(folder / MODEL_NAME)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _card(name: str, constants: Constants, known: Windows, test: Windows, digest: str) -> EngineCard:
    golden = {
        key: values[:: max(len(values) // _GOLDEN_ROWS, 1)][:_GOLDEN_ROWS] for key, values in known.inputs.items()
    }
    reference = forecast(constants, **golden)
    return EngineCard(
        model=f"{name}-smoother",
        version=VERSION,
        doc="Weekday profile of 28 days with empirical quantiles; demo/smoother.py explains it.",
        inputs=tuple(Tensor(name=key, dtype="float32", shape=("batch", width)) for key, width in INPUTS.items()),
        outputs=(Tensor(name="forecast", dtype="float32", shape=("batch", HORIZON_DAYS, len(QUANTILES))),),
        quantiles=QUANTILES,
        horizon=HORIZON_DAYS,
        profile=Profile(min_rows=1, opt_rows=512, max_rows=4096),
        precision="fp32",
        onnx_sha256=digest,
        schema_fingerprint=single_object_header(dict(load_schema(None, "sku_features")))[2:].hex(),
        golden=GoldenBatch(
            inputs={key: values.tolist() for key, values in golden.items()},
            outputs=[[[round(float(v), 4) for v in day] for day in row] for row in reference],
            relative_tolerance=1e-3,
            absolute_tolerance=1e-3,
        ),
        accuracy={"fp32": accuracy_of(forecast(constants, **test.inputs), test.actual)},
        latency_budget_ms=50.0,
        output_histogram=histogram_of(forecast(constants, **known.inputs), known.sales),
    )


def accuracy_of(forecasts: FloatArray, actual: FloatArray) -> Accuracy:
    """Errors of quantile forecasts float32[rows, 14, 3] against float32[rows, 14], as a card holds them."""
    return rounded(accuracy.accuracy_of(forecasts, actual, QUANTILES))


def histogram_of(forecasts: FloatArray, sales: FloatArray) -> OutputHistogram:
    """The distribution of log(forecast / recent mean) of forecasts float32[rows, horizon, 3], sales float32[rows, days]."""
    recent = sales.mean(axis=1)
    sold = recent > 0
    ratio = np.log(np.maximum(forecasts[sold, :, 1].mean(axis=1), 1e-6) / recent[sold])
    counts, _ = np.histogram(np.clip(ratio, _EDGES[0], _EDGES[-1]), bins=np.array(_EDGES))
    shares = [round(float(count) / max(int(sold.sum()), 1), 6) for count in counts]
    return OutputHistogram(mean_of="sales", edges=list(_EDGES), shares=shares)


def _loss(constants: Constants, windows: Windows) -> float:
    middle, _ = median_and_spread(constants, **windows.inputs)
    daily = np.abs(middle - windows.actual).sum(dtype=np.float64)
    totals = np.abs(middle.sum(axis=1) - windows.actual.sum(axis=1)).sum(dtype=np.float64)
    return float((daily + totals) / windows.actual.sum(dtype=np.float64))


def _moved(constants: Constants, random: np.random.Generator) -> Constants:
    changes: dict[str, object] = {}
    for name in random.choice(_FITTED, 2, replace=False):
        value = getattr(constants, name)
        if name == "week_weights":
            moved = np.array(value) * np.exp(random.normal(0, 0.2, len(value)))
            changes[name] = tuple(float(weight) for weight in moved / moved.max())
        elif name in _SHARES:
            changes[name] = float(np.clip(value + random.normal(0, 0.1), 0, 1))
        elif name == "eve":
            changes[name] = float(value + random.normal(0, 0.05))
        else:
            changes[name] = float(value * np.exp(random.normal(0, 0.3)))
    return replace(constants, **changes)  # type: ignore[arg-type]


def _rounded(constants: Constants) -> Constants:
    """Four decimals, so that another machine's last bits don't make another model."""
    changes: dict[str, object] = {}
    for field in fields(constants):
        value = getattr(constants, field.name)
        changes[field.name] = tuple(round(v, 4) for v in value) if isinstance(value, tuple) else round(value, 4)
    return replace(constants, **changes)  # type: ignore[arg-type]

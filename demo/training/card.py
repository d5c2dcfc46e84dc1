"""The engine card of a trained model: what the worker checks when it loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from demo.events import single_object_header
from demo.series import HORIZON_DAYS, FloatArray, SeriesSet
from demo.smoother_fit import accuracy_of, histogram_of
from demo.training.export import run_onnx
from demo.training.model import QUANTILES
from demo.training.tasks import Task
from demo.training.windows import Windows
from schemas.engine_card import (
    CARD_NAME,
    EngineCard,
    GoldenBatch,
    OutputHistogram,
    Precision,
    Profile,
    Tensor,
    load_card,
    sha256_hex,
    write_card,
)
from schemas.load import load_schema

_GOLDEN_ROWS: Final = 8
_MAX_ROWS: Final = 8192
_DIGITS: Final = 6


def write(
    task: Task, name: str, folder: Path, forecasts: dict[Precision, FloatArray], data: SeriesSet, *, version: str
) -> None:
    """Write `card.json` beside `folder/model.onnx`.

    forecasts: precision -> float32[origins, series, 14, 3] of the test days, for the accuracy of each precision. The golden
    batch comes from the last origin before the test days, and so does the reference distribution, unless the card of the same
    model has one.
    """
    path = folder / "model.onnx"
    windows = Windows(data, task.features.inputs, torch.device("cpu"))
    last = {
        name: field.numpy() for name, field in windows.origin(task.test_start(data) - 1 - HORIZON_DAYS).fields.items()
    }
    inputs = [
        Tensor(name=field, dtype="float32", shape=("batch", *_width(width)))
        for field, width in task.features.inputs.items()
    ]
    actual = np.concatenate([windows.origin(day).actual.numpy() for day in task.origins_from(task.test_start(data))])
    card = EngineCard(
        model=f"{task.name}-{name}",
        version=version,
        doc=_doc(task, name),
        inputs=tuple(inputs),
        outputs=(Tensor(name="forecast", dtype="float32", shape=("batch", HORIZON_DAYS, len(QUANTILES))),),
        quantiles=QUANTILES,
        horizon=HORIZON_DAYS,
        profile=Profile(min_rows=1, opt_rows=4096, max_rows=_MAX_ROWS),
        precision="fp32",
        onnx_sha256=sha256_hex(path),
        schema_fingerprint=single_object_header(dict(load_schema(None, "sku_features")))[2:].hex(),
        golden=_golden(path, last),
        accuracy={kind: accuracy_of(each.reshape(-1, *each.shape[2:]), actual) for kind, each in forecasts.items()},
        output_histogram=_kept_histogram(folder) or histogram_of(run_onnx(path, last), last["sales"]),
    )
    write_card(card, folder / CARD_NAME)


def _kept_histogram(folder: Path) -> OutputHistogram | None:
    """The reference distribution that the card of this very model has already: `demo.output_histogram` takes many days for it."""
    path = folder / CARD_NAME
    if not path.is_file():
        return None
    card = load_card(path)
    return card.output_histogram if card.onnx_sha256 == sha256_hex(folder / "model.onnx") else None


def _width(width: int | None) -> tuple[int, ...]:
    return () if width is None else (width,)


def _golden(path: Path, fields: dict[str, FloatArray]) -> GoldenBatch:
    """Some rows spread over the series, with the outputs that ONNX Runtime gives for them in FP32."""
    count = len(fields["sales"])
    rows = np.linspace(0, count - 1, min(_GOLDEN_ROWS, count)).astype(np.int64)
    inputs = {
        name: np.round(values[rows].astype(np.float64), _DIGITS).astype(np.float32) for name, values in fields.items()
    }
    outputs = run_onnx(path, inputs)
    return GoldenBatch(
        inputs={name: values.tolist() for name, values in inputs.items()},
        outputs=outputs.tolist(),
        relative_tolerance=1e-3,
        absolute_tolerance=1e-3,
    )


def _doc(task: Task, name: str) -> str:
    members = " and ".join(f"{count} {kind}" for kind, count in task.recipes[name].members.items())
    return f"{members} networks averaged, trained on {task.name}: demo/training, docs/accuracy.md."

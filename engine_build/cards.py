"""The card that a build starts from: the model's own, held against its ONNX file, or one made from calibration rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from fastavro.schema import fingerprint, to_parsing_canonical_form

from engine_build.errors import InputError
from engine_build.graph import Graph
from engine_build.onnx_run import Columns, OnnxRun, rows_of
from engine_build.prove import Golden
from schemas.contract import FORECAST
from schemas.engine_card import CARD_NAME, EngineCard, GoldenBatch, Profile, Tensor, load_card

GOLDEN_ROWS: Final = 8
PROOF_ROWS: Final = 256
TOLERANCE: Final = 0.001


def find_card(onnx: Path, given: Path | None) -> EngineCard | None:
    """The card in `given`, or beside `onnx`; None if there is none beside it. Raises `CardError`."""
    path = given or onnx.parent / CARD_NAME
    return load_card(path) if given is not None or path.is_file() else None


def started(
    card: EngineCard | None,
    graph: Graph,
    schema: Mapping[str, Any],
    columns: Columns | None,
    *,
    model: str | None,
    version: str | None,
    profile: Profile | None,
    quantiles: tuple[float, ...],
) -> EngineCard:
    """A card without graphs and plans. With `card`, its facts; else made from `columns` (calibration rows).

    model, version, profile: replace the card's. quantiles: for a new card. Raises `InputError` if card and model differ, or if
    there is neither card nor rows.
    """
    if card is None:
        if columns is None:
            raise InputError(
                str(graph.path),
                ["has no card beside it; name one with --card, or --calibration rows to make a golden batch from"],
            )
        card = _made(graph, schema, columns, model=model or graph.path.parent.name, quantiles=quantiles)
    elif card.onnx_sha256 != graph.sha256:
        raise InputError(
            str(graph.path),
            [f"sha256 is {graph.sha256}, its card says {card.onnx_sha256}; name the card of this model with --card"],
        )
    changes: dict[str, Any] = {"graphs": {}, "plans": (), "signature": None, "golden_file": None}
    changes |= {} if model is None else {"model": model}
    changes |= {} if version is None else {"version": version}
    changes |= {} if profile is None else {"profile": profile}
    return card.model_copy(update=changes)


def golden_of(card: EngineCard, graph: Graph, columns: Columns | None) -> Golden:
    """The card's golden rows and some of `columns`, with what ONNX Runtime computes from them in FP32 here and now.

    Raises `InputError` if that differs from the card's reference by more than the card allows.
    """
    run = OnnxRun(graph.path)
    stated = Golden.of_card(card)
    own, found = stated.inputs, run.forecasts(stated.inputs)
    allowed = card.golden.absolute_tolerance + card.golden.relative_tolerance * np.abs(stated.outputs)
    if not (np.abs(found - stated.outputs) <= allowed).all():
        worst = float(np.abs(found - stated.outputs).max())
        raise InputError(
            str(graph.path),
            [
                f"ONNX Runtime differs from the card's golden batch by up to {worst:.3g}; publish model and card together"
            ],
        )
    if columns is None:
        return Golden(inputs=own, outputs=found)
    more = rows_of(columns, 0, PROOF_ROWS)
    inputs = {name: np.concatenate([own[name], more[name]]) for name in own}
    return Golden(inputs=inputs, outputs=np.concatenate([found, run.forecasts(more)]))


def _made(
    graph: Graph, schema: Mapping[str, Any], columns: Columns, *, model: str, quantiles: tuple[float, ...]
) -> EngineCard:
    if len(quantiles) != graph.quantiles:
        raise InputError(
            str(graph.path),
            [f"gives {graph.quantiles} quantiles, --quantiles names {len(quantiles)}: {list(quantiles)}"],
        )
    rows = rows_of(columns, 0, GOLDEN_ROWS)
    outputs = OnnxRun(graph.path).forecasts(rows)
    if not np.isfinite(outputs).all():
        raise InputError(str(graph.path), ["gives forecasts that aren't finite for calibration rows; mend the model"])
    shapes = {name: ("batch",) if width is None else ("batch", width) for name, width in graph.inputs.items()}
    return EngineCard(
        model=model,
        version="1",
        inputs=tuple(Tensor(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()),  # type: ignore[arg-type]
        outputs=(Tensor(name=FORECAST, dtype="float32", shape=("batch", graph.horizon, graph.quantiles)),),
        quantiles=quantiles,
        horizon=graph.horizon,
        profile=Profile(min_rows=1, opt_rows=512, max_rows=8192),
        precision="fp32",
        onnx_sha256=graph.sha256,
        schema_fingerprint=fingerprint(to_parsing_canonical_form(dict(schema)), "CRC-64-AVRO"),
        golden=GoldenBatch(
            inputs={name: values.tolist() for name, values in rows.items() if name in graph.inputs},
            outputs=outputs.tolist(),
            relative_tolerance=TOLERANCE,
            absolute_tolerance=TOLERANCE,
        ),
        accuracy={},
    )

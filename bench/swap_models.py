"""Versions of a committed model for the benchmarks of swaps: sound ones, and one broken kind after the other.

All compute what the committed model does, unless their kind says otherwise; their bytes differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from schemas.engine_card import CARD_NAME, EngineCard, Plan, load_card, sha256_hex, write_card
from schemas.model_store import MODEL_NAME
from tests.helpers.cards import plan_content
from tests.helpers.store import truncated, with_card

NAN_BELOW = 60.0
"""Rows that sell less per day become NaN in that kind. The golden rows of `bakery-smoother` sell more, half of the live rows less."""
DRIFT = 1.3
TIMES_SLOWER = 10

Spoiler = Callable[[Path], None]
Made = Callable[..., Path]


def versions_of(base: Path, *, ballast: int = 0, budget_ms: float | None = None) -> Made:
    """What `TestStore` makes versions with: copies of the model in `base`, under another name.

    ballast: columns of useless work per row, to make rows cost what is wanted. budget_ms: the card's, for a full batch.
    """

    def make(folder: Path, *, version: str) -> Path:
        folder.mkdir(parents=True)
        (folder / MODEL_NAME).write_bytes((base / MODEL_NAME).read_bytes())
        changes: dict[str, object] = {"version": version, "plans": (), "graphs": {}}
        if budget_ms is not None:
            changes["latency_budget_ms"] = budget_ms
        write_card(load_card(base / CARD_NAME).model_copy(update=changes), folder / CARD_NAME)
        if ballast:
            with_ballast(ballast)(folder)
        return folder

    return make


def with_ballast(columns: int) -> Spoiler:
    """More work for each row, which changes no number: a matrix of `columns` columns, its sine, times zero."""

    def spoil(folder: Path) -> None:
        weights = np.random.default_rng(7).normal(size=(30, columns)).astype(np.float32)
        _append(
            folder,
            [
                helper.make_node("MatMul", ["sales", "ballast"], ["b_product"]),
                helper.make_node("Sin", ["b_product"], ["b_sine"]),
                helper.make_node("ReduceMean", ["b_sine"], ["b_mean"], axes=[1], keepdims=1),
                helper.make_node("Mul", ["b_mean", "b_zero"], ["b_nothing"]),
                helper.make_node("Unsqueeze", ["b_nothing", "b_axis"], ["b_cube"]),
                helper.make_node("Add", ["before", "b_cube"], ["forecast"]),
            ],
            {"ballast": weights, "b_zero": np.float32(0.0), "b_axis": np.array([1], np.int64)},
        )

    return spoil


def drifted(folder: Path) -> None:
    """Everything times `DRIFT`, and the card says so too: its golden batch holds."""
    _append(folder, [helper.make_node("Mul", ["before", "d_factor"], ["forecast"])], {"d_factor": np.float32(DRIFT)})
    card = load_card(folder / CARD_NAME)
    outputs = (np.asarray(card.golden.outputs, np.float32) * np.float32(DRIFT)).tolist()
    golden = card.golden.model_copy(update={"outputs": outputs})
    write_card(EngineCard.model_validate(card.model_copy(update={"golden": golden}).model_dump()), folder / CARD_NAME)


def nan_on_live_rows(folder: Path) -> None:
    """NaN for rows that sell little; the golden rows don't, so only live rows show it."""
    _append(
        folder,
        [
            helper.make_node("ReduceMean", ["sales"], ["n_mean"], axes=[1], keepdims=1),
            helper.make_node("Less", ["n_mean", "n_least"], ["n_flat"]),
            helper.make_node("Unsqueeze", ["n_flat", "n_axis"], ["n_bad"]),
            helper.make_node("Where", ["n_bad", "n_nan", "before"], ["forecast"]),
        ],
        {"n_least": np.float32(NAN_BELOW), "n_axis": np.array([1], np.int64), "n_nan": np.float32(np.nan)},
    )


def nan_everywhere(folder: Path) -> None:
    """NaN for every row, the golden ones among them."""
    _append(folder, [helper.make_node("Mul", ["before", "n_nan"], ["forecast"])], {"n_nan": np.float32(np.nan)})


def for_another_gpu(folder: Path) -> None:
    """The card names plans, all of them for a GPU that isn't here."""
    with_card(plans=(Plan.model_validate(plan_content(profiles=[_profile(folder)])),))(folder)


def broken_kinds(slower: int) -> Mapping[str, Spoiler]:
    """Kind -> what makes a version one of it. slower: columns of ballast that make a row cost `TIMES_SLOWER` times as much."""
    return {
        "truncated": truncated,
        "wrong digest": with_card(onnx_sha256="0" * 64),
        "wrong GPU": for_another_gpu,
        "NaN, golden batch": nan_everywhere,
        "NaN, live rows": nan_on_live_rows,
        "ten times slower": with_ballast(slower),
        "drifted": drifted,
    }


def _profile(folder: Path) -> dict[str, Any]:
    return load_card(folder / CARD_NAME).profile.model_dump()


def _append(
    folder: Path, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, NDArray[Any] | np.generic[Any]]
) -> None:
    """Put `nodes` behind the graph's output, which they know as `before`, and have the card's digest follow."""
    path = folder / MODEL_NAME
    model = onnx.load_model_from_string(path.read_bytes())
    for node in model.graph.node:
        node.output[:] = ["before" if name == "forecast" else name for name in node.output]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    with_card(onnx_sha256=sha256_hex(path))(folder)

"""The contract between an event and a model, as `schemas/contract.py` checks it, with this package's error. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas import contract
from schemas.contract import FORECAST, NUMBERS, Tensor
from schemas.engine_card import EngineCard
from worker.engine import EngineSpec
from worker.errors import ContractError

__all__ = ["FORECAST", "NUMBERS", "Tensor", "check_output", "inputs_of", "spec_of"]


def spec_of(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    card: EngineCard,
    schema: Mapping[str, Any],
    *,
    max_rows: int,
    precision: str,
    digest: str,
) -> EngineSpec:
    """What an engine of these tensors takes and gives, held against the feature schema and its card.

    precision, digest: of the bytes that compute, `model.onnx` or a plan. Raises `ContractError` if they don't fit.
    """
    widths = inputs_of(inputs, schema)
    check_output(outputs, card.horizon, card.quantiles)
    return EngineSpec(
        inputs=widths,
        horizon=card.horizon,
        quantiles=card.quantiles,
        max_rows=max_rows,
        model=card.model,
        version=card.version,
        precision=precision,
        digest=digest,
    )


def inputs_of(tensors: Sequence[Tensor], schema: Mapping[str, Any]) -> dict[str, int | None]:
    """See `schemas.contract.inputs_of`. Raises `ContractError` that lists every input that doesn't fit."""
    try:
        return contract.inputs_of(tensors, schema)
    except contract.MismatchError as error:
        raise ContractError(str(error)) from error


def check_output(tensors: Sequence[Tensor], horizon: int, quantiles: Sequence[float]) -> None:
    """See `schemas.contract.check_output`. Raises `ContractError` unless the only output is the forecast as the card says."""
    try:
        contract.check_output(tensors, horizon, quantiles)
    except contract.MismatchError as error:
        raise ContractError(str(error)) from error

"""The contract between an event and a model, as `schemas/contract.py` checks it, with this package's error. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas import contract
from schemas.contract import FORECAST, NUMBERS, Tensor
from worker.errors import ContractError

__all__ = ["FORECAST", "NUMBERS", "Tensor", "check_output", "inputs_of"]


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

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.engine_card import EngineCard, parse_card
from schemas.plan_choice import Gpu, PlanRuntime, missing_plan_message, select_plan
from tests.helpers.cards import card_content, plan_content

H200 = Gpu(name="NVIDIA H200", compute_capability="9.0", free_bytes=1 << 30)
TRT = PlanRuntime(name="tensorrt", version="8.6.1")
RTX = PlanRuntime(name="tensorrt_rtx", version="1.7.1.116")


def card(*plans: dict[str, Any]) -> EngineCard:
    return parse_card(json.dumps(card_content(plans=list(plans))))


def test_the_first_that_fits_is_taken() -> None:
    choice = select_plan(
        card(
            plan_content(file="plans/a.plan", gpu="NVIDIA L4", compute_capabilities=["8.9"]),
            plan_content(file="plans/b.plan"),
            plan_content(file="plans/c.plan"),
        ),
        H200,
        [RTX, TRT],
    )
    assert choice.plan is not None
    assert choice.plan.file == "plans/b.plan"
    assert choice.rejected == (
        "plans/a.plan: built for compute capability 8.9, this GPU has 9.0; built on NVIDIA L4, this GPU is NVIDIA H200",
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"runtime_version": "8.6.0"}, "built by TensorRT 8.6.0, here is TensorRT 8.6.1"),
        ({"runtime": "tensorrt_rtx"}, "built by TensorRT-RTX 8.6.1, here is TensorRT 8.6.1"),
        ({"compute_capabilities": ["8.0", "8.9"]}, "built for compute capability 8.0, 8.9, this GPU has 9.0"),
        ({"gpu": "NVIDIA H100 NVL"}, "built on NVIDIA H100 NVL, this GPU is NVIDIA H200"),
        (
            {"profiles": [{"min_rows": 1, "opt_rows": 8, "max_rows": 15}]},
            "takes 15 rows at most, 16 are asked for",
        ),
        ({"precision": "int8"}, "is int8, fp16 is asked for"),
        ({"device_memory_bytes": 3 << 30}, "needs 3,072 MiB of device memory, 1,024 MiB are free"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], why: str) -> None:
    published = card(plan_content(**changes))
    choice = select_plan(published, H200, [TRT], rows=16, precision="fp16")
    assert choice.plan is None
    assert choice.rejected == (f"{published.plans[0].file}: {why}",)
    message = missing_plan_message(published, H200, [TRT], choice)
    assert message.startswith("test version 1 has no plan for NVIDIA H200 (compute capability 9.0) and TensorRT 8.6.1:")
    assert why in message
    assert "engine-build build" in message


def test_a_plan_for_a_compute_capability_fits_every_gpu_that_has_it() -> None:
    portable = plan_content(
        gpu=None, runtime="tensorrt_rtx", runtime_version="1.7.1.116", compute_capabilities=["8.0", "8.9"]
    )
    for name in ("NVIDIA L4", "NVIDIA L40S"):
        assert select_plan(card(portable), Gpu(name=name, compute_capability="8.9"), [RTX]).plan is not None


def test_memory_that_nobody_knows_is_no_reason_against_a_plan() -> None:
    published = card(plan_content(device_memory_bytes=3 << 40))
    assert select_plan(published, Gpu(name="NVIDIA H200", compute_capability="9.0"), [TRT]).plan is not None


def test_without_plans_and_runtime_the_message_still_says_what_to_do() -> None:
    message = missing_plan_message(card(), H200, [], select_plan(card(), H200, []))
    assert "and no TensorRT:\n  - the card names no plans\n" in message

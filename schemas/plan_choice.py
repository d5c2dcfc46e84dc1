"""Which of a version's plans a GPU may load, and why not the others. Pure: facts in, a choice out.

A plan runs on the GPU type and the runtime that it was built for and on no other; TensorRT finds out late, or not at all. So
the card is asked before any byte is read. Workers and `engine-build` use the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.engine_card import EngineCard, Plan, Precision

RuntimeName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A device. name: as the driver gives it. compute_capability: "9.0". free_bytes: of its memory now, None if not known."""

    name: str
    compute_capability: str
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRuntime:
    """A library that loads plans. version: all of it, as the library says it ("8.6.1", "1.7.1.116")."""

    name: RuntimeName
    version: str

    def __str__(self) -> str:
        return f"{'TensorRT' if self.name == 'tensorrt' else 'TensorRT-RTX'} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """plan: the one to load, None if none fits. rejected: those before it in the card, or all: file and why not."""

    plan: Plan | None
    rejected: tuple[str, ...]


def select_plan(
    card: EngineCard,
    gpu: Gpu,
    runtimes: Sequence[PlanRuntime],
    *,
    rows: int = 1,
    precision: Precision | None = None,
) -> Choice:
    """The first plan of the card that fits: the card lists plans for one GPU type in order of preference.

    Args:
        card: of the version.
        gpu: where it shall run.
        runtimes: what can load plans here.
        rows: the largest batch that will be asked for.
        precision: only plans of this one; None takes any.
    """
    rejected: list[str] = []
    for plan in card.plans:
        problems = plan_problems(plan, gpu, runtimes, rows=rows, precision=precision)
        if not problems:
            return Choice(plan=plan, rejected=tuple(rejected))
        rejected.append(f"{plan.file}: {'; '.join(problems)}")
    return Choice(plan=None, rejected=tuple(rejected))


def plan_problems(
    plan: Plan, gpu: Gpu, runtimes: Sequence[PlanRuntime], *, rows: int = 1, precision: Precision | None = None
) -> tuple[str, ...]:
    """Why `plan` can't serve here, one clause each; empty if it can. Arguments as for `select_plan`."""
    problems = []
    built_by = PlanRuntime(name=plan.runtime, version=plan.runtime_version)
    if built_by not in runtimes:
        here = ", ".join(map(str, runtimes)) or "none"
        problems.append(f"built by {built_by}, here is {here}")
    if gpu.compute_capability not in plan.compute_capabilities:
        wanted = ", ".join(plan.compute_capabilities)
        problems.append(f"built for compute capability {wanted}, this GPU has {gpu.compute_capability}")
    if plan.gpu is not None and plan.gpu != gpu.name:
        problems.append(f"built on {plan.gpu}, this GPU is {gpu.name}")
    largest = max(profile.max_rows for profile in plan.profiles)
    if rows > largest:
        problems.append(f"takes {largest} rows at most, {rows} are asked for")
    if precision is not None and plan.precision != precision:
        problems.append(f"is {plan.precision}, {precision} is asked for")
    if plan.device_memory_bytes is not None and gpu.free_bytes is not None:
        problems.extend(_memory_problems(plan.device_memory_bytes, gpu.free_bytes))
    return tuple(problems)


def missing_plan_message(card: EngineCard, gpu: Gpu, runtimes: Sequence[PlanRuntime], choice: Choice) -> str:
    """What to tell when `choice` has no plan: got, expected, remedy."""
    here = " or ".join(map(str, runtimes)) or "no TensorRT"
    where = f"{gpu.name} (compute capability {gpu.compute_capability}) and {here}"
    lines = [
        f"{card.model} version {card.version} has no plan for {where}:",
        *(f"  - {each}" for each in choice.rejected or ("the card names no plans",)),
        "run `engine-build build` for this version on a machine of this type, or serve the ONNX file",
    ]
    return "\n".join(lines)


def _memory_problems(needed_bytes: int, free_bytes: int) -> list[str]:
    if needed_bytes <= free_bytes:
        return []
    return [f"needs {needed_bytes / 2**20:,.0f} MiB of device memory, {free_bytes / 2**20:,.0f} MiB are free"]

"""Which engine a model gets: TensorRT with a plan that fits this GPU, or ONNX Runtime on the CPU.

    engine.runtime      auto: TensorRT if the card names plans, else ONNX Runtime · tensorrt · onnx
    on_missing_plan     what to do if no plan fits: fail (stop, with the remedy) · onnx · build (by `engine-build`, once)

A plan whose file is damaged is none that doesn't fit: that always stops the worker, for somebody changed a published version.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from schemas.card_signature import SignatureError, load_public_keys, load_signed_card
from schemas.engine_card import CARD_NAME, EngineCard, Precision, load_card
from schemas.model_store import is_store
from schemas.plan_choice import Gpu, PlanRuntime, RuntimeName, missing_plan_message, select_plan
from worker.cuda import Cuda, NoGpuError, load_cuda
from worker.engine import Engine
from worker.errors import ContractError
from worker.onnx_engine import OnnxEngine
from worker.preflight import rows_per_batch
from worker.settings_model import Settings
from worker.tensorrt_load import Device, PlanMisfitError, load_engine
from worker.tensorrt_runtime import RuntimeMissingError, TensorRtLibrary, load_library

log = structlog.get_logger(__name__)

BUILD_TIMEOUT_S: Final = 900.0
SAID_CHARACTERS: Final = 2000


class MissingPlanError(ContractError):
    """No plan of the version fits this GPU and TensorRT. The message says what was found, what is here, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How to reach the GPU and TensorRT here.

    cuda: raises `NoGpuError`. library: raises `RuntimeMissingError`. run: a command, returns its exit code and what it said.
    """

    cuda: Callable[[], Cuda] = load_cuda
    library: Callable[[RuntimeName], TensorRtLibrary] = load_library
    run: Callable[[Sequence[str]], tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What of a machine matters to the plans of one card. absent: why libraries that they need aren't here."""

    cuda: Cuda
    gpu: Gpu
    libraries: Mapping[RuntimeName, TensorRtLibrary]
    absent: tuple[str, ...]

    @property
    def runtimes(self) -> list[PlanRuntime]:
        """What can load plans here."""
        return [library.runtime for library in self.libraries.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An ONNX file with its card, in a folder where the card's plans lie too."""

    path: Path
    card: EngineCard

    @property
    def folder(self) -> Path:
        """Of the version."""
        return self.path.parent


def load_model(
    settings: Settings, path: Path, card: EngineCard, schema: Mapping[str, Any], machine: Machine | None = None
) -> Engine:
    """The engine for the model in `path`, by the settings' section `engine`.

    Args:
        settings: the worker's.
        path: the ONNX file. The card's plans lie below its folder.
        card: beside it.
        schema: the feature schema.
        machine: this one, if None.

    Raises `ContractError` if `engine.trusted_keys` are set and the card isn't signed by any, `MissingPlanError`, and what `OnnxEngine.load` and `tensorrt_load.load_engine` raise.
    """
    here, model = machine or this_machine(), Model(path=path, card=card)
    wanted = settings.engine
    if wanted.runtime == "onnx" or (wanted.runtime == "auto" and not card.plans):
        return load_onnx(settings, model, schema)
    try:
        return _with_plan(settings, model, schema, here)
    except (MissingPlanError, PlanMisfitError, NoGpuError) as error:
        if wanted.on_missing_plan == "onnx":
            log.warning("no plan fits: ONNX Runtime serves on the CPU, much slower", reason=str(error))
            return load_onnx(settings, model, schema)
        if wanted.on_missing_plan == "build" and not isinstance(error, NoGpuError):
            built = _built(model, str(error), here)
            return _with_plan(settings, built, schema, here)
        raise


def _require_trusted(settings: Settings, model: Model) -> None:
    """Raise `ContractError` unless a key of `engine.trusted_keys`, if there are any, signed this very card."""
    paths = settings.engine.trusted_keys
    if not paths:
        return
    path = model.folder / CARD_NAME
    try:
        signed = load_signed_card(path, load_public_keys(paths))
    except SignatureError as error:
        raise ContractError(f"engine.trusted_keys: {error}") from error
    if signed != model.card:
        raise ContractError(f"engine.trusted_keys: {path} was replaced while it was read; load it again")


def _with_plan(settings: Settings, model: Model, schema: Mapping[str, Any], machine: Machine) -> Engine:
    """The engine with the first plan that fits. Raises `NoGpuError`, `MissingPlanError`."""
    _require_trusted(settings, model)
    here = what_is_here(model.card, machine)
    rows = rows_per_batch(settings, model.card)
    choice = select_plan(model.card, here.gpu, here.runtimes, rows=rows)
    if choice.plan is None:
        said = missing_plan_message(model.card, here.gpu, here.runtimes, choice)
        raise MissingPlanError("\n".join([said, *here.absent, 'or set engine.on_missing_plan to "build" or "onnx"']))
    device = Device(cuda=here.cuda, library=here.libraries[choice.plan.runtime])
    engine = load_engine(
        model.folder / choice.plan.file,
        choice.plan,
        model.card,
        schema,
        device,
        slots=settings.engine.slots,
        max_rows=rows,
    )
    log.info("plan loaded", plan=choice.plan.file, gpu=here.gpu.name, runtime=str(device.library.runtime))
    return engine


def what_is_here(card: EngineCard, machine: Machine) -> Here:
    """The GPU, and the libraries that the card's plans ask for. Raises `NoGpuError`."""
    cuda = machine.cuda()
    gpu = cuda.gpu()
    libraries: dict[RuntimeName, TensorRtLibrary] = {}
    absent = []
    for name in dict.fromkeys(plan.runtime for plan in card.plans):
        try:
            libraries[name] = machine.library(name)
        except RuntimeMissingError as error:
            absent.append(f"  - {error}")
    return Here(cuda=cuda, gpu=gpu, libraries=libraries, absent=tuple(absent))


def load_standby(settings: Settings, model: Model, schema: Mapping[str, Any], engine: Engine) -> Engine | None:
    """What computes `model` while the device of `engine`, which was made of it, has no memory left: ONNX Runtime on the CPU.

    None if `engine` needs no device, or by `engine.standby`. Raises as `load_onnx` does.
    """
    if settings.engine.standby == "off" or isinstance(engine, OnnxEngine):
        return None
    return load_onnx(settings, model, schema)


def this_machine() -> Machine:
    """The one that this process runs on."""
    return Machine(run=_run)


def _built(model: Model, missing: str, machine: Machine) -> Model:
    """The model with a plan for this GPU, built by `engine-build` in a process of its own: a worker imports no builder."""
    store = model.folder.parent
    if not is_store(store):
        raise MissingPlanError(f"{missing}\nno plan can be built: {model.folder} isn't a version of a published model")
    if importlib.util.find_spec("engine_build") is None:
        raise MissingPlanError(f"{missing}\nno plan can be built: engine_build isn't installed here")
    command = build_command(model, store)
    log.warning("no plan fits: building one", reason=missing, command=" ".join(command))
    code, said = machine.run(command)
    if code != 0:
        raise MissingPlanError(
            f"{missing}\n`{' '.join(command)}` exited with {code}:\n{said[-SAID_CHARACTERS:].strip()}"
        )
    return Model(path=model.path, card=load_card(model.folder / CARD_NAME))


def build_command(model: Model, store: Path) -> list[str]:
    """What builds a plan for this GPU into the version, at the precision that its plans have so far and for the card's profile."""
    card = model.card
    precision: Precision = card.plans[0].precision if card.plans else card.precision
    return [
        *(sys.executable, "-m", "engine_build", "build", "--onnx", str(model.path)),
        *("--precision", precision, "--out", str(store.parent)),
    ]


def load_onnx(settings: Settings, model: Model, schema: Mapping[str, Any]) -> Engine:
    """The model through ONNX Runtime on the CPU. Raises as `OnnxEngine.load` does, and `ContractError` as `load_model` does."""
    _require_trusted(settings, model)
    return OnnxEngine.load(
        model.path,
        model.card,
        schema,
        slots=settings.engine.slots,
        max_rows=rows_per_batch(settings, model.card),
        threads=settings.engine.threads,
    )


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(  # noqa: S603 - our own module, with paths from the settings
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"it didn't end within {BUILD_TIMEOUT_S:g} s"
    return done.returncode, done.stdout

"""Which engine a model gets, by its card, the settings and what is here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.card_signature import signed
from schemas.engine_card import CARD_NAME, EngineCard, Plan, load_card, write_card
from schemas.model_store import CURRENT_NAME
from tests.helpers.gpu_engines import INPUTS, FakeGpu, PlanFolder, plan_of
from tests.helpers.models import schema_for
from tests.helpers.simulated_cuda import FakeCuda
from worker.cuda import NoGpuError
from worker.engine import Engine
from worker.errors import ContractError, OutOfDeviceMemoryError
from worker.onnx_engine import OnnxEngine
from worker.plan_loading import Machine, MissingPlanError, Model, build_command, load_model
from worker.settings import Settings, load_settings
from worker.tensorrt_engine import TensorRtEngine
from worker.tensorrt_load import PlanMisfitError
from worker.tensorrt_runtime import RuntimeMissingError


def settings_for(folder: Path, *more: str) -> Settings:
    return load_settings(
        None,
        [
            *("kafka.bootstrap.servers=localhost:9092", "delivery.transactional_id=t", f"engine.model={folder}"),
            *("batching.max_rows=16", *more),
        ],
        {},
    )


@dataclass
class Place:
    """A published version with the plans that a test gives its card, and a machine."""

    version: PlanFolder
    gpu: FakeGpu = field(default_factory=FakeGpu)
    commands: list[Sequence[str]] = field(default_factory=list)
    built: Plan | None = None
    """What a build adds to the card."""
    exit_code: int = 0

    @property
    def machine(self) -> Machine:
        return Machine(cuda=lambda: self.gpu.cuda, library=lambda _: self.gpu.device.library, run=self.run)

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        self.commands.append(command)
        if self.built is not None:
            self.publish(self.built)
        return self.exit_code, "the builder's last words"

    def publish(self, *plans: Plan) -> None:
        folder = self.version.folder
        write_card(load_card(folder / CARD_NAME).model_copy(update={"plans": plans}), folder / CARD_NAME)

    def load(self, *settings: str, machine: Machine | None = None) -> Engine:
        folder = self.version.folder
        return load_model(
            settings_for(folder, *settings),
            folder / "model.onnx",
            self.card,
            schema_for(INPUTS),
            machine or self.machine,
        )

    @property
    def card(self) -> EngineCard:
        return load_card(self.version.folder / CARD_NAME)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    store = tmp_path / "models" / "tiny"
    store.mkdir(parents=True)
    (store / CURRENT_NAME).write_text("1\n")
    return Place(PlanFolder(store / "1"))


def fits(place: Place, **changes: Any) -> Plan:
    return plan_of(place.version.content, **changes)


def test_a_card_with_a_plan_that_fits_gets_tensorrt(place: Place) -> None:
    place.publish(fits(place, gpu="Other GPU", file="plans/other.plan"), fits(place))
    with structlog.testing.capture_logs() as logs:
        engine = place.load()
    assert isinstance(engine, TensorRtEngine)
    assert engine.spec.max_rows == 16
    assert logs == [
        {
            "event": "plan loaded",
            "gpu": "Fake GPU",
            "log_level": "info",
            "plan": "plans/fake.plan",
            "runtime": "TensorRT 8.6.1",
        }
    ]
    engine.close()
    place.gpu.assert_empty()


def test_a_card_without_plans_gets_onnx_runtime(place: Place) -> None:
    assert isinstance(place.load(), OnnxEngine)
    assert place.gpu.api.calls == []


def test_onnx_means_onnx(place: Place) -> None:
    place.publish(fits(place))
    assert isinstance(place.load("engine.runtime=onnx"), OnnxEngine)
    assert place.gpu.api.calls == []


def test_tensorrt_means_a_plan(place: Place) -> None:
    with pytest.raises(MissingPlanError, match=r"no plan for Fake GPU.*\n.*the card names no plans"):
        place.load("engine.runtime=tensorrt")


def test_a_missing_plan_says_what_was_found_what_is_here_and_what_to_do(place: Place) -> None:
    place.publish(
        fits(place, runtime_version="8.5.3", file="plans/a.plan"),
        fits(place, compute_capabilities=("8.0",), gpu="NVIDIA A100", file="plans/b.plan"),
    )
    with pytest.raises(MissingPlanError) as caught:
        place.load()
    assert str(caught.value) == (
        "tiny version 1 has no plan for Fake GPU (compute capability 9.0) and TensorRT 8.6.1:\n"
        "  - plans/a.plan: built by TensorRT 8.5.3, here is TensorRT 8.6.1\n"
        "  - plans/b.plan: built for compute capability 8.0, this GPU has 9.0; built on NVIDIA A100, this GPU is Fake GPU\n"
        "run `engine-build build` for this version on a machine of this type, or serve the ONNX file\n"
        'or set engine.on_missing_plan to "build" or "onnx"'
    )
    assert caught.value.exit_code == 2
    place.gpu.assert_empty()


def test_a_library_that_is_not_there_is_said(place: Place) -> None:
    place.publish(fits(place))

    def missing(name: str) -> Any:
        raise RuntimeMissingError(f"{name} can't be loaded: no module")

    machine = Machine(cuda=lambda: place.gpu.cuda, library=missing, run=place.run)
    with pytest.raises(MissingPlanError, match=r"no TensorRT(?s:.*)tensorrt can't be loaded: no module"):
        place.load(machine=machine)


def no_gpu() -> Any:
    raise NoGpuError("no usable GPU: none")


@pytest.mark.parametrize("policy", ["fail", "build"])
def test_without_a_gpu_there_is_nothing_to_build_for(place: Place, policy: str) -> None:
    place.publish(fits(place))
    machine = Machine(cuda=no_gpu, run=place.run)
    with pytest.raises(NoGpuError, match="no usable GPU"):
        place.load(f"engine.on_missing_plan={policy}", machine=machine)
    assert place.commands == []


def test_onnx_runtime_serves_without_a_gpu_if_that_is_wanted(place: Place) -> None:
    place.publish(fits(place))
    with structlog.testing.capture_logs() as logs:
        engine = place.load("engine.on_missing_plan=onnx", machine=Machine(cuda=no_gpu, run=place.run))
    assert isinstance(engine, OnnxEngine)
    assert logs[0]["log_level"] == "warning"
    assert logs[0]["reason"] == "no usable GPU: none"


def test_onnx_runtime_serves_when_tensorrt_refuses_the_plan(place: Place) -> None:
    place.gpu = FakeGpu(FakeCuda(capability=(8, 0)))
    place.publish(fits(place, compute_capabilities=("8.0",)))  # the card says so; the plan's bytes don't
    with pytest.raises(PlanMisfitError, match=r"the plan is for compute 9\.0, this device is compute 8\.0"):
        place.load()
    assert isinstance(place.load("engine.on_missing_plan=onnx"), OnnxEngine)
    place.gpu.assert_empty()


@pytest.mark.parametrize("policy", ["onnx", "build"])
def test_a_damaged_plan_always_stops(place: Place, policy: str) -> None:
    place.publish(fits(place, sha256="0" * 64))
    with pytest.raises(ContractError, match="damaged or was replaced"):
        place.load(f"engine.on_missing_plan={policy}")
    assert place.commands == []


def test_too_little_memory_is_no_missing_plan(place: Place) -> None:
    place.gpu = FakeGpu(FakeCuda(total_bytes=4000))
    place.publish(fits(place))
    with pytest.raises(OutOfDeviceMemoryError):
        place.load("engine.on_missing_plan=onnx")
    place.publish(fits(place, device_memory_bytes=5000))
    assert isinstance(place.load("engine.on_missing_plan=onnx"), OnnxEngine)


def test_a_plan_is_built_and_then_loaded(place: Place) -> None:
    place.publish(fits(place, compute_capabilities=("8.0",), precision="int8"))
    place.built = fits(place)
    with structlog.testing.capture_logs() as logs:
        engine = place.load("engine.on_missing_plan=build")
    assert isinstance(engine, TensorRtEngine)
    assert engine.spec.plan == place.built  # so that it is proved by what was said of it, not by a card from before
    model = place.version.folder / "model.onnx"
    models = place.version.folder.parents[1]
    assert place.commands == [
        [
            *(sys.executable, "-m", "engine_build", "build", "--onnx", str(model)),
            *("--precision", "int8", "--out", str(models)),
        ]
    ]
    assert logs[0]["event"] == "no plan fits: building one"
    engine.close()


def test_a_build_that_fails_says_both(place: Place) -> None:
    place.publish(fits(place, compute_capabilities=("8.0",)))
    place.exit_code = 1
    with pytest.raises(MissingPlanError, match=r"(?s)has no plan for.*engine_build build.*exited with 1.*last words"):
        place.load("engine.on_missing_plan=build")


def test_a_build_that_does_not_help_is_not_repeated(place: Place) -> None:
    place.publish(fits(place, compute_capabilities=("8.0",)))
    with pytest.raises(MissingPlanError, match="has no plan for"):
        place.load("engine.on_missing_plan=build")
    assert len(place.commands) == 1


def test_only_a_published_version_can_get_a_plan(place: Place) -> None:
    (place.version.folder.parent / CURRENT_NAME).unlink()
    place.publish(fits(place, compute_capabilities=("8.0",)))
    with pytest.raises(MissingPlanError, match=r"no plan can be built: .* isn't a version of a published model"):
        place.load("engine.on_missing_plan=build")


def test_without_the_builder_nothing_is_built(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.plan_loading.importlib.util.find_spec", lambda _: None)
    place.publish(fits(place, compute_capabilities=("8.0",)))
    with pytest.raises(MissingPlanError, match="engine_build isn't installed here"):
        place.load("engine.on_missing_plan=build")


def test_the_first_plan_is_built_at_the_cards_precision(place: Place) -> None:
    model = Model(path=place.version.folder / "model.onnx", card=place.card)
    assert build_command(model, Path("store"))[7] == "fp32"


def test_both_engines_of_a_version_agree(place: Place) -> None:
    place.publish(fits(place))
    values = []
    for runtime in ("tensorrt", "onnx"):
        engine = place.load(f"engine.runtime={runtime}")
        slot = engine.acquire()
        assert slot is not None
        for name, column in slot.columns.items():
            column[:5] = np.arange(5.0).reshape(5, *[1] * (column.ndim - 1)) + len(name)
        values.append(engine.collect(engine.submit(slot, 5)).values.copy())
        engine.close()
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


def public_key_in(folder: Path, key: Ed25519PrivateKey) -> Path:
    path = folder / "trusted.pem"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_only_a_card_that_a_trusted_key_signed_is_loaded(place: Place, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    only = ("engine.runtime=onnx", f"engine.trusted_keys={public_key_in(tmp_path, key)}")
    with pytest.raises(ContractError, match=r"engine\.trusted_keys: .* isn't signed; sign it with `engine-build sign`"):
        place.load(*only)
    write_card(signed(place.card, Ed25519PrivateKey.generate()), place.version.folder / CARD_NAME)
    with pytest.raises(ContractError, match=r"engine\.trusted_keys: "):
        place.load(*only)
    write_card(signed(place.card, key), place.version.folder / CARD_NAME)
    assert isinstance(place.load(*only), OnnxEngine)


def test_a_card_that_changed_after_it_was_read_is_refused(place: Place, tmp_path: Path) -> None:
    key, folder = Ed25519PrivateKey.generate(), place.version.folder
    read_before = place.card
    write_card(signed(read_before, key), folder / CARD_NAME)
    settings = settings_for(folder, "engine.runtime=onnx", f"engine.trusted_keys={public_key_in(tmp_path, key)}")
    with pytest.raises(ContractError, match="was replaced while it was read"):
        load_model(settings, folder / "model.onnx", read_before, schema_for(INPUTS), place.machine)

"""How much of the accelerator's memory is free, and how much of it a version would take.

Nothing touches the device before a version that would run there is asked about: on a machine where none is, no GPU context is made,
which would itself take hundreds of MiB.
"""

from __future__ import annotations

from dataclasses import replace

from schemas.engine_card import EngineCard
from schemas.plan_choice import select_plan
from worker.cuda import Cuda, NoGpuError
from worker.errors import EngineError, FatalEngineError
from worker.memory_room import plan_device_bytes
from worker.model_status import DeviceMemory
from worker.plan_loading import Machine, what_is_here
from worker.preflight import rows_per_batch
from worker.settings_model import Settings


class DeviceRoom:
    """The device that plans of this worker run on. The loader's thread (at the start: the main thread) asks.

    Args:
        settings: the worker's.
        machine: how to reach the GPU and TensorRT.
    """

    def __init__(self, settings: Settings, machine: Machine) -> None:
        self._settings = settings
        self._machine = machine
        self._cuda: Cuda | None = None

    def memory(self) -> DeviceMemory | None:
        """Used and free memory of the whole device, all processes together; None if nothing was to run there yet, or it can't be told.

        Raises `FatalEngineError` if the GPU context is lost.
        """
        if self._cuda is None:
            return None
        try:
            found = self._cuda.memory()
        except FatalEngineError:
            raise
        except EngineError:
            return None
        return DeviceMemory(used_bytes=found.total_bytes - found.free_bytes, free_bytes=found.free_bytes)

    def needed_bytes(self, card: EngineCard) -> int:
        """What the plan takes that would be loaded here, as its card says; 0 if none would.

        Of plans that fit this GPU and TensorRT it is the first one that there is memory for, else the first one.
        """
        runtime = self._settings.engine.runtime
        if runtime == "onnx" or (runtime == "auto" and not card.plans):
            return 0
        try:
            here = what_is_here(card, self._machine)
        except NoGpuError:
            return 0  # loading it says so, or serves the ONNX file
        self._cuda = here.cuda
        rows = rows_per_batch(self._settings, card)
        for gpu in (here.gpu, replace(here.gpu, free_bytes=None)):
            plan = select_plan(card, gpu, here.runtimes, rows=rows).plan
            if plan is not None:
                return plan_device_bytes(plan)
        return 0

"""The exceptions of this package, and what holds after each.

    BuildError                    base; exit 70: a bug
    ├── InputError                what was given can't be used; nothing was published; exit 2
    │   ├── GraphError            the ONNX file: unreadable, unsupported, or not fit for the feature schema
    │   ├── CalibrationError      the calibration data: broken, constant or too thin
    │   ├── EvaluationError       the evaluation set: broken or not fit for the model
    │   ├── TrafficError          batch sizes or arrival times can't be read, or a profile isn't one
    │   └── SourceError           broker, topic, registry or worker settings named for reading can't be used
    ├── AccuracyError             a precision loses more accuracy than allowed; it isn't published; exit 6
    ├── PlanError                 TensorRT refused to build or to load; exit 7
    │   ├── OutOfMemoryError      not enough device memory, also with a smaller workspace
    │   └── NoImplementationError TensorRT has no kernel for a layer in the precision that was asked for
    ├── ProofError                a plan computes something else than ONNX Runtime in FP32; it isn't published; exit 8
    └── PublishError              the model folder can't be written or isn't as it should be; exit 9

After any of them `CURRENT` and every published version are as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class BuildError(Exception):
    """Base of all exceptions that this package raises on purpose. `exit_code` is what the process ends with."""

    exit_code: ClassVar[int] = 70


class InputError(BuildError):
    """What was given can't be used. `problems` holds everything that is wrong with it, one sentence each."""

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(f"{source}: {self.problems[0]}")
        else:
            super().__init__("\n".join([f"{source}:", *(f"  - {problem}" for problem in self.problems)]))


class GraphError(InputError):
    """The ONNX file can't be read, has what TensorRT doesn't take, or doesn't fit the feature schema."""


class CalibrationError(InputError):
    """The calibration data are broken, constant or too thin."""


class EvaluationError(InputError):
    """The evaluation set is broken or doesn't fit the model."""


class TrafficError(InputError):
    """Batch sizes or arrival times can't be read, or the text of a profile isn't one."""


class SourceError(InputError):
    """Broker, topic, registry or worker settings that are named for reading can't be used."""


class AccuracyError(BuildError):
    """A precision loses more accuracy than allowed."""

    exit_code = 6


class PlanError(BuildError):
    """TensorRT refused to build or to load a plan."""

    exit_code = 7


class OutOfMemoryError(PlanError):
    """The device's memory doesn't suffice, also with a smaller workspace."""


class NoImplementationError(PlanError):
    """TensorRT has no kernel for a layer in the precision that was asked for. `said`: what it said itself, in one line."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class ProofError(BuildError):
    """A plan computes something else than ONNX Runtime in FP32."""

    exit_code = 8


class PublishError(BuildError):
    """The model folder can't be written, or isn't as it should be."""

    exit_code = 9

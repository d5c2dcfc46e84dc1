"""The exceptions of this package, and what holds after each.

    ForecastWorkerError
    ├── ConfigurationError        found before anything was read or written; exit 2
    │   ├── SettingsError         the settings: every problem in one message
    │   ├── ContractError         model, schema and engine card don't fit each other
    │   └── UnreachableError      broker, topic or registry named in the settings isn't there
    ├── SchemaUnavailableError    a writer schema can't be fetched now; the named records wait, nothing was decoded
    ├── DeliveryError
    │   ├── AbortableError        the transaction must be aborted; its records are read again
    │   └── FatalDeliveryError    the producer is unusable or its outcome unknown: leave the process, exit 3
    │       └── FencedError       another worker took over this transactional.id or group member; exit 4
    ├── EngineError               this batch failed in the engine; it is computed again, else: abort, exit 5
    │   ├── OutOfDeviceMemoryError  the device's memory is full; fewer rows may fit
    │   └── FatalEngineError      the engine (or its GPU context) is unusable: abort, leave the process, exit 5
    ├── ReplayStoppedError        a replay ended before its end; what is committed stays, the same command goes on; exit 6
    └── OutOfOrderError           a bug of ours: positions ran backwards; never committed, exit 70

After any of them the input topic is untouched and every record that isn't committed is read again by whoever owns its
partition next. `docs/errors.md` says the same for operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ForecastWorkerError(Exception):
    """Base of all exceptions that this package raises on purpose. `exit_code` is what the process ends with."""

    exit_code: ClassVar[int] = 70


class ConfigurationError(ForecastWorkerError):
    """What the operator asked for can't work. Raised before anything is read or written."""

    exit_code = 2


class SettingsError(ConfigurationError):
    """The settings are wrong. `problems` holds all of them, one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        heading = f"{count} problem{'s' if count != 1 else ''} in the settings"
        super().__init__("\n".join([f"{heading}:", *(f"  - {problem}" for problem in self.problems)]))


class ContractError(ConfigurationError):
    """Model, feature schema and engine card don't fit each other. The message names field, got and expected."""


class UnreachableError(ConfigurationError):
    """A broker, topic or registry that the settings name isn't there."""


class SchemaUnavailableError(ForecastWorkerError):
    """The registry can't be asked for a schema now. `indices` are the records of the poll that wait for it.

    Raised before anything was written to the caller's columns.
    """

    def __init__(self, indices: Sequence[int], detail: str) -> None:
        self.indices = tuple(indices)
        super().__init__(detail)


class DeliveryError(ForecastWorkerError):
    """Kafka refused to produce or commit."""


class AbortableError(DeliveryError):
    """The transaction must be aborted and its records read again. The producer stays usable."""


class FatalDeliveryError(DeliveryError):
    """The producer can't be used any more, or nobody knows whether the commit happened. Restarting settles it."""

    exit_code = 3


class FencedError(FatalDeliveryError):
    """Another worker has taken over this worker's transactional.id (or its place in the group)."""

    exit_code = 4


class EngineError(ForecastWorkerError):
    """A batch failed in the engine. The engine may be used again."""

    exit_code = 5


class OutOfDeviceMemoryError(EngineError):
    """The GPU hasn't got the memory that was asked for. What was allocated before is still usable, or was freed again."""


class FatalEngineError(EngineError):
    """The engine, or its GPU context, can't be used any more."""


class ReplayStoppedError(ForecastWorkerError):
    """A replay ended before its end. What it committed stays; the same command goes on from there."""

    exit_code = 6


class OutOfOrderError(ForecastWorkerError):
    """Positions ran backwards or left a gap. A bug of ours; nothing of it is committed."""

"""The settings as frozen values: every section, field, type, default and bound. `settings.py` loads them.      (pure)

A field's description is its documentation: `docs/settings.md` is generated from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic.functional_validators import BeforeValidator

from worker.redaction import HIDDEN, is_secret, without_userinfo
from worker.settings_freshness import FreshnessSettings
from worker.settings_guard import GuardSettings
from worker.settings_replay import ReplaySettings
from worker.settings_section import KafkaValue, Seconds, Section, Topic, listed, unless_off
from worker.settings_versions import FleetSettings, ModelsSettings, ShadowSettings


class KafkaSettings(Section):
    """librdkafka's own settings, passed through: TLS, SASL, timeouts. Keys that the worker owns are refused here."""

    common: dict[str, KafkaValue] = Field(
        default_factory=dict,
        repr=False,
        description='keys of `[kafka]`, for every client, e.g. `"bootstrap.servers"`, `"security.protocol"`',
    )
    consumer: dict[str, KafkaValue] = Field(
        default_factory=dict, repr=False, description="keys of `[kafka.consumer]`, over the common ones"
    )
    producer: dict[str, KafkaValue] = Field(
        default_factory=dict, repr=False, description="keys of `[kafka.producer]`, over the common ones"
    )


class InputSettings(Section):
    """Where feature events are read."""

    topic: Topic = Field(default="sku-features", description="topic of the feature events")
    group_id: str = Field(default="forecast-worker", min_length=1, description="consumer group")
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic", description="`classic` (cooperative-sticky) or `consumer` (KIP-848; brokers from 4.0)"
    )
    group_instance_id: str | None = Field(
        default=None, min_length=1, description="static membership: a name that this instance keeps over restarts"
    )
    offset_reset: Literal["earliest", "latest", "fail"] = Field(
        default="earliest", description="where to start in a partition that the group has no committed offset for"
    )
    max_value_bytes: int = Field(default=1 << 20, ge=1, description="a larger value is a dead letter (`oversize`)")
    poll_timeout_s: float = Field(default=0.1, gt=0, le=0.2, description="longest wait of one poll, seconds")
    memory_bytes: int = Field(
        default=256 << 20,
        ge=1 << 20,
        le=(2 << 30) - 1024,
        description="budget of the queue of prefetched messages, bytes",
    )


class OutputSettings(Section):
    """Where forecasts and dead letters are written."""

    topic: Topic = Field(default="sku-forecasts", description="topic of the forecasts (compacted)")
    dead_letter_topic: Topic = Field(default="sku-features.dead-letters", description="topic of rejected events")
    headers: bool = Field(default=False, description="write provenance as message headers too (about 1 µs per message)")


class WireSettings(Section):
    """How messages are framed, and by which schemas."""

    framing: Literal["single_object", "confluent"] = Field(
        default="single_object",
        description="`single_object` (Avro's own, no registry) or `confluent` (magic byte and schema id; needs a registry)",
    )
    features: Path | None = Field(default=None, description="reader schema of the events; unset: the packaged one")
    forecast: Path | None = Field(default=None, description="schema of the forecasts; unset: the packaged one")
    dead_letter: Path | None = Field(default=None, description="schema of the dead letters; unset: the packaged one")
    key_fields: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=("sku_id", "store_id"), min_length=1, description="event fields that make the forecast's key"
    )
    writer_schemas: Annotated[tuple[Path, ...], BeforeValidator(listed)] = Field(
        default=(), description="further schemas that events may be written with (single-object framing)"
    )


class RegistrySettings(Section):
    """The schema registry (Confluent API)."""

    url: str | None = Field(default=None, pattern=r"^https?://\S+$", description="base URL of the registry")
    username: str | None = Field(default=None, min_length=1, description="user name for basic authentication")
    password: SecretStr | None = Field(default=None, description="password for basic authentication")
    ca_location: Path | None = Field(
        default=None, description="CA certificates (PEM file) that the registry's is checked by"
    )
    timeout_s: Seconds = Field(default=3.0, description="longest wait for one answer, seconds")
    retry_after_s: Seconds = Field(
        default=5.0, description="pause before an unreachable registry is asked again, seconds"
    )
    auto_register: bool = Field(
        default=True, description="register the schemas of forecasts and dead letters at start-up"
    )


class EngineSettings(Section):
    """The model and what computes it."""

    model: Path = Field(
        description="folder with `model.onnx` and `card.json`, an `.onnx` file, or a published model's folder with `CURRENT`"
    )
    backup: Path | None = Field(
        default=None,
        description="model that computes what the serving one can't and takes over from it; as `model`; unset: none",
    )
    standby: Literal["onnx", "off"] = Field(
        default="onnx",
        description="what computes while the GPU has no memory left: `onnx` (the same model on the CPU) or `off`",
    )
    standby_retry_s: Seconds = Field(default=30.0, description="how often the GPU is tried again meanwhile, seconds")
    halve_to_rows: int = Field(
        default=64,
        ge=1,
        description="a batch that the GPU has no memory for is halved down to so many rows before that",
    )
    runtime: Literal["auto", "tensorrt", "onnx"] = Field(
        default="auto",
        description="`tensorrt` (a plan), `onnx` (ONNX Runtime on the CPU), or `auto`: a plan if the model's card names any",
    )
    on_missing_plan: Literal["fail", "onnx", "build"] = Field(
        default="fail",
        description="if no plan fits this GPU and TensorRT: stop (`fail`), serve the ONNX file on the CPU (`onnx`), or build one "
        "here first, which takes minutes and needs write access to the models (`build`)",
    )
    trusted_keys: Annotated[tuple[Path, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Ed25519 public keys (PEM files): a model is loaded only if one of them signed its card (`engine-build sign`); "
        "none: signatures aren't asked for",
    )
    threads: int = Field(default=0, ge=0, description="threads of ONNX Runtime; 0: all cores")
    slots: int = Field(default=2, ge=1, le=64, description="batches in flight at a time")
    max_rows: int | None = Field(
        default=None, ge=1, description="largest batch, rows; unset: the card's profile maximum"
    )


class BatchingSettings(Section):
    """When a batch is cut."""

    max_rows: int = Field(default=4096, ge=1, description="cut at so many rows")
    linger_s: float = Field(
        default=0.02, ge=0, allow_inf_nan=False, description="an idle engine waits so long for more rows, seconds"
    )
    max_wait_s: Seconds = Field(default=0.5, description="cut when the oldest row has waited so long, seconds")
    coalesce: bool = Field(default=True, description="don't compute an event that a newer one of its key supersedes")


class DeliverySettings(Section):
    """What is promised, and how often it is kept."""

    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        default="exactly_once",
        description="`exactly_once` (transactions) or `at_least_once` (duplicates after a crash)",
    )
    transactional_id: str | None = Field(
        default=None,
        min_length=1,
        description="needed for `exactly_once`: one per instance, the same after a restart, e.g. a StatefulSet's pod name",
    )
    commit_interval_s: Seconds = Field(default=0.5, description="forecasts become visible this often, seconds")
    transaction_timeout_s: Seconds = Field(
        default=15.0, description="the broker aborts a transaction that is open for longer, seconds"
    )
    revoke_budget_s: Seconds = Field(default=5.0, description="time to finish when partitions are taken away, seconds")


class BreakerSettings(Section):
    """When too many events are rejected, stop rather than drain the topic into the dead letters."""

    rejected_share: float = Field(default=0.5, gt=0, le=1, description="stop above this share of rejected records")
    window_records: int = Field(default=2000, ge=1, description="size of the sliding window, records; judged when full")


class ServerSettings(Section):
    """HTTP: `/metrics`, `/live`, `/ready`."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; `0.0.0.0` in a container")
    port: Annotated[int | None, BeforeValidator(unless_off)] = Field(
        default=9108, ge=0, le=65535, description='port; 0: any free one; `"off"`: no server'
    )


class ShutdownSettings(Section):
    """What SIGTERM allows."""

    grace_s: Seconds = Field(
        default=25.0, description="drain for so long, seconds; below the orchestrator's grace period"
    )


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged"
    )
    format: Literal["json", "text"] = Field(default="json", description="`json` (a line each) or `text` (for people)")


class Settings(Section):
    """All settings. Made by `worker.settings.load_settings`, which has checked that they agree with each other."""

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    input: InputSettings = Field(default_factory=InputSettings)
    output: OutputSettings = Field(default_factory=OutputSettings)
    wire: WireSettings = Field(default_factory=WireSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    engine: EngineSettings
    batching: BatchingSettings = Field(default_factory=BatchingSettings)
    delivery: DeliverySettings = Field(default_factory=DeliverySettings)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    models: ModelsSettings = Field(default_factory=ModelsSettings)
    shadow: ShadowSettings = Field(default_factory=ShadowSettings)
    fleet: FleetSettings = Field(default_factory=FleetSettings)
    guard: GuardSettings = Field(default_factory=GuardSettings)
    freshness: FreshnessSettings = Field(default_factory=FreshnessSettings)
    replay: ReplaySettings = Field(default_factory=ReplaySettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    shutdown: ShutdownSettings = Field(default_factory=ShutdownSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    def describe(self) -> str:
        """The effective settings as a TOML file, secrets hidden, unset ones as comments."""
        return "\n\n".join(
            "\n".join([f"[{table}]", *(_line(key, value) for key, value in values.items())])
            for table, values in self.redacted().items()
        )

    def redacted(self) -> Mapping[str, Mapping[str, object]]:
        """Table -> key -> value, in the order of the file, secrets hidden. None: unset."""
        tables: dict[str, Mapping[str, object]] = {}
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, KafkaSettings):
                tables["kafka"] = _hidden(section.common)
                tables["kafka.consumer"] = _hidden(section.consumer)
                tables["kafka.producer"] = _hidden(section.producer)
            else:
                tables[name] = _hidden({field: getattr(section, field) for field in type(section).model_fields})
        return tables


SECTIONS: Mapping[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""Section name -> its model, in the order of the file."""


def _hidden(values: Mapping[str, object]) -> dict[str, object]:
    return {
        key: HIDDEN
        if value is not None and (is_secret(key) or isinstance(value, SecretStr))
        else without_userinfo(value)
        if isinstance(value, str)
        else value
        for key, value in values.items()
    }


def _line(key: str, value: object) -> str:
    shown = key if key.replace("_", "").isalnum() else json.dumps(key)
    if value is None:
        return f'{shown} = "off"' if key == "port" else f"# {shown} is not set"
    plain = (
        [str(item) for item in value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    )
    return f"{shown} = {json.dumps(plain, ensure_ascii=False)}"

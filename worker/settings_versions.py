"""Settings of how published versions are taken up, tried beside the serving one, and agreed on among workers.     (pure)"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.settings_section import Seconds, Section, Topic


class ModelsSettings(Section):
    """How a published model's versions are taken up while the worker runs. Only where `engine.model` has `CURRENT`."""

    watch: Literal["notify", "poll", "off"] = Field(
        default="notify",
        description="`notify` (the kernel tells), `poll` (for network file systems, which it doesn't watch), "
        "or `off`: the folder is looked at only when a command comes over `fleet.control_topic`",
    )
    interval_s: Seconds = Field(
        default=5.0,
        description="look at the folder at least this often; with `poll` the pause between two looks, seconds",
    )
    keep_backup: bool = Field(
        default=True, description="keep the version before the serving one loaded, while memory allows"
    )
    hold_s: float = Field(
        default=2.0,
        ge=0,
        allow_inf_nan=False,
        description="after a change of version, commits wait until the guard has seen `guard.full_rows` rows of the new one, but "
        "none longer than this, seconds, and only the first 30",
    )
    headroom_bytes: int = Field(
        default=256 << 20,
        ge=0,
        description="memory that must stay free on host and device when a version is loaded, bytes",
    )
    backup_wait_s: Seconds = Field(
        default=30.0,
        description="when the guard needs the backup while it is still being loaded, reading stops for so long at most, "
        "seconds; after that `guard.without_backup` holds",
    )
    older_at_start: bool = Field(
        default=True,
        description="start with an older version when the one to serve is refused; false: refuse to start",
    )


class ShadowSettings(Section):
    """A new version first computes live batches beside the serving one. Its forecasts are compared, never published."""

    enabled: bool = Field(default=False, description="try versions that CURRENT names before they serve")
    share: float = Field(default=0.1, gt=0, le=1, description="share of the live batches")
    rows: int = Field(default=5000, ge=1, description="rows to compare before the verdict")
    max_time_share: float = Field(
        default=0.1, gt=0, le=1, description="largest share of time that the shadow may compute"
    )
    max_wape: float = Field(
        default=0.25,
        gt=0,
        allow_inf_nan=False,
        description="largest sum of |difference from the serving version| over the sum of its medians",
    )
    max_bias: float = Field(
        default=0.1,
        gt=0,
        allow_inf_nan=False,
        description="largest |sum of differences| over the sum of the serving version's medians",
    )
    max_width_ratio: float = Field(
        default=2.0,
        gt=1,
        allow_inf_nan=False,
        description="distance of the outer quantiles may be so many times the serving version's, or its inverse",
    )
    max_latency_ratio: float = Field(
        default=3.0,
        gt=0,
        allow_inf_nan=False,
        description="a full batch may take so many times as long as the serving version's (both timed when proven)",
    )


class FleetSettings(Section):
    """What workers of one model tell each other."""

    control_topic: Topic | None = Field(
        default=None, description="compacted topic of commands to all workers, e.g. `model-control`; unset: none"
    )
    state_topic: Topic | None = Field(
        default=None, description="compacted topic of what each worker runs, e.g. `model-states`; unset: none"
    )
    heartbeat_s: Seconds = Field(default=60.0, description="a worker repeats its state so often, seconds")

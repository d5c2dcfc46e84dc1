"""The section `[replay]`: how a replay makes way for live work.                                                 (pure)"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.functional_validators import BeforeValidator

from worker.settings_section import Seconds, Section, unless_off


class ReplaySettings(Section):
    """How a replay makes way for the live workers."""

    pause_above_lag_records: Annotated[int | None, BeforeValidator(unless_off)] = Field(
        default=20_000,
        ge=1,
        description="a replay pauses while the live group (`input.group_id`) is so many offsets behind on the input topic, "
        'and goes on at half of it; `"off"`: never',
    )
    lag_check_s: Seconds = Field(default=1.0, description="how often the live group's lag is asked for, seconds")
    niceness: int = Field(
        default=10,
        ge=0,
        le=19,
        description="added to the niceness of a replay's processes, so that live workers on the same host come first",
    )
    commit_interval_s: Seconds = Field(
        default=2.0,
        description="a replay commits this often, seconds; nobody waits for its single forecasts, and fewer commits cost "
        "the brokers less",
    )

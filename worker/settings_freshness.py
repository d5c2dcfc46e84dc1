"""The section `[freshness]`: how it is told whether every key has its forecast in time.                          (pure)"""

from __future__ import annotations

from pydantic import Field

from worker.settings_section import Seconds, Section


class FreshnessSettings(Section):
    """How it is told whether every key has its forecast in time."""

    window_s: Seconds = Field(
        default=3600.0, description="a key is fresh if its last forecast was committed within so many seconds"
    )
    max_keys: int = Field(
        default=1_000_000,
        ge=0,
        description="remember so many keys (about 100 bytes each) for the share of fresh ones; 0: none, and no share",
    )

"""What every section of the settings is made of: the base class and the types of fields.      (pure)"""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

KafkaValue = StrictStr | StrictBool | StrictInt | StrictFloat
"""What librdkafka takes as the value of a key."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Topic = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._\-]+$")]


def listed(value: object) -> object:
    """A list written as text (environment, --set): comma-separated, or a JSON array."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return [part.strip() for part in value.split(",") if part.strip()]


def unless_off(value: object) -> object:
    """None for the word `off`."""
    return None if value == "off" else value


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

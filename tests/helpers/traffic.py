"""Events whose forecasts by tiny models are about as high as their own past, until a version turns wrong; and such versions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from schemas.engine_card import CARD_NAME, OutputHistogram, load_card, write_card
from tests.helpers.workers import FRAMING, SCHEMA, Job, avro, key
from worker.guard_reference import EDGES

SALES = 1000.0
POISON = -2000.0
"""Of `promo`: the sum of the means is as large as without, but below zero, where `nan_below=0.0` gives NaN."""


def with_histogram(folder: Path) -> None:
    """A spoiler for `TestStore.publish`: the card says that forecasts are usually as high as recent sales."""
    shares = [0.0] * (len(EDGES) - 1)
    shares[len(shares) // 2] = 1.0
    histogram = OutputHistogram(mean_of="sales", edges=EDGES.tolist(), shares=shares)
    card = load_card(folder / CARD_NAME)
    write_card(card.model_copy(update={"output_histogram": histogram}), folder / CARD_NAME)


def send_traffic(job: Job, numbers: Iterable[int], *, promo: float = 0.0, partition: int | None = None) -> None:
    """Produce these events, to one partition or spread over all."""
    messages = []
    for number in numbers:
        content: dict[str, Any] = {"sku_id": f"sku{number}", "store_id": "store", "as_of": 19_900}
        content |= {"sales": [SALES] * 30, "promo": [promo] * 30}
        value = FRAMING.prefix_for(SCHEMA) + avro("sku_features", content)
        messages.append((key(number), value, number % job.partitions if partition is None else partition))
    job.send_raw(messages)

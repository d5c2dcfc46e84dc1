"""Measures the reference distribution of a model over many days and writes it into its card.

python -m demo.output_histogram models/bakery-lstm models/bakery-smoother     every day before the test days
python -m demo.output_histogram --every 4 models/freshretailnet-lstm          every fourth

A card's first reference comes from one day. That is enough for fifty thousand series, but not for a hundred that share their
holidays: there the distribution of any few weeks differs from that of others, and the card must say by how much.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from demo import bakery, freshretailnet
from demo.series import FloatArray, SeriesSet
from schemas.engine_card import CARD_NAME, OutputHistogram, load_card, write_card
from worker.guard_reference import EDGES
from worker.guard_window import REFERENCE_ROWS, Sample, Window, sample, stability_index

WINDOW_ROWS: Final = 2048
"""What `OutputHistogram.usual_index` is measured over."""
LEAST_MEAN: Final = 0.05
_ROWS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Where a model's events come from. test_days: the last ones, which nothing may be taken from."""

    load: Callable[[], SeriesSet]
    test_days: int


DATA: Final[Mapping[str, DataSet]] = {
    "bakery": DataSet(load=bakery.load, test_days=56),
    "freshretailnet": DataSet(load=freshretailnet.load, test_days=14),
}


def reference(batches: Iterable[tuple[FloatArray, FloatArray]]) -> OutputHistogram:
    """The distribution of log(forecast / recent mean) over all of `batches`, and how far windows of it are from the whole.

    batches: forecasts float32[rows, horizon, 3] with the sales float32[rows, days] they were made from, in the order of days.
    """
    samples: list[Sample] = []
    for forecasts, sales in batches:
        for at in range(0, len(sales), WINDOW_ROWS):
            rows = slice(at, at + WINDOW_ROWS)
            samples.append(sample(forecasts[rows, :, 1], sales[rows], EDGES, LEAST_MEAN))
    shares = np.sum([each.bins for each in samples], axis=0) / sum(each.rows for each in samples)
    window, largest = Window(WINDOW_ROWS), 0.0
    for each in samples:
        window.add(each)
        if window.rows >= WINDOW_ROWS:
            largest = max(largest, stability_index(window.bins, shares * REFERENCE_ROWS))
    return OutputHistogram(
        mean_of="sales",
        edges=[round(float(edge), 1) for edge in EDGES],
        shares=[round(float(share), 6) for share in shares],
        usual_index=round(largest, 4),
    )


def forecast_days(model: Path, series: SeriesSet, days: Sequence[int]) -> Iterator[tuple[FloatArray, FloatArray]]:
    """The model's forecasts of all series at each of `days`, with their sales."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    for day in days:
        fields = {**series.windows(day), "as_of": np.full(len(series), day, np.float32)}
        parts = [
            session.run(["forecast"], {name: np.ascontiguousarray(fields[name][at : at + _ROWS]) for name in names})[0]
            for at in range(0, len(series), _ROWS)
        ]
        yield np.concatenate(parts), fields["sales"]


def rewrite(folder: Path, every: int) -> OutputHistogram:
    """Measure, and replace the reference in the card of `folder`. The model and all else in the card stay as they are."""
    card = load_card(folder / CARD_NAME)
    data = DATA[card.model.partition("-")[0]]
    series = data.load()
    days = series.as_of_dates(10**6)[: -data.test_days : every]
    histogram = reference(forecast_days(folder / "model.onnx", series, days))
    write_card(card.model_copy(update={"output_histogram": histogram}), folder / CARD_NAME)
    return histogram


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the cards of the folders named."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.output_histogram", description="Measure reference distributions."
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="with model.onnx and card.json")
    parser.add_argument("--every", type=int, default=1, help="take every n-th day only")
    chosen = parser.parse_args(arguments)
    for folder in chosen.folders:
        histogram = rewrite(folder, chosen.every)
        print(f"{folder}: usual index {histogram.usual_index:g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

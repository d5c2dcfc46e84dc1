from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from demo import report
from demo.evaluation import errors_of_all, outcomes
from demo.worker_process import HistogramSamples
from tests.helpers.series import made_series

INF = float("inf")


def made_result(*, known: bool = True) -> report.DemoResult:
    series = made_series(count=8, name="<made & tested>")
    dates = series.as_of_dates(3)
    middle = np.stack([series.actuals(as_of) for as_of in dates])
    forecasts = np.stack([middle * 0.5, middle, middle * 1.5], axis=-1)
    if not known:
        forecasts = np.full_like(forecasts, np.nan)
    positions = [(0, offset) for offset in range(24)]
    return report.DemoResult(
        series=series,
        as_of_dates=dates,
        forecasts=forecasts,
        outcomes=outcomes(positions, positions[:23], [(positions[23], "truncated")]),
        errors=errors_of_all(series, dates, forecasts[..., 1]),
        seconds=2.0,
        model="made 1",
        batch_rows=HistogramSamples(bounds=(1.0, 8.0, 64.0, INF), counts=(0, 3, 0, 0), total=24.0),
        stages={"poll": HistogramSamples(bounds=(INF,), counts=(2,), total=0.5)},
    )


@pytest.fixture(scope="module")
def text() -> str:
    return report.render(made_result())


class Structure(HTMLParser):
    """Collects ids and external references, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]


def test_report_is_one_sound_file_that_needs_nothing_else(text: str) -> None:
    structure = Structure()
    structure.feed(text)
    assert structure.open == []
    assert len(structure.ids) == len(set(structure.ids))
    assert {reference[:1] for reference in structure.references} <= {"#"}
    assert {reference[1:] for reference in structure.references} <= set(structure.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(structure.ids)
    assert "<script" not in text
    assert "@import" not in text


def test_charts_are_named_and_take_the_pages_ink(text: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(svgs) == 5
    for svg in svgs:
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "currentColor" in svg


def test_names_from_the_data_are_escaped(text: str) -> None:
    assert "&lt;made &amp; tested&gt;" in text
    assert "<made" not in text


def test_summary_counts_and_the_verdict(text: str) -> None:
    result = made_result()
    rows = dict(report.summary(result))
    assert rows["events"] == "24"
    assert rows["dead letters"] == "1"
    assert rows["events per second, end to end"] == "12"
    assert rows["batches"] == "3 of 8 rows on average"
    assert report.reasons(result.outcomes) == "truncated 1"
    assert "none lost, none twice" in text


def test_lost_events_are_told_in_the_verdict() -> None:
    result = made_result()
    bad = replace(result, outcomes=replace(result.outcomes, lost=2))
    assert "Not exactly once: 2 lost" in report.render(bad)


@pytest.mark.parametrize("missing", ["forecasts", "metrics"])
def test_report_without_forecasts_or_metrics_is_still_made(missing: str) -> None:
    result = made_result(known=missing != "forecasts")
    if missing == "metrics":
        result = replace(result, batch_rows=None, stages={})
    assert "</html>" in report.render(result)


def test_panels_are_of_different_stores_and_products_where_there_are_some() -> None:
    result = made_result()
    dates, chosen = report.panels_of(result)
    assert dates == [1, 2]
    assert len(chosen) == len(set(chosen)) == 6
    assert len({result.series.sku_ids[index] for index in chosen}) > 1
    assert len({result.series.store_ids[index] for index in chosen}) > 1

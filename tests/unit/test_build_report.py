from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from engine_build import report
from engine_build.choice import Decision
from engine_build.measure import Measurement, Point
from engine_build.plan import BuiltPlan, PlanOrder, Site
from engine_build.prove import Golden, Proof
from engine_build.trt_types import Built
from schemas.engine_card import Accuracy, Precision, Profile, parse_card
from schemas.plan_choice import Gpu, PlanRuntime
from tests.helpers.cards import card_content
from tests.helpers.releases import plan as plan_of

PROFILE = Profile(min_rows=1, opt_rows=8, max_rows=64)
ACCURACY = Accuracy(wape=0.2, wape_total=0.1, bias=-0.01, pinball=1.0, rows=10)


def built(precision: Precision, *, measured: bool) -> BuiltPlan:
    entry, content = plan_of(precision.encode(), precision=precision, proved="device" if measured else "structure")
    points = tuple(Point(rows=rows, median_s=0.001, p99_s=0.002, rows_per_s=1000.0 * rows) for rows in (1, 8, 64))
    return BuiltPlan(
        precision=precision,
        entry=entry,
        content=content,
        problems=(),
        built=Built(plan=content, tensors=(), layers=5, workspace_bytes=None, notes=("tried twice",)),
        proof=Proof(sizes=(1, 8, 64), worst=0.25, summed=0.001, batch_mates=0.0) if measured else None,
        measurement=Measurement(points=points, rows_per_s=8000.0, device_memory_bytes=1 << 20) if measured else None,
        built_s=1.5,
    )


def made(*, measured: bool) -> dict[str, Any]:
    card = parse_card(json.dumps(card_content()))
    library: Any = SimpleNamespace(runtime=PlanRuntime(name="tensorrt", version="8.6.1"), targets=())
    golden: Any = Golden(inputs={}, outputs=None)  # type: ignore[arg-type]
    failed = dataclasses.replace(built("int8", measured=False), entry=None, problems=("<wrong>",))
    return report.report_of(
        Site(library=library, cuda=None, gpu=Gpu(name="NVIDIA H200", compute_capability="9.0")),
        PlanOrder(card=card, golden=golden, profiles=(PROFILE,)),
        [built("fp32", measured=measured), built("fp16", measured=measured), failed],
        Decision(published=("fp16",), reasons=("int8 is out: <wrong>",)),
        accuracy={"fp32": ACCURACY, "fp16": ACCURACY},
        graphs={"fp16": {"method": "cast"}},
        calibration={"sha256": "c" * 64, "rows": 720},
        made_at="2026-11-23T10:00:00+00:00",
    )


def test_the_report_is_json_and_stays_the_same_through_a_file() -> None:
    content = made(measured=True)
    assert json.loads(json.dumps(content))["plans"][1]["measurement"]["points"][2]["rows"] == 64


def test_the_page_shows_what_was_measured_and_needs_nothing_else() -> None:
    page = report.render([made(measured=True)])
    for text in ("NVIDIA H200, TensorRT 8.6.1", "fp16, 64 rows", "0.250", "tried twice", "Accuracy per precision"):
        assert text in page
    assert page.count("<svg") == 5
    assert "int8 is out: &lt;wrong&gt;" in page
    assert "src=" not in page


def test_what_was_not_measured_is_said() -> None:
    page = report.render([made(measured=False)])
    assert "not measured: built without a GPU of its type" in page
    assert page.count("<svg") == 2


def test_without_matplotlib_the_page_has_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "charts", None)
    page = report.render([made(measured=True)])
    assert "<svg" not in page
    assert "fp16, 64 rows" in page

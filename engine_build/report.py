"""What a build found out, as JSON, and all builds of a version as one HTML page with plots."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from engine_build.choice import ORDER, Decision
from engine_build.plan import BuiltPlan, PlanOrder, Site
from schemas.engine_card import Accuracy, Precision
from schemas.html_page import figure, page, section, table

try:
    from engine_build import report_charts as charts
except ImportError:  # a worker that builds for itself has no matplotlib: the page has tables then
    charts = None  # type: ignore[assignment]

Report = Mapping[str, Any]
"""One build, as JSON has it: what `report_of` returns."""

_PACKAGES: Final = ("numpy", "onnx", "onnxruntime")
_NOT_MEASURED: Final = "not measured: built without a GPU of its type; the worker proves the plan when it loads it"


def report_of(
    site: Site,
    order: PlanOrder,
    plans: Sequence[BuiltPlan],
    decision: Decision,
    *,
    accuracy: Mapping[Precision, Accuracy],
    graphs: Mapping[Precision, Any],
    calibration: Mapping[str, Any] | None,
    made_at: str,
) -> dict[str, Any]:
    """One build as JSON. graphs: by precision, how each was made. made_at: ISO 8601."""
    return {
        "model": order.card.model,
        "version": order.card.version,
        "onnx_sha256": order.card.onnx_sha256,
        "made_at": made_at,
        "runtime": str(site.library.runtime),
        "gpu": site.gpu.name if site.gpu is not None and site.on_device else None,
        "compute_capabilities": list(site.capabilities),
        "profiles": [profile.model_dump() for profile in order.profiles],
        "cuda_graph_rows": list(order.cuda_graph_rows),
        "members": order.members,
        "published": list(decision.published),
        "reasons": list(decision.reasons),
        "plans": [_plan(each) for each in plans],
        "allowances": {each: dataclasses.asdict(allowance) for each, allowance in order.allowances.items()},
        "accuracy": {precision: each.model_dump() for precision, each in accuracy.items()},
        "graphs": dict(graphs),
        "calibration": calibration,
        "environment": {"python": platform.python_version(), "machine": platform.machine()}
        | {package: _version(package) for package in _PACKAGES},
    }


def render(reports: Sequence[Report]) -> str:
    """All builds of a version as one HTML page that needs nothing else. At least one report."""
    first = reports[0]
    title = f"{first['model']} {first['version']}"
    body = [f"<h1>Engines of {title}</h1>", f"<p>ONNX sha256 {first['onnx_sha256']}</p>", '<div class="grid">']
    for report in reports:
        body += _build(report)
    if first["accuracy"]:
        if charts is not None:
            body.append(figure("", "Accuracy per precision", charts.accuracy_chart(first["accuracy"])))
        body.append(section("Accuracy", _accuracy(first["accuracy"])))
    if first["calibration"]:
        rows = [(str(key), str(value)) for key, value in first["calibration"].items()]
        body.append(section("Calibration", table(("", ""), rows, head=False)))
    body.append("</div>")
    return page(f"Engines of {title}", body)


def _plan(plan: BuiltPlan) -> dict[str, Any]:
    entry, built = plan.entry, plan.built
    return {
        "precision": plan.precision,
        "file": None if entry is None else entry.file,
        "sha256": None if entry is None else entry.sha256,
        "size_bytes": None if entry is None else entry.size_bytes,
        "proved": None if entry is None else entry.proved,
        "problems": list(plan.problems),
        "built_s": round(plan.built_s, 3),
        "layers": None if built is None else built.layers,
        "workspace_bytes": None if built is None else built.workspace_bytes,
        "notes": [] if built is None else list(built.notes),
        "proof": None if plan.proof is None else dataclasses.asdict(plan.proof),
        "measurement": None if plan.measurement is None else dataclasses.asdict(plan.measurement),
    }


def _build(report: Report) -> list[str]:
    where = report["gpu"] or f"compute capability {', '.join(report['compute_capabilities'])}"
    title = f"{where}, {report['runtime']}"
    facts = [
        ("built", report["made_at"]),
        ("published", ", ".join(report["published"]) or "nothing"),
        *(("profile, rows", "{min_rows} : {opt_rows} : {max_rows}".format(**each)) for each in report["profiles"]),
        *(("why", reason) for reason in report["reasons"]),
    ]
    parts = [
        section(title, table(("", ""), facts, head=False)),
        section("Plans", _plans(report["plans"])),
    ]
    measured = {plan["precision"]: plan["measurement"] for plan in report["plans"] if plan["measurement"] is not None}
    if measured:
        parts.append(section(f"Measured on {where}", _measured(measured)))
    else:
        parts.append(section(f"Latency, throughput and memory on {where}", f"<p>{_NOT_MEASURED}</p>"))
    return [*parts, *(() if charts is None else _figures(report["plans"], measured, where))]


def _figures(plans: Sequence[Mapping[str, Any]], measured: Mapping[str, Mapping[str, Any]], where: str) -> list[str]:
    drawn = []
    if measured:
        memory = {name: each["device_memory_bytes"] / 2**20 for name, each in measured.items()}
        drawn = [
            figure("", f"Latency on {where}", charts.latency_chart(measured, where)),
            figure("", f"Throughput on {where}", charts.throughput_chart(measured, where)),
            figure("", f"Device memory on {where}", charts.bars(memory, "MiB", f"Device memory {where}")),
        ]
    sizes = {plan["precision"]: plan["size_bytes"] / 2**20 for plan in plans if plan["size_bytes"]}
    if sizes:
        drawn.append(figure("", f"Plan size for {where}", charts.bars(sizes, "MiB", f"Plan size {where}")))
    return drawn


def _measured(measured: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            f"{name}, {point['rows']:,} rows",
            f"{1000 * point['median_s']:.3f}",
            f"{1000 * point['p99_s']:.3f}",
            f"{point['rows_per_s']:,.0f}",
            f"{each['device_memory_bytes'] / 2**20:,.0f}",
        )
        for name, each in measured.items()
        for point in each["points"]
    ]
    return table(("", "median, ms", "p99, ms", "rows/s", "memory, MiB"), rows)


def _plans(plans: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            plan["precision"],
            f"{plan['built_s']:.1f} s",
            "-" if plan["size_bytes"] is None else f"{plan['size_bytes'] / 2**20:.1f} MiB",
            plan["proved"] or "no",
            "-" if plan["proof"] is None else f"{plan['proof']['worst']:.3f}",
            "; ".join([*plan["problems"], *plan["notes"]]) or "-",
        )
        for plan in sorted(plans, key=lambda each: ORDER.index(each["precision"]))
    ]
    heads = ("", "build", "size", "proved on", "of tolerance", "problems and notes")
    return (
        table(heads, rows)
        + "<p>Of tolerance: the largest difference from ONNX Runtime in FP32 as a share of what is allowed.</p>"
    )


def _accuracy(accuracy: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (name, f"{each['wape']:.4f}", f"{each['bias']:+.4f}", f"{each['pinball']:.4f}", f"{each['rows']:,}")
        for name, each in accuracy.items()
    ]
    return table(("", "WAPE", "bias", "pinball", "rows"), rows)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

"""Whether a model that was trained anew is as good as the committed one: the same metrics of the same test days.      (pure)"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

TOLERANCE: Final = 0.02
"""Relative for errors; absolute for shares, for bias and for the error of the whole total, which may all be near 0."""
_ABSOLUTE: Final = ("bias", "wape_total_14_days", "coverage", "below", "above")


def differences(test: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """By metric: how far `test` is from `reference`, as a share of it, or the plain difference (`TOLERANCE`)."""
    return {
        name: (test[name] - known) / (1.0 if name.startswith(_ABSOLUTE) else known) for name, known in reference.items()
    }


def compare(report: Path, models: Path) -> bool:
    """Print a trained model's test metrics beside the committed one's; True if all are within `TOLERANCE`.

    report: the `report.json` that `train` wrote. models: folder with `<data>-<model>/report.json` of the committed models.
    """
    found = _read(report)
    known = _read(models / f"{found['data']}-{found['model']}" / "report.json")
    changes = differences(found["test"], known["test"])
    print(f"{found['data']}-{found['model']}: {found['seconds']:.0f} s on {found['device']}, {found['epochs']} epochs")
    print(f"{'':24s}{'trained':>10s}{'committed':>11s}{'differs':>10s}")
    for name, change in changes.items():
        print(f"{name:24s}{found['test'][name]:10.4f}{known['test'][name]:11.4f}{change:+10.2%}")
    beyond = [name for name, change in changes.items() if not abs(change) <= TOLERANCE]
    print(f"beyond {TOLERANCE:.0%}: {', '.join(beyond)}" if beyond else f"all within {TOLERANCE:.0%}")
    return not beyond


def _read(path: Path) -> Any:  # noqa: ANN401 - a report, as train.py writes it
    return json.loads(path.read_text(encoding="utf-8"))

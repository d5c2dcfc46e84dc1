"""What tests on a real GPU share. They are skipped where there is none, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.real_gpu import RealVersion, real_device
from worker.tensorrt_load import Device

INPUTS = {"sales": 30, "price": None}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them carry the marker `gpu`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("gpu")


@pytest.fixture
def device() -> Device:
    return real_device()


@pytest.fixture
def version(device: Device, tmp_path: Path) -> RealVersion:  # noqa: ARG001 - it skips first
    return RealVersion(
        tmp_path / "1", INPUTS, 3, (0.1, 0.5, 0.9), profiles=((1, 8, 64), (65, 256, 512)), graph_rows=(4, 16)
    )

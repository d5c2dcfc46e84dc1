"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import confluent_kafka

from demo.artifacts import KAFKA_VERSION

LIBRARIES = ("confluent-kafka", "fastavro", "numpy", "onnxruntime")


def machine(broker_heap: str, broker_options: tuple[str, ...]) -> Mapping[str, object]:
    """CPU, memory, versions, and how the broker ran."""
    return {
        **cpu_facts(),
        "librdkafka": confluent_kafka.libversion()[0],
        "libraries": {name: version(name) for name in LIBRARIES},
        "broker": {"kafka": KAFKA_VERSION, "heap": broker_heap, "jvm_options": list(broker_options)},
    }


def cpu_facts() -> dict[str, object]:
    """CPU, memory, system and Python."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def load_average() -> float:
    """Processes that ran or wanted to, mean of the last minute: what else the machine had to do."""
    return os.getloadavg()[0]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

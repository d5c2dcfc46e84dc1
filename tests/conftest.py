"""What every test gets: a clean environment, repeatable hypothesis, and (for those who ask) a real broker and registry."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from demo.kafka import EmbeddedKafka
from demo.registry import EmbeddedRegistry
from tests.helpers.workers import Job

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")

TopicFactory = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the broker or the registry carries the marker `kafka`, so that `-m "not kafka"` leaves it out."""
    for item in items:
        if {"kafka", "registry"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests don't reach them."""
    for name in [name for name in os.environ if name.startswith("FORECAST_WORKER_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """One broker for the whole session, started when the first test asks. A test that stops it must start it again."""
    with EmbeddedKafka() as broker:
        yield broker


@pytest.fixture(scope="session")
def registry() -> Iterator[EmbeddedRegistry]:
    """One schema registry for the whole session, started when the first test asks. Subjects are shared: use own names."""
    with EmbeddedRegistry() as server:
        yield server


@pytest.fixture(scope="session")
def _topic_numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def topics(kafka: EmbeddedKafka, _topic_numbers: Iterator[int]) -> TopicFactory:
    """`topics("input", partitions=3, config={...})` creates a topic with a name that no other test has, and returns it."""

    def create(stem: str = "topic", partitions: int = 4, config: dict[str, str] | None = None) -> str:
        name = f"{stem}-{next(_topic_numbers)}"
        kafka.create_topic(name, partitions, config)
        return name

    return create


@pytest.fixture
def job(kafka: EmbeddedKafka, topics: TopicFactory, tmp_path: Path) -> Job:
    """Input, forecast and dead-letter topics of four partitions each, and the settings for workers on them."""
    return Job(
        bootstrap=kafka.bootstrap_servers,
        source=topics("features"),
        forecasts=topics("forecasts"),
        dead_letters=topics("dead"),
        directory=tmp_path,
    )

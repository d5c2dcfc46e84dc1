from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from demo.artifacts import KAFKA_VERSION, REGISTRY_VERSION
from schemas.topics import load_topics
from worker.settings import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
WORKER_TOML = ROOT / "deploy" / "worker.toml"


def compose(*arguments: str) -> str:
    """What the compose command prints. Skips when this machine has neither of its two forms."""
    if (command := shutil.which("docker-compose")) is None:
        pytest.skip("docker-compose isn't installed")
    done = subprocess.run(
        [command, "--file", str(COMPOSE_FILE), *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("profile", "worker"), [("cpu", "worker"), ("gpu", "worker-gpu")])
def test_each_profile_is_valid_and_has_its_worker(profile: str, worker: str) -> None:
    compose("--profile", profile, "config", "--quiet")
    services = set(compose("--profile", profile, "config", "--services").split())
    assert services >= {"kafka", "registry", "topics", worker}  # the older compose lists those of other profiles too
    assert f"  {worker}:\n    <<: *worker\n    profiles: [{profile}]\n" in COMPOSE_FILE.read_text()


def test_versions_are_those_that_the_tests_run_against() -> None:
    text = COMPOSE_FILE.read_text()
    images = dict(re.findall(r"image: (apa\S+|api\S+):(\S+)", text))
    assert images == {"apache/kafka": KAFKA_VERSION, "apicurio/apicurio-registry-kafkasql": REGISTRY_VERSION}


def test_the_workers_settings_are_valid_and_fit_the_compose_file() -> None:
    settings = load_settings(WORKER_TOML, [], {})
    text = COMPOSE_FILE.read_text()
    assert settings.kafka.common["bootstrap.servers"] == "kafka:9092"
    assert "INTERNAL://kafka:9092" in text
    assert settings.registry.url == "http://registry:8081/apis/ccompat/v7"
    assert "QUARKUS_HTTP_PORT: 8081" in text
    assert f"127.0.0.1:{settings.server.port}:{settings.server.port}" in text
    outputs, fleet = settings.output, settings.fleet
    named = {settings.input.topic, outputs.topic, outputs.dead_letter_topic, fleet.control_topic, fleet.state_topic}
    assert set(load_topics()) == named
    grace = re.search(r"stop_grace_period: (\d+)s", text)
    assert grace is not None
    assert int(grace[1]) > settings.shutdown.grace_s


def test_workers_of_both_profiles_differ_in_their_transactional_id() -> None:
    found = re.findall(r"FORECAST_WORKER__DELIVERY__TRANSACTIONAL_ID: (\S+)", COMPOSE_FILE.read_text())
    for name in found:
        settings = load_settings(WORKER_TOML, [], {"FORECAST_WORKER__DELIVERY__TRANSACTIONAL_ID": name})
        assert settings.delivery.transactional_id == name
    assert len(set(found)) == 2


def test_the_image_is_built_from_what_the_distribution_needs() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {package.partition(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    dockerfile = (ROOT / "Dockerfile").read_text()
    let_through = (ROOT / ".dockerignore").read_text()
    for package in packages:
        assert f"COPY {package} {package}" in dockerfile
        assert f"!{package}\n" in let_through
    entry = re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)
    assert entry is not None
    assert set(json.loads(entry[1])) <= set(project["project"]["scripts"])

"""requirements/dev.txt, which `make` installs from, agrees with pyproject.toml."""

import re
import tomllib
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
PINS = [Requirement(line.removesuffix("\\").strip()) for line in LOCK.splitlines() if re.match(r"[a-z0-9]", line)]
ASKED = [
    Requirement(text)
    for text in (
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["demo"],
        *PROJECT["optional-dependencies"]["dev"],
    )
    if canonicalize_name(Requirement(text).name) != PROJECT["name"]
]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_every_requirement_is_pinned_to_one_version_that_satisfies_it(asked: Requirement, python: str) -> None:
    environment: dict[str, str | AbstractSet[str]] = {"python_version": python, "python_full_version": f"{python}.0"}
    found = [
        pin
        for pin in PINS
        if canonicalize_name(pin.name) == canonicalize_name(asked.name)
        and (pin.marker is None or pin.marker.evaluate(environment))
    ]
    assert len(found) == 1, f"{asked}: run `make lock`"
    (version,) = found[0].specifier
    assert version.operator == "=="
    assert asked.specifier.contains(version.version)


def test_every_pin_has_hashes_and_no_place_to_fetch_from() -> None:
    entries = re.split(r"\n(?=[a-z0-9])", LOCK.partition("\n")[2])
    assert len(entries) == len(PINS)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert "--index" not in LOCK

"""What the documentation names is there: files behind links, commands, settings, tests, modules, measured numbers."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine_build.cli as engine_build
from bench.guard import alarms
from bench.report import BEGIN, END, RESULTS, front_page_text, guard_page_text
from worker.cli import PROGRAM, build_parser
from worker.guard import Rule
from worker.settings import load_settings
from worker.settings_guard import GuardSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/adr/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OTHER_PROGRAMS = frozenset({"cp", "docker", "export", "kcat", "openssl", "pip"})
PARSERS = {PROGRAM: build_parser, engine_build.PROGRAM: engine_build.build_parser}
VARIABLES = frozenset({"ARGS", "DATA", "PYTHON", "VENV"})


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Without what stands in code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """The commands of all shell blocks, comments left out, and the make and worker commands quoted in a sentence."""
    for block in blocks(text, "sh"):
        yield from (words for line in block.splitlines() if (words := shlex.split(line, comments=True)))
    for quoted in re.findall(rf"`((?:make|{PROGRAM}) [^`]+)`", prose(text)):
        yield shlex.split(quoted)


def problem(words: list[str]) -> str | None:
    """What is wrong with a command that the documentation shows; None if nothing is."""
    program, *arguments = words
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
        wrong = [a for a in arguments if a not in targets and a.partition("=")[0] not in VARIABLES]
        return f"make has no {wrong}" if wrong else None
    if program in PARSERS:
        try:
            PARSERS[program]().parse_args(arguments)
        except SystemExit as exited:
            return f"{PROGRAM} exits with {exited.code}" if exited.code else None
        return None
    return None if program in OTHER_PROGRAMS else f"unknown program {program}"


def names_in(path: Path) -> set[str]:
    """Functions, classes and names assigned to at the top of a test module."""
    found: set[str] = set()
    for node in ast.parse(text_of(path)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(text_of(page)):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", place):
            assert place.startswith("https://"), link
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(text_of(target)), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_there(page: Path) -> None:
    wrong = {shlex.join(words): found for words in commands(text_of(page)) if (found := problem(words))}
    assert not wrong


def test_the_two_commands_of_a_newcomer_come_first() -> None:
    made = [words for words in commands(text_of(README)) if words[0] == "make"]
    assert made[0] == ["make", "demo"]
    assert ["make", "test"] in made


def test_the_settings_file_of_the_readme_is_complete(tmp_path: Path) -> None:
    (example,) = blocks(text_of(README), "toml")
    path = tmp_path / "worker.toml"
    path.write_text(example)
    settings = load_settings(path, [], {})
    assert (ROOT / settings.engine.model.relative_to(tmp_path) / "model.onnx").is_file()


def test_settings_and_files_that_pages_quote_are_there() -> None:
    sections = load_settings(ROOT / "deploy" / "worker.toml", [], {})
    for page in (README, ARCHITECTURE, ROOT / "docs" / "errors.md"):
        quoted = re.findall(r"`([^`\n]+)`", prose(text_of(page)))
        for name in quoted:
            section, dot, field = name.partition(".")
            if dot and section in type(sections).model_fields and re.fullmatch(r"[a-z_]+", field):
                assert hasattr(getattr(sections, section), field), f"{page.name}: {name}"
            if re.fullmatch(r"(?:worker|schemas|tests|demo|docs|bench|models)/[\w./-]*", name):
                assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_every_test_that_the_architecture_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of(ARCHITECTURE))
    assert {name for path, name in named if name not in names_in(ROOT / path)} == set()


def test_every_invariant_has_a_test_that_it_names() -> None:
    section = text_of(ARCHITECTURE).partition("## Invariants")[2].partition("\n## ")[0]
    numbers, *_ = zip(*re.findall(r"^(\d+)\. (.*)$", section, flags=re.MULTILINE), strict=True)
    assert [int(number) for number in numbers] == list(range(1, 17))
    parts = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]
    assert [number for number, part in enumerate(parts, 1) if "`tests/" not in part] == []


def test_every_module_of_the_worker_has_its_place_in_the_architecture() -> None:
    text = text_of(ARCHITECTURE)
    families = re.compile(r"avro.*|settings.*|__init__|cli|clients|deadline|logs|redaction|reference|registry")
    missing = [
        path.name
        for path in sorted((ROOT / "worker").glob("*.py"))
        if not families.fullmatch(path.stem) and f"`worker/{path.name}`" not in text
    ]
    assert not missing


def test_numbers_about_the_guard_are_those_that_were_measured_and_there_was_no_false_alarm() -> None:
    page = text_of(ROOT / "docs" / "guard.md")
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == guard_page_text(RESULTS).strip()
    result = json.loads((RESULTS / "guard.json").read_text(encoding="utf-8"))
    assert result["every"] == 1
    assert result["settings"] == GuardSettings().model_dump()
    assert alarms(result) == 0


def test_every_rule_of_the_guard_is_explained() -> None:
    for page in ("guard.md", "runbook.md"):
        assert not [rule for rule in Rule if f"`{rule}`" not in text_of(ROOT / "docs" / page)]


def test_numbers_on_the_front_page_are_those_that_were_measured() -> None:
    shown = text_of(README).partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == front_page_text(RESULTS).strip()


def test_pictures_are_small() -> None:
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert all(path.stat().st_size <= 200_000 for path in pictures)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["make", "demo", "ARGS=--keep"], False),
        (["make", "coffee"], True),
        ([PROGRAM, "check", "--config", "worker.toml"], False),
        ([PROGRAM, "chekc"], True),
        (["sudo", "make", "demo"], True),
    ],
)
def test_the_check_of_commands_sees_what_is_wrong(words: list[str], wrong: bool) -> None:  # noqa: FBT001
    assert (problem(words) is not None) == wrong


def test_the_check_of_links_sees_anchors_and_leaves_code_alone() -> None:
    text = "# A b, c\n[x](y.md#z)\n```\n[no](no.md)\n```\n"
    assert links(text) == ["y.md#z"]
    assert anchors(text) == {"a-b-c"}

"""Where settings come from, by rising precedence: TOML file < environment < `--set`.

- TOML: `[section]` tables. A librdkafka key under `[kafka]` may be quoted (`"sasl.mechanism"`) or not (`sasl.mechanism`).
- Environment: `FORECAST_WORKER__SECTION__FIELD`. Under `KAFKA__` (and `KAFKA__CONSUMER__`, `KAFKA__PRODUCER__`) each `_`
  stands for a `.`: `FORECAST_WORKER__KAFKA__SASL_PASSWORD` is `sasl.password`.
- `--set section.field=value`; under `kafka.` the rest is librdkafka's key: `--set kafka.sasl.username=reader`.
- Any value may come from a file instead, without its last line break: `password = { file = "/run/secrets/x" }` in TOML,
  the variable's name with `_FILE` after it, or `--set registry.password.file=/run/secrets/x`.
- Relative paths in the TOML file are taken from its folder, all others from the working directory.

Problems are collected, not raised. A value is never part of a message here: it may be a secret.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, get_args, get_origin

from worker.settings_model import SECTIONS

ENVIRONMENT_PREFIX = "FORECAST_WORKER__"
_KAFKA_SIDES = ("consumer", "producer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One value as a source gives it. `path`: section, field (for kafka: `kafka`, side, librdkafka's key)."""

    path: tuple[str, ...]
    value: object
    source: str
    folder: Path | None = None


@dataclass(slots=True)
class Gathered:
    """All sources laid over each other. `complete` is False if a source couldn't be read, so that values may be missing."""

    values: dict[str, dict[str, object]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    complete: bool = True

    def put(self, given: Given) -> None:
        """Lay one value over what is there, or note what is wrong with its name or its file."""
        problem = unknown(given)
        if problem is not None:
            self.problems.append(problem)
            return
        try:
            value = _resolved(given)
        except (OSError, ValueError) as error:
            self.complete = False
            self.problems.append(f"{name_of(given.path)} (from {given.source}): its file can't be read: {_why(error)}")
            return
        target = self.values.setdefault(given.path[0], {})
        if given.path[0] == "kafka":
            side = target.setdefault(given.path[1], {})
            assert isinstance(side, dict)  # noqa: S101 - made one line above
            side[given.path[2]] = value
        else:
            target[given.path[1]] = value
        self.sources[name_of(given.path)] = given.source


def gather(path: Path | None, overrides: Sequence[str], environ: Mapping[str, str]) -> Gathered:
    """Everything that the three sources give. Never raises; see `Gathered.problems`."""
    gathered = Gathered()
    for read in (_from_file(path, gathered), _from_environment(environ), _from_overrides(overrides, gathered)):
        for given in read:
            gathered.put(given)
    return gathered


def name_of(path: Sequence[str]) -> str:
    """A setting's name as it is written after `--set`: `batching.linger_s`, `kafka.sasl.password`."""
    return ".".join(part for part in path if part != "common")


def unknown(given: Given) -> str | None:
    """What is wrong with a setting's name, and what was probably meant. None if nothing is."""
    section, *rest = given.path
    where = f"{name_of(given.path)} (from {given.source})"
    if section not in SECTIONS:
        sections = ", ".join(SECTIONS)
        return f"{where}: there is no section {section!r}{_meant(section, SECTIONS)}; the sections are {sections}"
    if not rest:
        return f"{where}: got a single value, expected a table; write [{section}] and its settings below it"
    if section == "kafka":
        return None if rest[-1] else f"{where}: got no key, expected one of librdkafka's, e.g. kafka.bootstrap.servers"
    name = ".".join(rest)
    if name in SECTIONS[section].model_fields:
        return None
    fields = list(SECTIONS[section].model_fields)
    elsewhere = [f"{other}.{name}" for other, model in SECTIONS.items() if name in model.model_fields]
    hint = f" (did you mean {elsewhere[0]}?)" if elsewhere else _meant(name, fields)
    return f"{where}: there is no such setting{hint}; [{section}] has {', '.join(fields)}"


def _meant(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _from_file(path: Path | None, gathered: Gathered) -> Iterator[Given]:
    if path is None:
        return
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        gathered.complete = False
        gathered.problems.append(
            f"{path}: not valid TOML: {error}; expected tables such as [kafka] with key = value lines"
        )
        return
    except (OSError, ValueError) as error:
        gathered.complete = False
        gathered.problems.append(
            f"{path}: can't be read: {_why(error)}; expected a TOML file in UTF-8, name another one with --config"
        )
        return
    for section, table in tables.items():
        if not isinstance(table, dict) or (section != "kafka" and not table):
            if not isinstance(table, dict) or section not in SECTIONS:
                yield Given(path=(section,), value=table, source=str(path))
            continue
        values = _kafka_values(table) if section == "kafka" else (((key,), value) for key, value in table.items())
        for rest, value in values:
            yield Given(path=(section, *rest), value=value, source=str(path), folder=path.parent)


def _kafka_values(table: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in table.items():
        side = key if key in _KAFKA_SIDES and isinstance(value, dict) else "common"
        entries = _flat("", value) if side != "common" else _flat(key, value)
        for name, leaf in entries:
            yield (side, name), leaf


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """TOML reads an unquoted `sasl.mechanism` as a table in a table; librdkafka's key is both parts with a dot."""
    if not isinstance(value, dict) or (set(value) == {"file"} and prefix):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(f"{prefix}.{key}" if prefix else key, inner)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        parts = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        value: object = environ[variable]
        if parts[-1].endswith("_file"):
            parts[-1] = parts[-1].removesuffix("_file")
            value = {"file": value}
        if parts[0] == "kafka" and len(parts) > 1:
            side = parts[1] if len(parts) > 2 and parts[1] in _KAFKA_SIDES else "common"
            key = "_".join(parts[1 if side == "common" else 2 :]).replace("_", ".")
            yield Given(path=("kafka", side, key), value=value, source=variable)
        else:
            yield Given(path=tuple(parts), value=value, source=variable)


def _from_overrides(overrides: Sequence[str], gathered: Gathered) -> Iterator[Given]:
    for text in overrides:
        name, equals, raw = text.partition("=")
        parts = name.strip().split(".")
        if not equals or len(parts) < 2 or not all(parts):
            gathered.problems.append(
                f"--set {name.strip()!r}: expected section.key=value, e.g. --set batching.linger_s=0.05"
            )
            continue
        value: object = raw
        if parts[-1] == "file" and len(parts) > 2:
            parts.pop()
            value = {"file": raw}
        if parts[0] == "kafka":
            side = parts[1] if parts[1] in _KAFKA_SIDES and len(parts) > 2 else "common"
            rest = parts[1 if side == "common" else 2 :]
            yield Given(path=("kafka", side, ".".join(rest)), value=value, source="--set")
        else:
            yield Given(path=tuple(parts), value=value, source="--set")


def _resolved(given: Given) -> object:
    """The value itself: read from its file, or made a path from the file's folder, where it is one."""
    folder = given.folder or Path()
    value = given.value
    if isinstance(value, dict) and set(value) == {"file"} and isinstance(value["file"], str):
        return (folder / value["file"]).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    if given.folder is None or given.path[0] == "kafka" or not _is_path(given.path):
        return value
    if isinstance(value, str):
        return str(folder / value)
    return (
        [str(folder / item) if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
    )


def _is_path(path: Sequence[str]) -> bool:
    return Path in _types(SECTIONS[path[0]].model_fields[path[1]].annotation)


def _types(annotation: object) -> set[object]:
    if get_origin(annotation) in {UnionType, tuple, Annotated}:
        return {found for argument in get_args(annotation) for found in _types(argument)}
    return {annotation}


def _why(error: OSError | ValueError) -> str:
    """The cause without the text that could not be decoded, which may be a secret."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror} ({error.filename})"
    return str(error)

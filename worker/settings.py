"""Loading the settings: lay the sources over each other, check everything, report all problems at once.

`settings_model.py` has the values, `settings_sources.py` says where they come from and what the rules for secrets are,
`settings_checks.py` what must agree. Loaded settings never change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.errors import SettingsError
from worker.redaction import is_secret
from worker.settings_checks import disagreements
from worker.settings_model import SECTIONS, Settings
from worker.settings_section import Section
from worker.settings_sources import Gathered, gather, name_of

__all__ = ["Settings", "load_settings"]

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "path_type": "a path in quotes",
    "tuple_type": 'a list such as ["a", "b"]',
    "dict_type": "a table",
    "too_short": "at least one entry",
    "string_too_short": "text that isn't empty",
    "string_too_long": "at most {max_length} characters",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text of the form {pattern}",
    "missing": "a value",
}
"""Kind of pydantic's error -> what was expected, in words."""


def load_settings(path: Path | None, overrides: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The effective settings: defaults < the TOML file at `path` < `environ` < `overrides` ("section.key=value").

    Raises `SettingsError` with every problem of every source. Reads `path` and the files that secrets are in, nothing else.
    """
    gathered = gather(path, overrides, environ)
    valid: dict[type[Section], Section] = {}
    problems = list(gathered.problems)
    for name, model in SECTIONS.items():
        try:
            valid[model] = model.model_validate(gathered.values.get(name, {}))
        except ValidationError as error:
            problems += _described(name, error, gathered)
    if gathered.complete:
        problems += disagreements(valid)
    if problems:
        raise SettingsError(problems)
    return Settings(**{name: valid[model] for name, model in SECTIONS.items()})  # type: ignore[arg-type]


def _described(section: str, error: ValidationError, gathered: Gathered) -> Iterator[str]:
    """One sentence for each wrong value: where, got, expected, remedy."""
    seen: set[str] = set()
    for detail in error.errors(include_url=False):
        depth = 2 if section == "kafka" else 1
        name = name_of((section, *(str(part) for part in detail["loc"][:depth])))
        if name in seen or (detail["type"] == "missing" and not gathered.complete):
            continue
        seen.add(name)
        if detail["type"] == "missing":
            yield f"{name}: got nothing, expected a value; set it under [{section}] or with --set {name}=..."
            continue
        source = gathered.sources.get(name, "default")
        remedy = "correct or remove it" if section == "kafka" else f"see {name} in docs/settings.md"
        yield f"{name} (from {source}): got {_shown(name, detail['input'])}, expected {_expected(section, detail)}; {remedy}"


def _expected(section: str, detail: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails, a dict that its core types
    if section == "kafka":
        return "text, a number, true or false (librdkafka takes no lists or tables)"
    template = _EXPECTED.get(detail["type"])
    return template.format(**detail.get("ctx", {})) if template else str(detail["msg"])


def _shown(name: str, value: object) -> str:
    if is_secret(name.removeprefix("kafka.")):
        return f"a secret of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""Writes the reference tables of the documentation from the declarations, so that they can't disagree with the code.

python -m worker.reference --write docs     write docs/metrics.md and docs/settings.md
python -m worker.reference                  print them
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from worker.metrics import METRICS
from worker.settings_checks import OWNED
from worker.settings_model import SECTIONS

_METRICS_HEAD = """\
# Metrics

Generated from `worker/metrics.py` by `make docs`; do not edit. Served as `/metrics` on `server.port`, next to the
process's own (`process_resident_memory_bytes`, `process_cpu_seconds_total` …). Counters count since the process started.

| Metric | Type | Labels | Meaning and unit |
| --- | --- | --- | --- |
"""

_SETTINGS_HEAD = """\
# Settings

Generated from `worker/settings_model.py` by `make docs`; do not edit.

By rising precedence: defaults, the TOML file of `--config`, environment variables `FORECAST_WORKER__SECTION__KEY`,
`--set section.key=value`. Unknown settings are errors, and all problems are reported at once.
`forecast-worker settings --config worker.toml` prints what is in effect, without secrets.

**librdkafka's own settings** go under `[kafka]`, `[kafka.consumer]` and `[kafka.producer]` by their names, quoted or not.
In the environment each `_` stands for a `.`: `FORECAST_WORKER__KAFKA__SASL_PASSWORD` is `sasl.password`.

**Secrets, and any other value, may come from a file**, without its last line break:
`password = { file = "/run/secrets/registry" }` in TOML, `FORECAST_WORKER__REGISTRY__PASSWORD_FILE=/run/secrets/registry`
in the environment, or `--set registry.password.file=/run/secrets/registry`.

Relative paths in the TOML file are taken from its folder, all others from the working directory. Lists are written
`["a", "b"]` in TOML, and `a,b` elsewhere. All times are in seconds (`_s`), all sizes in bytes (`_bytes`).

```toml
[kafka]
bootstrap.servers = "broker-1:9092,broker-2:9092"
security.protocol = "SASL_SSL"
sasl.mechanism = "SCRAM-SHA-512"
sasl.username = "forecast-worker"
sasl.password = { file = "/run/secrets/kafka" }

[engine]
model = "models/demand"

[delivery]
transactional_id = "forecast-worker-0"
```
"""


def metrics_page() -> str:
    """docs/metrics.md."""
    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    )
    return _METRICS_HEAD + "\n".join(rows) + "\n"


def settings_page() -> str:
    """docs/settings.md."""
    parts = [_SETTINGS_HEAD]
    for name, model in SECTIONS.items():
        rows = "\n".join(
            f"| `{field}` | {_type(info.annotation)}{_bounds(info.metadata)} | {_default(info)} | {info.description} |"
            for field, info in model.model_fields.items()
        )
        parts.append(
            f"\n## [{name}]\n\n{model.__doc__}\n\n| Setting | Type | Default | Meaning |\n| --- | --- | --- | --- |\n{rows}\n"
        )
        if name == "kafka":
            owned = "\n".join(f"| `{key}` | {remedy} |" for key, remedy in OWNED.items())
            parts.append(
                f"\nRefused here, because the worker sets them itself:\n\n| Key | Instead |\n| --- | --- |\n{owned}\n"
            )
    return "".join(parts)


def pages() -> Mapping[str, str]:
    """File name below docs/ -> its content."""
    return {"metrics.md": metrics_page(), "settings.md": settings_page()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or print them."""
    parser = argparse.ArgumentParser(prog="python -m worker.reference", description="Write the reference tables.")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write into this folder instead of printing")
    folder: Path | None = parser.parse_args(arguments).write
    for name, text in pages().items():
        if folder is None:
            sys.stdout.write(text)
        else:
            (folder / name).write_text(text, encoding="utf-8")
    return 0


def _type(annotation: object) -> str:
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(_type(argument) for argument in arguments if argument is not NoneType)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "table"
    names = {
        "str": "text",
        "int": "integer",
        "float": "number",
        "bool": "boolean",
        "Path": "path",
        "SecretStr": "secret",
    }
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _bounds(metadata: Sequence[object]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(bound, name)}"
        for bound in metadata
        for name, sign in signs.items()
        if getattr(bound, name, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""


def _default(info: FieldInfo) -> str:
    if info.default_factory is not None:
        return "empty"
    if info.is_required():
        return "**required**"
    value = info.default
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(f'{item!s}' for item in value)}]`"
    return f"`{value}`"


if __name__ == "__main__":
    raise SystemExit(main())

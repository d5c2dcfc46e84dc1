import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from worker.settings import load_settings

NEEDED = ["kafka.bootstrap.servers=broker:9092", "engine.model=m", "delivery.transactional_id=worker-0"]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)
SETTINGS = {
    "engine.slots": st.integers(1, 64),
    "breaker.window_records": st.integers(1, 10**9),
    "breaker.rejected_share": st.floats(0.001, 1.0),
    "output.headers": st.booleans(),
    "log.format": st.sampled_from(["json", "text"]),
    "input.group_id": TEXT,
    "registry.ca_location": st.sampled_from(["/a", "/b", "/c"]),
    "kafka.client.id": TEXT,
    "kafka.consumer.client.rack": TEXT,
}
SOURCES = ("file", "environment", "set")


def split(name: str) -> tuple[str, str]:
    for table in ("kafka.consumer", "kafka"):
        if name.startswith(f"{table}."):
            return table, name.removeprefix(f"{table}.")
    table, _, key = name.partition(".")
    return table, key


def plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.fixed_dictionaries({}, optional=dict.fromkeys(SOURCES, values))
            for name, values in SETTINGS.items()
        },
    )
)
def test_the_highest_source_that_gives_a_value_wins(given_values: dict[str, dict[str, object]]) -> None:
    tables: dict[str, list[str]] = {}
    environ: dict[str, str] = {}
    overrides = list(NEEDED)
    for name, by_source in given_values.items():
        table, key = split(name)
        if "file" in by_source:
            shown = json.dumps(by_source["file"], ensure_ascii=False)
            tables.setdefault(table, []).append(f'"{key}" = {shown}')
        if "environment" in by_source:
            variable = "__".join([*table.split("."), key.replace(".", "_")]).upper()
            environ[f"FORECAST_WORKER__{variable}"] = plain(by_source["environment"])
        if "set" in by_source:
            overrides.append(f"{name}={plain(by_source['set'])}")
    text = "\n".join(f"[{table}]\n" + "\n".join(lines) for table, lines in tables.items())
    with TemporaryDirectory() as folder:
        path = Path(folder, "worker.toml")
        path.write_text(text, encoding="utf-8")
        effective = load_settings(path, overrides, environ).redacted()
    defaults = load_settings(None, NEEDED, {}).redacted()
    for name in SETTINGS:
        table, key = split(name)
        winners = [given_values[name][source] for source in SOURCES if source in given_values.get(name, {})]
        found, expected = effective[table].get(key), winners[-1] if winners else defaults[table].get(key)
        assert (found if expected is None else plain(found)) == (None if expected is None else plain(expected)), name

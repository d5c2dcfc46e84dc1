"""Whatever the file, the environment and the command line say: Settings or one SettingsError, and no secret in either."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from worker.errors import SettingsError
from worker.settings import load_settings
from worker.settings_model import SECTIONS

SECRET = "hush5551234"
NEEDED = ["kafka.bootstrap.servers=broker:9092", "engine.model=m", "delivery.transactional_id=worker-0"]
NAMES = sorted({field for model in SECTIONS.values() for field in model.model_fields})
SECTION = st.sampled_from([*SECTIONS, "kafka.consumer", "kafka.producer", "nosuch"])
KEY = st.sampled_from([*NAMES, "sasl.password", "acks", '"x y"', "file", "a.b.file", "fetch.max.bytes"])
VALUE = st.sampled_from(
    [
        *("true", "0", "-1", "1.5", "nan", "inf", "99999999999999999999999", "''", "'off'", "'a,b'", '"\\u0000"'),
        *(
            "[]",
            "['a']",
            "[1, [2]]",
            "{}",
            "{file = 'absent'}",
            "{file = '\\u0000'}",
            '{file = "\\u0000"}',
            "{file = 1}",
        ),
        *("1979-05-27", "{a = {b = 1}}", "'exactly_once'", "'consumer'"),
    ]
)
LINE = st.builds("{} = {}".format, KEY, VALUE) | SECTION.map("[{}]".format) | st.text(max_size=20)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
OVERRIDE = st.builds("{}.{}={}".format, SECTION, KEY, PLAIN | VALUE) | PLAIN
VARIABLE = st.builds(
    lambda section, key: f"FORECAST_WORKER__{section}__{key}".upper().replace(".", "_"), SECTION, KEY | PLAIN
)


def outcome(path: Path, overrides: list[str], environ: dict[str, str]) -> str:
    try:
        return load_settings(path, overrides, environ).describe()
    except SettingsError as error:
        return str(error)


@given(st.lists(LINE, max_size=12), st.lists(OVERRIDE, max_size=4), st.dictionaries(VARIABLE, PLAIN, max_size=3))
def test_settings_or_a_settings_error(lines: list[str], overrides: list[str], environ: dict[str, str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "worker.toml")
        path.write_text("\n".join(lines), encoding="utf-8")
        secrets = ["registry.username=me", f"registry.password={SECRET}", f"kafka.sasl.password={SECRET}"]
        assert SECRET not in outcome(path, [*NEEDED, *secrets, *overrides], environ)


@given(st.binary(max_size=60))
def test_any_bytes_as_the_file(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "worker.toml")
        path.write_bytes(content)
        assert outcome(path, NEEDED, {})

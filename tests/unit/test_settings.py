from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from worker.clients import CONSUMER_DEFAULTS, PRODUCER_DEFAULTS, consumer_config, producer_config
from worker.errors import SettingsError
from worker.settings import Settings, load_settings
from worker.settings_checks import OWNED
from worker.settings_model import SECTIONS, BatchingSettings

NEEDED = ("kafka.bootstrap.servers=broker:9092", "engine.model=models/demand", "delivery.transactional_id=worker-0")


def load(overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None, path: Path | None = None) -> Settings:
    return load_settings(path, [*NEEDED, *overrides], environ or {})


def problems(
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
    needed: Sequence[str] = NEEDED,
) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        load_settings(path, [*needed, *overrides], environ or {})
    return raised.value.problems


def written(folder: Path, text: str) -> Path:
    path = folder / "worker.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_documentation() -> None:
    settings = load()
    assert settings.kafka.common == {"bootstrap.servers": "broker:9092"}
    assert settings.engine.model == Path("models/demand")
    assert (settings.input.topic, settings.output.topic) == ("sku-features", "sku-forecasts")
    assert settings.output.dead_letter_topic == "sku-features.dead-letters"
    assert settings.wire.key_fields == ("sku_id", "store_id")
    assert settings.batching.max_rows == 4096
    assert settings.delivery.guarantee == "exactly_once"
    assert settings.server.port == 9108


def test_rising_precedence_of_file_environment_and_set(tmp_path: Path) -> None:
    path = written(tmp_path, "[batching]\nmax_rows = 1\nlinger_s = 0.1\nmax_wait_s = 0.2\n")
    environ = {"FORECAST_WORKER__BATCHING__LINGER_S": "0.3", "FORECAST_WORKER__BATCHING__MAX_WAIT_S": "0.4"}
    settings = load(["batching.max_wait_s=0.6"], environ, path)
    assert settings.batching == BatchingSettings(max_rows=1, linger_s=0.3, max_wait_s=0.6)


def test_librdkafka_keys_from_every_source(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [kafka]
        "security.protocol" = "SASL_SSL"
        sasl.mechanism = "PLAIN"
        ssl.endpoint.identification.algorithm = "https"
        socket.keepalive.enable = true
        [kafka.consumer]
        fetch.min.bytes = 10
        [kafka.producer]
        "linger.ms" = 2.5
        """,
    )
    environ = {
        "FORECAST_WORKER__KAFKA__SASL_USERNAME": "reader",
        "FORECAST_WORKER__KAFKA__CONSUMER__FETCH_MIN_BYTES": "20",
    }
    settings = load(["kafka.producer.batch.size=100", "kafka.sasl.mechanism=SCRAM-SHA-512"], environ, path)
    assert settings.kafka.common == {
        "bootstrap.servers": "broker:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "ssl.endpoint.identification.algorithm": "https",
        "socket.keepalive.enable": True,
        "sasl.username": "reader",
    }
    assert settings.kafka.consumer == {"fetch.min.bytes": "20"}
    assert settings.kafka.producer == {"linger.ms": 2.5, "batch.size": "100"}


def test_secrets_from_files_in_every_source(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("first\n")
    (tmp_path / "two").write_text("second\r\n")
    path = written(tmp_path, '[kafka]\nsasl.password = { file = "one" }\n[registry]\nusername = "me"\n')
    environ = {"FORECAST_WORKER__REGISTRY__PASSWORD_FILE": str(tmp_path / "two")}
    settings = load([f"kafka.consumer.ssl.key.password.file={tmp_path / 'one'}"], environ, path)
    assert settings.kafka.common["sasl.password"] == "first"
    assert settings.kafka.consumer["ssl.key.password"] == "first"
    assert settings.registry.password is not None
    assert settings.registry.password.get_secret_value() == "second"
    again = load([], {"FORECAST_WORKER__KAFKA__SASL_PASSWORD_FILE": str(tmp_path / "one")})
    assert again.kafka.common["sasl.password"] == "first"


def test_paths_of_the_file_are_taken_from_its_folder_and_others_as_they_are(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[wire]\nfeatures = "a.avsc"\nwriter_schemas = ["b.avsc", "/c.avsc"]\n[registry]\nca_location = "ca.pem"\n',
    )
    settings = load(["wire.forecast=d.avsc"], {}, path)
    assert settings.wire.features == tmp_path / "a.avsc"
    assert settings.wire.writer_schemas == (tmp_path / "b.avsc", Path("/c.avsc"))
    assert settings.registry.ca_location == tmp_path / "ca.pem"
    assert settings.wire.forecast == Path("d.avsc")


@pytest.mark.parametrize("text", ["store, sku", '["store", "sku"]'])
def test_lists_as_text(text: str) -> None:
    assert load([f"wire.key_fields={text}"]).wire.key_fields == ("store", "sku")


def test_server_can_be_off() -> None:
    assert load(["server.port=off"]).server.port is None


@pytest.mark.parametrize("key", sorted(OWNED))
@pytest.mark.parametrize("side", ["", "consumer.", "producer."])
def test_keys_that_the_worker_owns_are_refused_with_what_to_set_instead(key: str, side: str) -> None:
    (problem,) = problems([f"kafka.{side}{key}=x"])
    assert problem.startswith(f"kafka.{side}{key}: ")
    assert OWNED[key] in problem


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["delivery.commit_interval_s=10.5"], "delivery.transaction_timeout_s: got 15.0, expected more than"),
        (["delivery.revoke_budget_s=14.5"], "delivery.transaction_timeout_s: got 15.0, expected more than"),
        (["batching.linger_s=0.6"], "batching.linger_s: got 0.6, expected at most batching.max_wait_s = 0.5"),
        (["batching.max_wait_s=10"], "batching.max_wait_s: got 10.0, expected less than"),
        (["models.hold_s=9.5"], "models.hold_s: got 9.5, expected less than"),
        (["engine.max_rows=4095"], "batching.max_rows: got 4096, expected at most engine.max_rows = 4095"),
        (["wire.framing=confluent"], "registry.url: got nothing"),
        (
            ["wire.framing=confluent", "registry.url=http://r", "wire.writer_schemas=a.avsc"],
            "wire.writer_schemas: got some, expected none",
        ),
        (["registry.username=me"], "registry.password: got nothing"),
        (["registry.password=hush"], "registry.username: got nothing"),
        (["shutdown.grace_s=4"], "shutdown.grace_s: got 4.0, expected at least"),
        (["output.topic=sku-features"], "output.topic: got 'sku-features', which input.topic is too"),
        (["output.dead_letter_topic=sku-features"], "output.dead_letter_topic: got"),
        (["output.dead_letter_topic=sku-forecasts"], "output.dead_letter_topic: got"),
        (["input.group_protocol=consumer", "kafka.session.timeout.ms=9"], "kafka.session.timeout.ms: not allowed with"),
        (
            ["input.group_protocol=consumer", "kafka.consumer.heartbeat.interval.ms=9"],
            "kafka.consumer.heartbeat.interval.ms: not allowed with",
        ),
    ],
)
def test_settings_that_disagree(overrides: list[str], expected: str) -> None:
    found = problems(overrides)
    assert any(problem.startswith(expected) for problem in found), found


@pytest.mark.parametrize("side", ["consumer", "producer"])
def test_both_clients_use_one_cluster(side: str) -> None:
    (problem,) = problems([f"kafka.{side}.bootstrap.servers=other:9092"])
    assert problem.startswith(f"kafka.{side}.bootstrap.servers: got a value, expected none")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_what_the_worker_sets_itself_is_refused_under_kafka(protocol: str, guarantee: str) -> None:
    settings = load(
        [f"input.group_protocol={protocol}", f"delivery.guarantee={guarantee}", "input.group_instance_id=a"]
    )
    owned = {*consumer_config(settings), *producer_config(settings)} - {
        *CONSUMER_DEFAULTS,
        *PRODUCER_DEFAULTS,
        *settings.kafka.common,
    }
    assert owned <= set(OWNED)


def test_exactly_once_needs_a_stable_transactional_id_and_at_least_once_none() -> None:
    (problem,) = problems(needed=NEEDED[:2])
    assert problem.startswith("delivery.transactional_id: got nothing")
    assert "StatefulSet" in problem
    settings = load_settings(None, [*NEEDED[:2], "delivery.guarantee=at_least_once"], {})
    assert settings.delivery.transactional_id is None


def test_a_password_in_the_registry_url_is_refused_and_not_repeated() -> None:
    (problem,) = problems(["registry.url=http://me:hush@registry:8081"])
    assert problem.startswith("registry.url: holds a user name or password")
    assert "hush" not in problem


def test_nothing_given_names_all_that_is_needed() -> None:
    found = problems(needed=())
    assert [problem.split(": ")[0] for problem in found] == [
        "engine.model",
        "kafka.bootstrap.servers",
        "delivery.transactional_id",
    ]


def test_all_problems_of_all_sources_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, '[batchin]\nmax_rows = 1\n[log]\nlevel = "loud"\n[output]\ntopic = "sku-features"\n')
    environ = {"FORECAST_WORKER__BATCHING__MAX_ROWZ": "1"}
    found = problems(["nonsense", "engine.slots=many", "kafka.group.id=x"], environ, path)
    joined = "\n".join(found)
    assert len(found) == 7, joined
    assert f"batchin.max_rows (from {path}): there is no section 'batchin' (did you mean batching?)" in joined
    assert f"log.level (from {path}): got 'loud', expected 'debug', 'info', 'warning' or 'error'" in joined
    assert "(from FORECAST_WORKER__BATCHING__MAX_ROWZ): there is no such setting (did you mean max_rows?)" in joined
    assert "--set 'nonsense': expected section.key=value" in joined
    assert "engine.slots (from --set): got 'many', expected a whole number" in joined
    assert "kafka.group.id: the worker sets this itself; set input.group_id instead" in joined
    assert "output.topic: got 'sku-features', which input.topic is too" in joined


def test_a_setting_in_the_wrong_section_is_pointed_to_the_right_one() -> None:
    (problem,) = problems(["batching.commit_interval_s=1"])
    assert "did you mean delivery.commit_interval_s?" in problem


@pytest.mark.parametrize("override", ["batching.linger_s.x=1", "kafka.=1", "=1", "batching=1"])
def test_names_that_are_no_settings(override: str) -> None:
    assert len(problems([override])) == 1


@pytest.mark.parametrize(
    "variable", ["FORECAST_WORKER__KAFKA", "FORECAST_WORKER__KAFKA__", "FORECAST_WORKER__BATCHING"]
)
def test_variables_that_are_no_settings(variable: str) -> None:
    (problem,) = problems([], {variable: "1"})
    assert variable in problem


def test_other_variables_are_no_concern() -> None:
    assert load([], {"FORECAST_WORKER_HOME": "/x", "PATH": "/bin"}) == load()


@pytest.mark.parametrize("text", ["batching = 1", "[nosuch]", "nosuch = 1"])
def test_tables_that_are_none(tmp_path: Path, text: str) -> None:
    assert len(problems(path=written(tmp_path, text))) == 1


def test_an_empty_known_table_is_fine(tmp_path: Path) -> None:
    assert load(path=written(tmp_path, "[batching]\n[kafka]\n")) == load()


def test_a_syntax_error_hides_nothing_else_and_invents_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "[kafka\n")
    found = problems(["engine.slots=many"], {}, path, needed=())
    assert len(found) == 2
    assert found[0].startswith(f"{path}: not valid TOML")
    assert found[1].startswith("engine.slots")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9hush")
    absent = tmp_path / "absent.toml"
    assert problems(path=absent)[0].startswith(f"{absent}: can't be read: No such file or directory")
    assert problems(path=tmp_path)[0].startswith(f"{tmp_path}: can't be read: Is a directory")
    assert "not text in UTF-8" in problems(path=tmp_path / "latin")[0]
    (problem,) = problems([f"registry.password.file={tmp_path / 'latin'}"])
    assert "its file can't be read: it is not text in UTF-8" in problem
    assert "hush" not in problem
    (problem,) = problems([], {"FORECAST_WORKER__REGISTRY__PASSWORD_FILE": str(tmp_path / "absent")})
    assert problem.startswith(
        "registry.password (from FORECAST_WORKER__REGISTRY__PASSWORD_FILE): its file can't be read"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[engine]\nslots = 1.5", "got 1.5, expected a whole number"),
        ("[engine]\nslots = 0", "got 0, expected at least 1"),
        ("[breaker]\nrejected_share = 1.5", "got 1.5, expected at most 1"),
        ("[delivery]\ncommit_interval_s = 0", "got 0, expected more than 0"),
        ("[delivery]\ncommit_interval_s = inf", "got inf, expected a finite number"),
        ("[output]\nheaders = 'perhaps'", "got 'perhaps', expected true or false"),
        ("[output]\ntopic = 'a b'", "got 'a b', expected text of the form"),
        ("[output]\ntopic = ''", "got '', expected text that isn't empty"),
        ("[wire]\nkey_fields = []", "got [], expected at least one entry"),
        ("[wire]\nkey_fields = 3", "got 3, expected a list such as"),
        ("[wire]\nfeatures = 3", "got 3, expected a path in quotes"),
        ("[kafka]\ndebug = ['a']", "got ['a'], expected text, a number, true or false"),
        ("[kafka]\nsasl.password = ['hush']", "got a secret of type list"),
        ("[registry]\npassword = 5551234", "got a secret of type int"),
    ],
)
def test_wrong_values_say_where_got_and_expected(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    found = problems(path=path)
    assert any(f"(from {path}): {expected}" in problem for problem in found), found
    assert not any("hush" in problem or "5551234" in problem for problem in found)


def test_long_values_are_cut_short() -> None:
    (problem,) = problems([f"engine.slots={'9a' * 500}"])
    assert len(problem) < 300


def test_no_way_of_printing_settings_shows_a_secret() -> None:
    settings = load(
        [
            "kafka.sasl.password=hush-1",
            "kafka.producer.ssl.key.pem=hush-2",
            "kafka.sasl.oauthbearer.config=x=hush-3",
            "registry.username=me",
            "registry.password=hush-4",
            "kafka.consumer.sasl.oauthbearer.token.endpoint.url=https://me:hush-5@idp/token",
        ]
    )
    for shown in (settings.describe(), repr(settings), str(settings), repr(settings.kafka), str(settings.redacted())):
        assert "hush" not in shown
    assert '"sasl.password" = "**********"' in settings.describe()


def test_the_description_is_a_settings_file_that_gives_the_same_settings(tmp_path: Path) -> None:
    settings = load(
        [
            "server.port=off",
            'kafka.client.id=ö"\\',
            "kafka.consumer.fetch.min.bytes=5",
            "engine.model=/m",
            "wire.writer_schemas=/a.avsc,/b.avsc",
            "output.headers=yes",
        ]
    )
    path = written(tmp_path, settings.describe())
    assert load_settings(path, [], {}) == settings


def test_settings_are_frozen() -> None:
    settings = load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.batching.max_rows = 1


def test_no_field_is_mistaken_for_a_file_of_one() -> None:
    assert not [f for model in SECTIONS.values() for f in model.model_fields if f == "file" or f.endswith("_file")]


def test_every_setting_is_documented_and_secrets_are_typed_so() -> None:
    for name, model in SECTIONS.items():
        assert model.__doc__, name
        for field, info in model.model_fields.items():
            assert info.description, f"{name}.{field}"
            assert ("password" in field) == (info.annotation == SecretStr | None), f"{name}.{field}"

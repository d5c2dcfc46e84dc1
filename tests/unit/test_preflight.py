from __future__ import annotations

import logging
import shutil
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from schemas.engine_card import CARD_NAME, CardError, load_card
from tests.helpers.clock import ManualClock
from tests.helpers.confluent import failing, kafka_error
from tests.helpers.models import tiny_model
from worker import preflight
from worker.errors import ConfigurationError, ContractError, UnreachableError
from worker.preflight import Cluster, find_model, rows_per_batch
from worker.publish import Routing
from worker.settings_model import BatchingSettings, EngineSettings, KafkaSettings, OutputSettings, Settings


def settings(**sections: Any) -> Settings:
    sections.setdefault("engine", EngineSettings(model=Path("model")))
    return Settings(kafka=KafkaSettings(common={"bootstrap.servers": "broker:9092"}), **sections)


class Later:
    """One answer, and another one for all questions after it."""

    def __init__(self, first: Any, then: Any) -> None:
        self._answers = [first, then]

    def __call__(self) -> Any:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class FakeAdmin:
    """The topics that a broker tells of."""

    def __init__(self, config: dict[str, Any], *, logger: logging.Logger) -> None:
        assert config == {"bootstrap.servers": "broker:9092"}
        assert logger.name == "preflight"
        self.topics: dict[str, Any] = {}
        self.failure: Exception | None = None
        self.failures: list[Exception] = []
        self.configs: dict[str, Any] = {}
        self.creation: Exception | None = None
        self.created: list[Any] = []

    def list_topics(self, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        if self.failures:
            raise self.failures.pop(0)
        if self.failure:
            raise self.failure
        return SimpleNamespace(topics=self.topics)

    def describe_configs(self, resources: list[Any], *, request_timeout: float) -> dict[Any, Future[Any]]:
        assert request_timeout > 0
        return {resource: self._answer(self.configs.get(resource.name, {})) for resource in resources}

    def create_topics(self, new: list[Any]) -> dict[str, Future[Any]]:
        self.created = [(topic.topic, topic.num_partitions, topic.config) for topic in new]
        return {topic.topic: self._answer(self.creation) for topic in new}

    def _answer(self, content: Any) -> Future[Any]:
        future: Future[Any] = Future()
        content = content() if isinstance(content, Later) else content
        if isinstance(content, Exception):
            future.set_exception(content)
        else:
            future.set_result({name: SimpleNamespace(value=value) for name, value in (content or {}).items()})
        return future

    def has(self, **partitions: int) -> None:
        self.topics = {
            name.replace("_", "-"): SimpleNamespace(partitions=dict.fromkeys(range(count)), error=None)
            for name, count in partitions.items()
        }


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(preflight, "AdminClient", FakeAdmin)
    writes = OutputSettings(topic="sku-forecasts", dead_letter_topic="dead-letters", headers=True)
    clock = ManualClock()
    return Cluster(settings(output=writes), logging.getLogger("preflight"), clock=clock, pause=clock.advance)


def admin(cluster: Cluster) -> FakeAdmin:
    fake: Any = cluster.admin
    assert isinstance(fake, FakeAdmin)
    return fake


def test_partitions_are_those_of_sound_topics(cluster: Cluster) -> None:
    admin(cluster).has(sku_features=4, other=1)
    admin(cluster).topics["broken"] = SimpleNamespace(partitions={}, error=kafka_error())
    assert cluster.partitions() == {"sku-features": 4, "other": 1}


def test_a_broker_that_does_not_answer_is_named(cluster: Cluster) -> None:
    admin(cluster).failure = failing(kafka_error(KafkaError._TRANSPORT))
    with pytest.raises(UnreachableError, match=r"no broker answers at broker:9092 within 10 s \(reason -195\)"):
        cluster.partitions()


@pytest.mark.parametrize(("forecasts", "letters"), [(4, 1), (3, 4), (4, 4)])
def test_partitions_are_kept_where_the_counts_agree(cluster: Cluster, forecasts: int, letters: int) -> None:
    admin(cluster).has(sku_features=4, sku_forecasts=forecasts, dead_letters=letters)
    assert cluster.routing() == Routing(
        forecasts="sku-forecasts",
        dead_letters="dead-letters",
        same_partitions=forecasts == 4,
        same_dead_letter_partitions=letters == 4,
        headers=True,
    )


def test_all_missing_topics_are_named_at_once(cluster: Cluster) -> None:
    admin(cluster).has(sku_forecasts=4)
    with pytest.raises(UnreachableError, match="topics that don't exist: sku-features, dead-letters; create them"):
        cluster.routing()


def test_a_model_is_a_folder_or_the_file(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny")
    card = load_card(folder / CARD_NAME)
    assert find_model(folder) == find_model(folder / "model.onnx") == (folder / "model.onnx", card)


def test_a_model_under_another_name_has_its_card_beside_it(tmp_path: Path) -> None:
    other = (tiny_model(tmp_path) / "model.onnx").rename(tmp_path / "other.onnx")
    assert find_model(other)[0] == other


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ContractError, match=r"engine\.model: there is no file .*; expected a folder with"):
            find_model(path)


def test_a_model_without_a_card(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    (folder / CARD_NAME).unlink()
    with pytest.raises(ContractError, match=r"model\.onnx has no card\.json beside it"):
        find_model(folder)


def test_a_card_that_is_wrong(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    (folder / CARD_NAME).write_text("{}")
    with pytest.raises(CardError, match=r"engine card .*card\.json:"):
        find_model(folder)


def limits(tmp_path: Path, batch: int, engine: int | None) -> int:
    """What `rows_per_batch` says to a card that ends at 64 rows."""
    card = load_card(tiny_model(tmp_path, max_rows=64) / CARD_NAME)
    chosen = settings(engine=EngineSettings(model=tmp_path, max_rows=engine), batching=BatchingSettings(max_rows=batch))
    return rows_per_batch(chosen, card)


@pytest.mark.parametrize(("batch", "engine"), [(64, None), (1, None), (32, 32), (64, 64)])
def test_batches_are_as_large_as_asked_for(tmp_path: Path, batch: int, engine: int | None) -> None:
    assert limits(tmp_path, batch, engine) == batch


def test_a_batch_beyond_the_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"batching\.max_rows: got 65, the engine takes at most 64 rows"):
        limits(tmp_path, 65, None)
    with pytest.raises(ContractError, match=r"batching\.max_rows: got 33, the engine takes at most 32 rows"):
        limits(tmp_path, 33, 32)


def test_an_engine_beyond_its_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"engine\.max_rows: got 65, the card's profile ends at 64"):
        limits(tmp_path, 1, 65)


def test_a_store_gives_its_current_version(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "models" / "bakery-smoother"
    version = load_card(source / CARD_NAME).version
    shutil.copytree(source, tmp_path / version)
    (tmp_path / "CURRENT").write_text(f"{version}\n")
    model, card = find_model(tmp_path)
    assert (model, card.version) == (tmp_path / version / "model.onnx", version)


def test_topics_that_take_less_than_the_producer_sends_are_refused(cluster: Cluster) -> None:
    admin(cluster).configs = {
        "sku-forecasts": {"max.message.bytes": "999999"},
        "dead-letters": {"max.message.bytes": "1000", "retention.ms": None},
    }
    with pytest.raises(ConfigurationError) as caught:
        cluster.check_message_sizes()
    assert str(caught.value).startswith(
        "sku-forecasts takes 999999 bytes at most; dead-letters takes 1000 bytes at most, the producer sends up to 1000000; "
        "set message.max.bytes under [kafka.producer]"
    )


def test_topics_that_may_not_be_asked_are_named_and_others_are_fine(cluster: Cluster) -> None:
    admin(cluster).configs = {
        "sku-forecasts": failing(kafka_error(KafkaError.TOPIC_AUTHORIZATION_FAILED)),
        "dead-letters": {"max.message.bytes": "1048588"},
    }
    assert cluster.check_message_sizes() == ["sku-forecasts"]
    assert cluster.config("dead-letters") == {"max.message.bytes": "1048588"}


def test_a_configuration_that_cannot_be_asked_for_is_unreachable(cluster: Cluster) -> None:
    admin(cluster).configs = {"sku-forecasts": failing(kafka_error(KafkaError._TIMED_OUT))}
    with pytest.raises(UnreachableError, match="topic sku-forecasts: asking for its configuration"):
        cluster.check_message_sizes()


def test_what_passes_is_asked_again(cluster: Cluster) -> None:
    """A topic that was made a moment ago isn't known to every broker, and a broker that restarts isn't gone."""
    fake = admin(cluster)
    fake.has(sku_features=4)
    unknown = failing(kafka_error(KafkaError.UNKNOWN_TOPIC_OR_PART))
    fake.configs = {"sku-forecasts": Later(unknown, {"max.message.bytes": "5"})}
    assert cluster.config("sku-forecasts") == {"max.message.bytes": "5"}
    fake.failures = [failing(kafka_error(KafkaError._TRANSPORT))]
    assert cluster.partitions() == {"sku-features": 4}


def test_a_topic_is_created_once(cluster: Cluster) -> None:
    admin(cluster).has(there=1)
    assert not cluster.ensure_topic("there", {})
    assert cluster.ensure_topic("new", {"cleanup.policy": "compact"})
    assert admin(cluster).created == [("new", 1, {"cleanup.policy": "compact"})]
    admin(cluster).creation = failing(kafka_error(KafkaError.TOPIC_ALREADY_EXISTS))
    assert not cluster.ensure_topic("new", {})
    admin(cluster).creation = failing(kafka_error(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(ConfigurationError, match=r"creating topic new: .* create it with one partition and a=b"):
        cluster.ensure_topic("new", {"a": "b"})


def test_a_topic_is_waited_for_until_the_metadata_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "AdminClient", FakeAdmin)
    clock, pauses = ManualClock(), []
    made: Cluster

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        pauses.append(seconds)
        if len(pauses) == 3:
            admin(made).has(late=1)

    made = Cluster(settings(), logging.getLogger("preflight"), clock=clock, pause=pause)
    made.wait_for_topic("late")
    assert len(pauses) == 3
    with pytest.raises(UnreachableError, match="topic never: not shown for 30 s"):
        made.wait_for_topic("never")

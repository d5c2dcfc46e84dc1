from __future__ import annotations

from pathlib import Path

import pytest

from schemas.topics import CleanupPolicy, TopicsError, load_topics

GOOD = """
[topics.{name}]
schema = "sku_features.avsc"
key = "sku_id|store_id"
partitions = 3
cleanup_policy = "delete"
retention_hours = 2
compatibility = "BACKWARD"
doc = "Something."
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "topics.toml"
    path.write_text(text)
    return path


def test_packaged_topics_are_what_the_worker_expects() -> None:
    topics = load_topics()
    assert list(topics) == [
        *("sku-features", "sku-forecasts", "sku-features.dead-letters"),
        *("model-control", "model-states"),
    ]
    assert topics["sku-forecasts"].cleanup_policy is CleanupPolicy.COMPACT
    assert topics["sku-forecasts"].kafka_config == {"cleanup.policy": "compact"}
    assert topics["sku-features"].partitions == topics["sku-forecasts"].partitions


def test_retention_is_given_to_kafka_in_milliseconds(tmp_path: Path) -> None:
    topic = load_topics(write(tmp_path, GOOD.format(name="a")))["a"]
    assert topic.kafka_config == {"cleanup.policy": "delete", "retention.ms": "7200000"}


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    first = GOOD.format(name="a").replace("partitions = 3", "partitions = 0\nsize = 4")
    second = GOOD.format(name="b").replace("sku_features", "nothing")
    third = GOOD.format(name="c").replace('"delete"', '"compact"')
    with pytest.raises(TopicsError) as caught:
        load_topics(write(tmp_path, first + second + third))
    message = str(caught.value)
    for part in ("a: partitions", "a: size", "b: schema nothing.avsc isn't in", "c: ", "retention_hours goes with"):
        assert part in message


@pytest.mark.parametrize("text", ["[topics", "[other.a]\nx = 1", "topics = 3", "[topics]\na = 3"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TopicsError, match=r"topics\.toml"):
        load_topics(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TopicsError, match="can't be read"):
        load_topics(tmp_path / "topics.toml")

import pytest

from engine_build.errors import SourceError, TrafficError
from engine_build.kafka_access import TopicSource, parse_topic_source
from engine_build.traffic import parse_profile, profile_of, propose, sizes_of
from engine_build.traffic_prometheus import batches_from_prometheus, demand_from_prometheus
from schemas.engine_card import Profile

TEXT = """# TYPE forecast_worker_batch_rows histogram
forecast_worker_batch_rows_bucket{le="1.0"} 10
forecast_worker_batch_rows_bucket{le="2.0"} 10
forecast_worker_batch_rows_bucket{le="1024.0"} 10
forecast_worker_batch_rows_bucket{le="2048.0"} 100
forecast_worker_batch_rows_bucket{le="+Inf"} 100
forecast_worker_batch_rows_sum 130000
forecast_worker_batch_rows_count 100
# TYPE forecast_worker_commit_rows histogram
forecast_worker_commit_rows_bucket{le="2.0"} 0
forecast_worker_commit_rows_bucket{le="2048.0"} 98
forecast_worker_commit_rows_bucket{le="3072.0"} 100
forecast_worker_commit_rows_bucket{le="+Inf"} 100
forecast_worker_commit_rows_sum 130000
forecast_worker_commit_rows_count 100
"""


def test_max_is_p99_of_the_demand_and_headroom() -> None:
    assert propose(sizes_of([100] * 99 + [1000])).profile.max_rows == 128
    assert propose(sizes_of([100] * 98 + [1000] * 2)).profile.max_rows == 1280
    assert propose(sizes_of([1000] * 50)).profile.max_rows == 1280


def test_opt_is_the_median_weighted_by_rows() -> None:
    assert propose(sizes_of([8] * 50 + [2000] * 2)).profile.opt_rows == 2048


def test_memory_bounds_max_and_is_told() -> None:
    proposal = propose(sizes_of([1000] * 50), memory=(600_000, 1_000))
    assert (proposal.profile.max_rows, proposal.profile.opt_rows) == (600, 600)
    assert any("bounded by memory to 600 rows" in note for note in proposal.notes)
    with pytest.raises(TrafficError, match="expected room for one"):
        propose(sizes_of([1]), memory=(10, 1_000))


def test_graphs_are_the_sizes_that_small_batches_are_padded_to() -> None:
    assert propose(sizes_of([1] * 50 + [150] * 39 + [300] * 11)).cuda_graph_rows == (64, 256)
    assert propose(sizes_of([1] * 60 + [50] * 39 + [7])).cuda_graph_rows == (64,)
    assert propose(sizes_of([3] * 60 + [24])).cuda_graph_rows == (32,)
    assert propose(sizes_of([5000] * 9)).cuda_graph_rows == ()


def test_a_profile_that_nobody_named_begins_at_two_rows_where_it_can() -> None:
    assert profile_of(Profile(min_rows=1, opt_rows=8, max_rows=64)) == Profile(min_rows=2, opt_rows=8, max_rows=64)
    assert profile_of(Profile(min_rows=4, opt_rows=8, max_rows=64)) == Profile(min_rows=4, opt_rows=8, max_rows=64)
    assert profile_of(Profile(min_rows=1, opt_rows=1, max_rows=64)) == Profile(min_rows=2, opt_rows=2, max_rows=64)
    assert profile_of(Profile(min_rows=1, opt_rows=1, max_rows=1)) == Profile(min_rows=1, opt_rows=1, max_rows=1)
    assert str(propose(sizes_of([1] * 100))) == "2:2:2@2"
    assert str(propose(sizes_of([1]), memory=(1_000, 1_000))) == "1:1:1@1"


def test_prometheus_histograms_of_all_workers_are_added_up() -> None:
    sizes = batches_from_prometheus(TEXT)
    assert sizes.counts.tolist() == [10, 90]
    assert sizes.rows.tolist() == pytest.approx([1.0, 1448.15], rel=1e-4)
    assert demand_from_prometheus(TEXT + TEXT).counts.tolist() == [196, 4]
    proposal = propose(demand_from_prometheus(TEXT), sizes)
    assert str(proposal) == "2:1536:3840@64"


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "got no histogram"), (TEXT.replace("100", "0").replace("10\n", "0\n"), "empty"), ("a{", "can't be parsed")],
)
def test_metrics_without_the_histogram_are_refused(text: str, message: str) -> None:
    with pytest.raises(TrafficError, match=message):
        batches_from_prometheus(text)


def test_commits_larger_than_all_buckets_are_refused_unless_they_are_rare() -> None:
    beyond = TEXT.replace('commit_rows_bucket{le="3072.0"} 100', 'commit_rows_bucket{le="3072.0"} 98')
    with pytest.raises(TrafficError, match=r"more than 1 % of the commits had over 3,072 rows; shorten"):
        demand_from_prometheus(beyond)
    rare = TEXT.replace('commit_rows_bucket{le="3072.0"} 100', 'commit_rows_bucket{le="3072.0"} 99')
    assert demand_from_prometheus(rare).rows.tolist() == [2048, 3072, 3072]


def test_windows_without_rows_are_no_demand() -> None:
    with pytest.raises(TrafficError, match="got no rows in any window"):
        sizes_of([0, 0])


@pytest.mark.parametrize(
    "text", ["", "1:2", "0:1:2", "4:2:8", "1:2:8@", "1:2:8@9", "1:2:8@4,2", "1:2:8@2,2", "1:2:8 @2"]
)
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(TrafficError, match="profile: got"):
        parse_profile(text)


def test_topic_sources() -> None:
    assert parse_topic_source("topic://sku-features?days=3.5") == TopicSource(topic="sku-features", days=3.5)
    assert parse_topic_source("topic://sku-features").days == 7
    for wrong in (
        "sku-features",
        "topic://",
        "topic://x?days=0",
        "topic://x?days=a",
        "topic://x?hours=2",
        "topic://x/y",
    ):
        with pytest.raises(SourceError, match="source: got"):
            parse_topic_source(wrong)

import pytest

from bench.memory import Sample, verdict

MIB = 2**20


def samples(*rss_mib: float) -> list[Sample]:
    return [Sample(at_s=float(i), events=i * 1000, rss_bytes=int(size * MIB)) for i, size in enumerate(rss_mib)]


def test_steady_memory_is_flat_whatever_the_warm_up_did() -> None:
    found = verdict(samples(10, 500, *[200.0] * 12), warm_up_events=2000)
    assert found["flat"] is True
    assert found["samples_after_warm_up"] == 12
    assert found["trend"] == pytest.approx(0.0)


def test_one_sample_out_of_bounds_is_not_flat() -> None:
    assert verdict(samples(*[200.0] * 12, 211), warm_up_events=0)["flat"] is False


def test_slow_growth_shows_in_the_trend() -> None:
    assert verdict(samples(*[100 + i / 10 for i in range(21)]), warm_up_events=0)["trend"] == pytest.approx(
        2 / 101, rel=1e-3
    )


def test_too_few_samples_give_no_verdict() -> None:
    with pytest.raises(ValueError, match="got 3 samples"):
        verdict(samples(1, 1, 1), warm_up_events=0)

from __future__ import annotations

from engine_build.choice import Candidate, choose
from schemas.engine_card import Precision


def candidate(precision: Precision, rows_per_s: float | None, *problems: str) -> Candidate:
    return Candidate(precision=precision, problems=problems, rows_per_s=rows_per_s)


def test_the_fastest_is_chosen() -> None:
    decision = choose([candidate("fp32", 1.13e6), candidate("fp16", 2.02e6), candidate("int8", 3.0e6)])
    assert decision.published == ("int8",)
    assert decision.reasons == (
        "fp16 is faster: 2,020,000 rows/s against 1,130,000 of fp32 (+78.8%)",
        "int8 is faster: 3,000,000 rows/s against 2,020,000 of fp16 (+48.5%)",
        "int8 is chosen: 3,000,000 rows/s",
    )


def test_int8_that_is_not_faster_is_not_chosen_and_the_report_says_so() -> None:
    decision = choose([candidate("fp32", 1.13e6), candidate("fp16", 2.02e6), candidate("int8", 0.96e6)])
    assert decision.published == ("fp16",)
    assert (
        "int8 isn't chosen, it isn't 3% faster: 960,000 rows/s against 2,020,000 of fp16 (-52.5%)" in decision.reasons
    )


def test_what_fails_a_gate_is_out_however_fast() -> None:
    decision = choose([candidate("fp32", 1.0), candidate("int8", 9.0, "WAPE is 3 % worse than FP32", "proof failed")])
    assert decision.published == ("fp32",)
    assert decision.reasons[0] == "int8 is out: WAPE is 3 % worse than FP32; proof failed"


def test_a_gain_within_the_noise_is_none() -> None:
    assert choose([candidate("fp32", 100.0), candidate("fp16", 102.0)]).published == ("fp32",)


def test_without_measurements_all_that_pass_are_published_and_int8_is_never_preferred() -> None:
    decision = choose([candidate("int8", None), candidate("fp32", None), candidate("fp16", None)])
    assert decision.published == ("fp16", "fp32", "int8")
    assert decision.reasons == (
        "nothing was measured, so all that pass are published, preferred first: fp16, fp32, int8",
    )


def test_nothing_that_passes_is_nothing_to_publish() -> None:
    assert choose([candidate("fp16", None, "proof failed")]).published == ()
    assert choose([]).published == ()

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.helpers.rig import FEATURES, FRAMING, event
from worker.decode import Decoder
from worker.decoders import Decoders
from worker.errors import ContractError
from worker.records import Record, Records

RECORDS = Records.of(
    [
        Record(topic="in", partition=0, offset=n, timestamp_ms=0, key=b"k", value=event("a", (n, 2.0, 3.0)))
        for n in (1, 2)
    ]
)


def decoders() -> tuple[Decoders, list[dict[str, int | None]]]:
    made: list[dict[str, int | None]] = []

    def make(inputs: Mapping[str, int | None]) -> Decoder:
        made.append(dict(inputs))
        return Decoder(
            reader_schema=FEATURES,
            inputs=inputs,
            key_fields=("sku_id",),
            echo_fields=(),
            framing=FRAMING,
            max_value_bytes=1000,
        )

    return Decoders(make), made


def test_each_engines_columns_are_filled_by_a_decoder_of_their_own_made_once() -> None:
    both, made = decoders()
    for _ in range(2):
        large = {"sales": np.zeros((4, 3), np.float32), "as_of": np.zeros(4, np.float32)}
        assert both.decode(RECORDS, large, 1).rows == 2
        assert large["sales"][1:3, 0].tolist() == [1.0, 2.0]
        assert large["as_of"][1:3].tolist() == [19_000.0, 19_000.0]
        small = {"sales": np.zeros((4, 3), np.float32)}
        assert both.decode(RECORDS, small, 0).rows == 2
        assert small["sales"][:2, 0].tolist() == [1.0, 2.0]
    assert made == [{"sales": 3, "as_of": None}, {"sales": 3}]


def test_inputs_that_do_not_fit_the_schema_are_found_when_prepared() -> None:
    both, made = decoders()
    with pytest.raises(ContractError):
        both.prepare({"price": 3})
    assert both.prepare({"sales": 3}) is both.prepare({"sales": 3})
    assert len(made) == 2

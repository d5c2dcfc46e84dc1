from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.rig import FEATURES, FRAMING, INPUTS, event, key
from worker.decode import Decoder
from worker.errors import ConfigurationError
from worker.records import Record, Records
from worker.replay_keys import SelectingDecoder, digest_of, read_keys


def written(folder: Path, content: bytes) -> Path:
    path = folder / "keys"
    path.write_bytes(content)
    return path


def test_one_key_a_line_spaces_and_empty_lines_and_a_mark_at_the_start_dont_count(tmp_path: Path) -> None:
    keys = read_keys(written(tmp_path, "\ufeffa|1\n\n  b|2  \r\nü|3\na|1".encode()), 2)
    assert keys == {b"a|1", b"b|2", "ü|3".encode()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got no key"),
        (b"\n \n", "got no key"),
        (b"a|1\nb\nc|2|3\n|4\n", "3 lines aren't keys, expected 2 parts joined by '|'.*line 2: 'b'; line 3: 'c|2|3'"),
        (b"\xff\xfe", "isn't UTF-8 text"),
    ],
)
def test_what_is_no_file_of_keys(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("|", r"\|")):
        read_keys(written(tmp_path, content), 2)


def test_a_file_that_is_not_there_or_far_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        read_keys(tmp_path / "none", 2)
    path = written(tmp_path, b"")
    with path.open("r+b") as file:
        file.truncate(65 << 20)
    with pytest.raises(ConfigurationError, match="expected 67108864 at most; split it"):
        read_keys(path, 2)


def test_a_digest_is_of_the_keys_and_not_of_their_order() -> None:
    assert digest_of(None) == ""
    assert digest_of(frozenset([b"a", b"b"])) == digest_of(frozenset([b"b", b"a"])) != digest_of(frozenset([b"a"]))


def test_only_wanted_records_are_decoded_and_the_rows_close_up() -> None:
    inner = Decoder(
        reader_schema=FEATURES,
        inputs=INPUTS,
        key_fields=("sku_id", "store_id"),
        echo_fields=("sku_id",),
        framing=FRAMING,
        max_value_bytes=1000,
    )
    wanted = {key("b"), key("d"), key("x")}
    values = [
        (key("a"), event("a")),
        (b"anything", event("b", (4.0, 5.0, 6.0))),
        (key("x"), b"broken"),
        (key("y"), b"broken"),
        (None, b"broken"),
        (key("x"), None),
        (key("y"), None),
        (key("d"), event("d", (7.0, 8.0, 9.0))),
    ]
    records = Records.of(
        [
            Record(topic="in", partition=0, offset=place, timestamp_ms=0, key=k, value=v)
            for place, (k, v) in enumerate(values)
        ]
    )
    columns = {"sales": np.zeros((10, 3), np.float32)}
    decoded = SelectingDecoder(inner, wanted.__contains__).decode(records, columns, 1)
    assert (decoded.rows, decoded.sources.tolist(), decoded.keys) == (2, [1, 7], [key("b"), key("d")])
    assert columns["sales"][1:3].tolist() == [[4, 5, 6], [7, 8, 9]]
    assert [index for index, _ in decoded.rejections] == [2]
    assert decoded.tombstones.tolist() == [5]
    nothing = SelectingDecoder(inner, lambda _: False).decode(records, columns, 0)
    assert (nothing.rows, len(nothing.sources), nothing.keys, nothing.rejections) == (0, 0, [], [])

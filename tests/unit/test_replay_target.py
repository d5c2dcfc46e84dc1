from __future__ import annotations

import pytest

from worker.errors import ConfigurationError
from worker.replay_target import check_target

PREFIX = b"\xc3\x01fingerpr"


def test_an_empty_target_or_our_own_is_fine() -> None:
    check_target("t", None, PREFIX, begun=False)
    check_target("t", PREFIX + b"forecast", PREFIX, begun=True)
    check_target("t", b"\x00\x00\x00\x00\x07forecast", None, begun=True)


def test_records_of_another_schema_are_refused_whoever_wrote_them() -> None:
    for begun in (True, False):
        with pytest.raises(
            ConfigurationError, match=r"topic t: holds records of another schema: got one that starts with"
        ):
            check_target("t", b"something else", PREFIX, begun=begun)


def test_records_without_a_memory_of_them_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no progress is kept for this --name"):
        check_target("t", PREFIX + b"forecast", PREFIX, begun=False)

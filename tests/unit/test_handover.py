import pytest

from worker.handover import NOBODY, Handover, Mailbox
from worker.model_status import ModelStatus


def test_a_mailbox_gives_once_what_was_put() -> None:
    box: Mailbox[str] = Mailbox()
    assert (box.full, box.take()) == (False, None)
    box.put("order")
    assert box.full
    assert (box.take(), box.take(), box.full) == ("order", None, False)
    box.put("next")
    assert box.take() == "next"


def test_what_was_not_taken_is_not_replaced() -> None:
    box: Mailbox[str] = Mailbox()
    box.put("first")
    with pytest.raises(ValueError, match="the mailbox is full; wait until what is in it was taken"):
        box.put("second")
    assert box.take() == "first"


def test_nothing_is_asked_for_and_nothing_known_at_first() -> None:
    made = Handover()
    assert made.quarantined is NOBODY
    assert (made.loading, made.sample_every, made.sample_wanted, made.failed) == (False, 0, False, None)
    assert made.status == ModelStatus()
    assert made.inbox.empty()
    assert made.left.empty()

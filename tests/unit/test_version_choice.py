from collections.abc import Collection, Mapping

import pytest

from worker.version_choice import Choice, Control, Listing, Promotion, Rule, VersionId, choose

V1, V2, V3, V4 = (VersionId(f"v{n}", f"{n}" * 64) for n in range(1, 5))


def chosen(
    current: str | None = "v3",
    versions: tuple[VersionId, ...] = (V1, V2, V3, V4),
    *,
    pin: VersionId | None = None,
    promotion: Promotion | None = None,
    quarantined: Collection[VersionId] = (),
    refused: Collection[VersionId] = (),
    serving: VersionId | None = None,
    before: Collection[VersionId] = (),
) -> Choice:
    reasons: Mapping[VersionId, str] = dict.fromkeys(quarantined, "drifts")
    return choose(
        Listing(current=current, versions=versions),
        Control(pin=pin, promotion=promotion, quarantined=reasons),
        refused=dict.fromkeys(refused, "truncated"),
        serving=serving,
        before=before,
    )


def test_current_serves_and_the_one_before_it_backs_up() -> None:
    assert chosen() == Choice(target=V3, backup=V2, rule=Rule.CURRENT)


def test_a_pin_wins_over_promotion_and_current() -> None:
    found = chosen(pin=V1, promotion=Promotion(version=V4, over=V3))
    assert (found.target, found.rule) == (V1, Rule.PIN)


def test_a_promotion_wins_over_current_while_current_names_what_it_did() -> None:
    promotion = Promotion(version=V4, over=V3)
    assert chosen(promotion=promotion).target == V4
    assert chosen(promotion=promotion).rule is Rule.PROMOTED


def test_a_promotion_ends_when_current_names_another() -> None:
    assert chosen("v2", promotion=Promotion(version=V4, over=V3)).target == V2


def test_a_promotion_ends_when_the_version_that_current_named_was_published_anew() -> None:
    again = VersionId("v3", "9" * 64)
    assert chosen(versions=(V1, again, V4), promotion=Promotion(version=V4, over=V3)).target == again


def test_a_promotion_over_nothing_stays() -> None:
    assert chosen("v2", promotion=Promotion(version=V4, over=None)).target == V4


@pytest.mark.parametrize("wish", ["pin", "promotion"])
def test_quarantine_wins_over_every_wish_and_says_so(wish: str) -> None:
    wishes = {"pin": V4} if wish == "pin" else {"promotion": Promotion(version=V4, over=V3)}
    found = chosen(quarantined=[V4], **wishes)
    assert (found.target, found.rule) == (V3, Rule.CURRENT)
    assert "v4" in found.notes[0]
    assert "quarantined: drifts" in found.notes[0]


def test_when_current_may_not_serve_the_serving_version_stays() -> None:
    found = chosen(refused=[V3], serving=V1)
    assert (found.target, found.rule) == (V1, Rule.STAY)
    assert "refused: truncated" in found.notes[0]


def test_a_serving_version_stays_even_when_it_left_the_store_or_would_be_refused_now() -> None:
    assert chosen("v9", versions=(V2,), serving=V1).target == V1
    assert chosen(refused=[V3, V1], serving=V1).target == V1


def test_at_the_start_the_newest_version_before_current_serves() -> None:
    found = chosen(refused=[V3])
    assert (found.target, found.rule) == (V2, Rule.OLDER)


def test_a_version_that_nobody_asked_for_does_not_serve_because_it_is_newer() -> None:
    assert chosen(versions=(V3, V4), refused=[V3]).target is None


def test_a_serving_version_that_was_quarantined_goes() -> None:
    found = chosen(quarantined=[V3], serving=V3)
    assert (found.target, found.backup, found.rule) == (V2, V1, Rule.OLDER)


def test_without_a_version_that_may_serve_there_is_none() -> None:
    assert chosen(quarantined=[V1, V2, V3], serving=V3) == Choice(
        target=None,
        backup=None,
        rule=Rule.NONE,
        notes=("current asks for version v3 (333333333333), which is quarantined: drifts",),
    )


def test_the_serving_version_becomes_the_backup_of_the_next() -> None:
    assert chosen("v4", serving=V1, before=[V2]).backup == V1


def test_what_served_before_is_preferred_as_backup_unless_it_may_not_serve() -> None:
    assert chosen(serving=V3, before=[V1]).backup == V1
    assert chosen(serving=V3, before=[V1], quarantined=[V1]).backup == V2
    assert chosen(serving=V3, before=[V1, V2], refused=[V1]).backup == V2


def test_the_same_bytes_are_no_backup() -> None:
    twin = VersionId("v2b", V3.digest)
    assert chosen(versions=(twin, V3)).backup is None


def test_what_current_names_and_is_not_there_is_said() -> None:
    found = chosen("v9", versions=(V1, V2), serving=V1)
    assert "CURRENT names version v9" in found.notes[0]


def test_an_unreadable_current_keeps_what_serves_and_starts_with_the_newest() -> None:
    assert chosen(None, serving=V2).target == V2
    assert chosen(None).target == V4

"""The rules of docs/hot-swap.md, asked of any store, wishes, refusals and memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from worker.version_choice import Choice, Control, Listing, Promotion, Rule, VersionId, choose

NAMES = [f"v{number}" for number in range(5)]
DIGESTS = ["a" * 64, "b" * 64, "c" * 64]
VERSIONS = [VersionId(name, digest) for name in NAMES for digest in DIGESTS]
"""Few, so that the same bytes under two names and two bytes under one name are common."""
version_ids = st.sampled_from(VERSIONS)


@dataclass(frozen=True, kw_only=True)
class World:
    listing: Listing
    control: Control
    refused: Mapping[VersionId, str]
    serving: VersionId | None
    before: tuple[VersionId, ...]

    def choose(self) -> Choice:
        return choose(self.listing, self.control, refused=self.refused, serving=self.serving, before=self.before)

    @property
    def current(self) -> VersionId | None:
        return self.listing.named(self.listing.current)

    def may(self, version: VersionId | None) -> bool:
        """As the page says it: not quarantined, not refused, not gone. What serves is there, and was proved."""
        if version is None or version in self.control.quarantined:
            return False
        return version == self.serving or (version in self.listing.versions and version not in self.refused)

    @property
    def promoted(self) -> VersionId | None:
        """What is promoted, as long as CURRENT names what it did."""
        promotion = self.control.promotion
        if promotion is None or (promotion.over is not None and promotion.over != self.current):
            return None
        return promotion.version

    @property
    def older(self) -> list[VersionId]:
        """Published before the one that CURRENT names, the newest first; all if it names none."""
        versions = list(self.listing.versions)
        return versions[: versions.index(self.current)][::-1] if self.current is not None else versions[::-1]

    def quarantining(self, version: VersionId) -> World:
        told = MappingProxyType({**self.control.quarantined, version: "drifts"})
        return replace(self, control=replace(self.control, quarantined=told))


@st.composite
def listings(draw: st.DrawFn) -> Listing:
    """Each name at most once, in any order; CURRENT names one, or one that isn't there, or nothing."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    versions = tuple(VersionId(name, draw(st.sampled_from(DIGESTS))) for name in names)
    return Listing(current=draw(st.one_of(st.none(), st.sampled_from([*NAMES, *names]))), versions=versions)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    listing = draw(listings())
    anyone = st.sampled_from([*listing.versions, *VERSIONS])
    promotions = st.builds(
        Promotion, version=anyone, over=st.one_of(st.none(), anyone, st.just(listing.named(listing.current)))
    )
    control = Control(
        pin=draw(st.one_of(st.none(), anyone)),
        promotion=draw(st.one_of(st.none(), promotions)),
        quarantined=MappingProxyType(draw(st.dictionaries(anyone, st.just("because"), max_size=4))),
    )
    return World(
        listing=listing,
        control=control,
        refused=draw(st.dictionaries(anyone, st.just("because"), max_size=4)),
        serving=draw(st.one_of(st.none(), anyone)),
        before=tuple(draw(st.lists(anyone, max_size=3))),
    )


@settings(max_examples=200)
@given(worlds())
def test_the_first_rule_whose_version_may_serve_decides(world: World) -> None:
    """The model of the page: five wishes in their order, and whoever may serve first does."""
    wishes = [
        (Rule.PIN, world.control.pin),
        (Rule.PROMOTED, world.promoted),
        (Rule.CURRENT, world.current),
        (Rule.STAY, world.serving),
        *((Rule.OLDER, version) for version in world.older),
    ]
    expected = next(((version, rule) for rule, version in wishes if world.may(version)), (None, Rule.NONE))
    found = world.choose()
    event(str(found.rule))
    assert (found.target, found.rule) == expected


@settings(max_examples=200)
@given(worlds())
def test_what_may_not_serve_is_never_chosen(world: World) -> None:
    found = world.choose()
    for chosen in (found.target, found.backup):
        assert chosen is None or chosen not in world.control.quarantined
    assert found.target is None or found.target == world.serving or found.target not in world.refused
    assert found.target is None or found.target in {world.serving, *world.listing.versions}


@settings(max_examples=200)
@given(worlds())
def test_the_backup_has_other_bytes_may_serve_and_is_there_or_loaded(world: World) -> None:
    found = world.choose()
    if found.target is None:
        assert found.backup is None
    if found.backup is None or found.target is None:
        return
    assert found.backup.digest != found.target.digest
    assert found.backup not in world.refused
    assert found.backup in {*world.listing.versions, world.serving, *world.before}


@settings(max_examples=200)
@given(worlds())
def test_there_is_a_backup_whenever_one_could_be(world: World) -> None:
    """The version that served before, else the newest one before the serving version."""
    found = world.choose()
    assume(found.target is not None)
    target = found.target
    assert target is not None
    versions = list(world.listing.versions)
    published_before = versions[: versions.index(target)][::-1] if target in versions else []
    remembered = [*([] if world.serving is None else [world.serving]), *world.before]
    fit = [
        version
        for version in [*remembered, *published_before]
        if version.digest != target.digest and version not in {*world.control.quarantined, *world.refused}
    ]
    assert found.backup == (fit[0] if fit else None)


@given(worlds())
def test_the_same_knowledge_gives_the_same_choice(world: World) -> None:
    """Whatever order mappings were filled in."""
    turned = replace(
        world,
        control=replace(
            world.control, quarantined=MappingProxyType(dict(reversed(list(world.control.quarantined.items()))))
        ),
        refused=dict(reversed(list(world.refused.items()))),
    )
    assert world.choose() == turned.choose() == world.choose()


@settings(max_examples=200)
@given(worlds())
def test_a_choice_that_was_carried_out_is_chosen_again(world: World) -> None:
    """Else a worker would swap for ever. The rule may become STAY: nobody asked for an older version by name."""
    first = world.choose()
    assume(first.target is not None)
    loaded = tuple(each for each in (first.backup,) if each is not None)
    second = replace(world, serving=first.target, before=(*loaded, *world.before)).choose()
    assert (second.target, second.backup) == (first.target, first.backup)
    assert second.rule == first.rule or second.rule is Rule.STAY


@given(worlds(), version_ids)
def test_a_quarantine_wins_over_a_pin_and_everything_else(world: World, version: VersionId) -> None:
    pinned = replace(world, control=replace(world.control, pin=version)).quarantining(version)
    found = pinned.choose()
    assert version not in {found.target, found.backup}
    assert any(note.startswith(f"pin asks for version {version}, which is quarantined") for note in found.notes)


@settings(max_examples=200)
@given(worlds(), version_ids)
def test_a_release_restores_what_was_chosen_before(world: World, version: VersionId) -> None:
    assume(version not in world.control.quarantined)
    assert world.quarantining(version).choose().target != version
    released = world.quarantining(version)
    back = {each: why for each, why in released.control.quarantined.items() if each != version}
    assert replace(released, control=replace(released.control, quarantined=back)).choose() == world.choose()


@settings(max_examples=200)
@given(worlds(), version_ids)
def test_a_quarantine_of_another_version_does_not_change_what_serves(world: World, version: VersionId) -> None:
    before = world.choose()
    assume(version != before.target)
    assert world.quarantining(version).choose().target == before.target


@given(worlds(), version_ids)
def test_a_released_pin_leaves_no_trace(world: World, version: VersionId) -> None:
    without = replace(world, control=replace(world.control, pin=None))
    pinned = replace(world, control=replace(world.control, pin=version))
    if without.may(version):
        assert (pinned.choose().target, pinned.choose().rule) == (version, Rule.PIN)
    assert replace(pinned, control=replace(pinned.control, pin=None)).choose() == without.choose()


@settings(max_examples=200)
@given(worlds())
def test_every_wish_that_cannot_be_met_is_said(world: World) -> None:
    found = world.choose()
    asked = {Rule.PIN: world.control.pin, Rule.PROMOTED: world.promoted, Rule.CURRENT: world.current}
    met = [rule for rule, version in asked.items() if version is not None and world.may(version)]
    for rule, version in asked.items():
        stands_before = not met or list(asked).index(rule) < list(asked).index(met[0])
        if version is not None and stands_before:
            assert any(note.startswith(f"{rule} asks for version {version}, which ") for note in found.notes)
    missing = world.listing.current is not None and world.current is None
    assert any("which isn't there or has no readable card" in note for note in found.notes) == missing

from __future__ import annotations

from worker.control import Command, Commands, Kind
from worker.findings import Findings
from worker.version_choice import VersionId

V1, V2 = (VersionId(f"v{n}", f"{n}" * 64) for n in (1, 2))


def quarantine(version: VersionId = V1, *, released: bool = False, by: str = "ana") -> Command:
    return Command(
        model="tiny", kind=Kind.QUARANTINE, version=version, reason="drifts", by=by, at_ms=1, released=released
    )


class Bench:
    def __init__(self) -> None:
        self.commands = Commands.none()
        self.findings = Findings("tiny", lambda: self.commands)

    def told(self, command: Command) -> None:
        self.commands = self.commands.after(command)

    @property
    def quarantined(self) -> dict[VersionId, str]:
        return dict(self.findings.control().quarantined)


def test_without_a_fleet_a_finding_stays() -> None:
    bench = Bench()
    bench.findings.add(V1, "guard:psi")
    for _ in range(3):
        assert bench.quarantined == {V1: "guard:psi"}


def test_the_fleets_commands_are_in_force_beside_it() -> None:
    bench = Bench()
    bench.findings.add(V1, "guard:psi")
    bench.told(quarantine(V2))
    bench.told(Command(model="tiny", kind=Kind.PIN, version=V2, reason="", by="", at_ms=1))
    assert bench.quarantined == {V1: "guard:psi", V2: "drifts (by ana)"}
    assert bench.findings.control().pin == V2


def test_once_the_fleet_knows_it_the_fleets_word_counts() -> None:
    bench = Bench()
    bench.findings.add(V1, "guard:psi")
    bench.told(quarantine(by="w"))
    assert bench.quarantined == {V1: "drifts (by w)"}
    bench.told(quarantine(released=True))
    assert bench.quarantined == {}


def test_a_release_of_before_does_not_take_a_new_finding_back() -> None:
    bench = Bench()
    bench.told(quarantine())
    bench.told(quarantine(released=True))
    bench.findings.add(V1, "guard:psi")
    assert bench.quarantined == {V1: "guard:psi"}
    bench.told(quarantine(by="w"))
    bench.told(quarantine(released=True))
    assert bench.quarantined == {}


def test_a_fleet_that_knew_it_first_releases_it_all_the_same() -> None:
    """Its thread may be faster than the loader's."""
    bench = Bench()
    bench.told(quarantine(by="w"))
    bench.findings.add(V1, "guard:psi")
    assert bench.quarantined == {V1: "drifts (by w)"}
    bench.told(quarantine(released=True))
    assert bench.quarantined == {}


def test_a_command_about_another_version_or_model_changes_nothing() -> None:
    bench = Bench()
    bench.findings.add(V1, "guard:psi")
    bench.told(quarantine(V2, released=True))
    bench.told(Command(model="other", kind=Kind.QUARANTINE, version=V1, reason="", by="", at_ms=1, released=True))
    assert bench.quarantined == {V1: "guard:psi"}

"""A real schema registry (Apicurio) that speaks Confluent's API, for the demo and the tests."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from demo.artifacts import Progress, registry_home
from demo.jvm import HOST, JvmServer, ServerError

# Measured on two cores: answers after 2.1 s with these, 3.4 s with the JVM's defaults.
FAST_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class EmbeddedRegistry(JvmServer):
    """A registry of its own, empty, inside a `with` block. `stop` and `start` make an outage: what was registered stays.

    `progress` is told of the download (at the first use only). Set the variable `APICURIO_HOME` to the directory of an
    unpacked apicurio-registry-app to use that, and `JAVA` to choose the runtime.

    Raises:
        See `JvmServer`.
    """

    name = "Embedded Registry"
    port_count = 1

    def __init__(
        self,
        *,
        progress: Progress | None = None,
        heap: str = "256m",
        jvm_options: Sequence[str] = FAST_START,
        startup_timeout_s: float = 90.0,
    ) -> None:
        super().__init__(progress=progress, heap=heap, jvm_options=jvm_options, startup_timeout_s=startup_timeout_s)
        self._home = Path()

    @property
    def url(self) -> str:
        """For clients' `schema.registry.url` or `url`; the same after a restart."""
        return f"http://{HOST}:{self.ports[0]}/apis/ccompat/v7"

    def _install(self, progress: Progress | None) -> None:
        named = os.environ.get("APICURIO_HOME")
        self._home = Path(named) if named else registry_home(progress)

    def _prepare(self) -> None:
        """Nothing to write: the settings are arguments."""

    def _arguments(self) -> list[str]:
        runner = next(self._home.glob("*-runner.jar"), None)
        if runner is None:
            raise ServerError(f"no *-runner.jar in {self._home}: expected an unpacked apicurio-registry-app")
        # The in-memory variant's database, as a file: an outage of the registry then ends with the same ids.
        return [
            f"-Dquarkus.http.host={HOST}",
            f"-Dquarkus.http.port={self.ports[0]}",
            f"-Dquarkus.datasource.jdbc.url=jdbc:h2:file:{self.directory / 'registry'}",
            "-jar",
            str(runner),
        ]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2.0) as answer:  # noqa: S310 - our own http url
                return bool(answer.status == 200)
        except OSError:  # refused, reset, timed out, or an HTTP status that says "not yet"
            return False

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest
from structlog.testing import capture_logs

from demo.jvm import free_ports
from worker.errors import ConfigurationError
from worker.health import Probes, Server, start_server
from worker.statistics import Tallies


class Loop:
    """Stands for the worker: publishes snapshots, and carries the clock."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.tallies = Tallies()
        self.published = self.tallies.snapshot(self.now_s)

    def step(self, *reasons: str) -> None:
        self.tallies.not_ready(reasons)
        self.published = self.tallies.snapshot(self.now_s)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def probes(loop: Loop) -> Probes:
    return Probes(lambda: loop.published, lambda: loop.now_s, live_within_s=30.0)


@pytest.fixture
def server(loop: Loop) -> Iterator[Server]:
    started = start_server("127.0.0.1", 0, statistics=lambda: loop.published, clock=lambda: loop.now_s)
    yield started
    started.close()


def get(server: Server, path: str, host: str = "127.0.0.1", **headers: str) -> tuple[int, str, bytes]:
    connection = HTTPConnection(host, server.port, timeout=90)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def test_live_until_the_loop_hangs_and_again_when_it_goes_on(loop: Loop, probes: Probes) -> None:
    loop.now_s += 30.0
    assert probes.answer("/live")[0] == 200
    loop.now_s += 0.1
    status, _, body = probes.answer("/live")
    assert status == 503
    assert json.loads(body) == {"live": False, "since_step_s": 30.1, "allowed_s": 30.0}
    loop.step()
    assert probes.answer("/live")[0] == 200


def test_ready_says_why_not(loop: Loop, probes: Probes) -> None:
    assert probes.answer("/ready")[0] == 503
    loop.step("no partitions assigned", "breaker open")
    status, content_type, body = probes.answer("/ready")
    assert (status, content_type) == (503, "application/json; charset=utf-8")
    assert json.loads(body) == {"ready": False, "reasons": ["no partitions assigned", "breaker open"]}
    loop.step()
    status, _, body = probes.answer("/ready")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})


def test_over_http(loop: Loop, server: Server) -> None:
    loop.step()
    assert get(server, "/live")[0] == 200
    assert get(server, "/ready?verbose=1")[0] == 200
    status, content_type, body = get(server, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert b"forecast_worker_ready 1.0" in body
    assert b"process_resident_memory_bytes" in body
    assert get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")[2].endswith(b"# EOF\n")
    status, _, body = get(server, "/other")
    assert status == 404
    assert b"expected /metrics, /live or /ready" in body


def test_a_request_is_answered_while_another_client_says_nothing(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert get(server, "/live")[0] == 200


def test_close_frees_the_port_and_may_be_repeated(loop: Loop) -> None:
    (port,) = free_ports(1)  # of those that no outgoing connection gets
    first = start_server("127.0.0.1", port, statistics=lambda: loop.published, clock=lambda: loop.now_s)
    first.close()
    first.close()
    second = start_server("127.0.0.1", port, statistics=lambda: loop.published, clock=lambda: loop.now_s)
    assert second.port == port
    second.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_cannot_be_listened_on(host: str, server: Server) -> None:
    with pytest.raises(ConfigurationError, match=rf"can't listen on {host}:{server.port}: .*server.port"):
        start_server(host, server.port, statistics=Tallies().snapshot, clock=lambda: 0.0)  # type: ignore[arg-type]


def test_a_client_that_goes_away_leaves_no_traceback(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise ConnectionResetError("gone")  # noqa: TRY301 - as a request's thread does
    except ConnectionResetError:
        with capture_logs() as logs:
            server._http.handle_error((b"", server._http.socket), ("127.0.0.1", 1))
    assert logs == [
        {
            "event": "http client failed",
            "client": "('127.0.0.1', 1)",
            "error": "ConnectionResetError('gone')",
            "log_level": "debug",
        }
    ]
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_listens_on_ipv6(loop: Loop) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
    with closing(start_server("::1", 0, statistics=lambda: loop.published, clock=lambda: loop.now_s)) as server:
        assert get(server, "/live", host="::1")[0] == 200

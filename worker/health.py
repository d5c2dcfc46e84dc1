"""HTTP for operators: `/metrics` (Prometheus), `/live` and `/ready` (Kubernetes probes).

Threads: one accepts connections, one more answers each request; all are daemons. They meet the loop thread in a single
place, the `statistics` callable, which returns the last snapshot that the loop published. That is safe without a lock
because a snapshot never changes and the loop publishes one by assigning a reference, which is atomic in Python: a
reader sees the old one or the new one, whole. Nothing here reaches further into the worker, so a slow or hostile client
can delay other clients but never the loop.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from worker.errors import ConfigurationError
from worker.metrics import StatisticsCollector
from worker.statistics import Statistics

log = structlog.get_logger(__name__)

_CLIENT_TIMEOUT_S = 10.0
_JSON = "application/json; charset=utf-8"


class Server:
    """A running server. Close it from the thread that started it."""

    def __init__(self, http: ThreadingHTTPServer, thread: threading.Thread) -> None:
        self._http = http
        self._thread = thread
        self._closed = False

    @property
    def port(self) -> int:
        """The port it listens on, also when any free one was asked for."""
        return int(self._http.server_address[1])

    def close(self) -> None:
        """Stop listening. Idempotent. Answers under way are cut off when the process ends."""
        if self._closed:
            return
        self._closed = True
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class Probes:
    """The answers, free of HTTP's machinery: path -> (status, content type, body)."""

    def __init__(
        self, statistics: Callable[[], Statistics], clock: Callable[[], float], *, live_within_s: float = 30.0
    ) -> None:
        self._statistics = statistics
        self._clock = clock
        self._live_within_s = live_within_s
        self._registry = CollectorRegistry()
        self._registry.register(StatisticsCollector(statistics, clock))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def answer(self, path: str, accept: str = "") -> tuple[HTTPStatus, str, bytes]:
        """What to say to `GET path` from a client that accepts the content types `accept`."""
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return HTTPStatus.OK, content_type, encode(self._registry)
        if path == "/live":
            return self._live()
        if path == "/ready":
            return self._ready()
        return _json(HTTPStatus.NOT_FOUND, {"error": f"got {path!r}, expected /metrics, /live or /ready"})

    def _live(self) -> tuple[HTTPStatus, str, bytes]:
        since_step_s = max(0.0, self._clock() - self._statistics().taken_s)
        live = since_step_s <= self._live_within_s
        return _json(
            HTTPStatus.OK if live else HTTPStatus.SERVICE_UNAVAILABLE,
            {"live": live, "since_step_s": round(since_step_s, 3), "allowed_s": self._live_within_s},
        )

    def _ready(self) -> tuple[HTTPStatus, str, bytes]:
        statistics = self._statistics()
        reasons, notes = list(statistics.not_ready), list(statistics.notes)
        body: dict[str, object] = {"ready": not reasons, "reasons": reasons}
        if notes:
            body["notes"] = notes
        if statistics.models.states:
            body["models"] = statistics.models.detail
        return _json(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, body)


def start_server(
    host: str,
    port: int,
    *,
    statistics: Callable[[], Statistics],
    clock: Callable[[], float],
    live_within_s: float = 30.0,
) -> Server:
    """Listen on `host`:`port` (0: any free port). `statistics` returns the last published snapshot from any thread.

    The loop counts as alive while its last snapshot is at most `live_within_s` seconds old by `clock`.
    Raises `ConfigurationError` if the address can't be listened on.
    """
    probes = Probes(statistics, clock, live_within_s=live_within_s)

    class Handler(_Handler):
        answers = probes

    try:
        http = _Http6((host, port), Handler) if ":" in host else _Http((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"server.host, server.port: can't listen on {host}:{port}: {error}; "
            'free the port, choose another (0 for any), or set server.port = "off"'
        ) from error
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True)
    thread.start()
    return Server(http, thread)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Without `HTTPServer`'s look-up of the host's full name, which can take seconds where DNS doesn't answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's signature
        """A client that went away or sent nonsense is its own concern, not a traceback in our log."""
        log.debug("http client failed", client=str(client_address), error=repr(sys.exception()))


class _Http6(_Http):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    answers: Probes
    timeout = _CLIENT_TIMEOUT_S
    server_version = "forecast-worker"
    sys_version = ""

    def do_GET(self) -> None:
        status, content_type, body = self.answers.answer(urlsplit(self.path).path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: probes come every few seconds."""


def _json(status: HTTPStatus, body: object) -> tuple[HTTPStatus, str, bytes]:
    return status, _JSON, json.dumps(body).encode()

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from worker.errors import ContractError, SchemaUnavailableError, UnreachableError
from worker.framing import Refusal
from worker.registry import RegistrySchemas

SCHEMA: dict[str, Any] = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "float"}]}
TEXT = json.dumps(SCHEMA)
ANSWERS: dict[str, tuple[int, dict[str, Any] | str]] = {
    "/schemas/ids/1": (200, {"schema": TEXT}),
    "/schemas/ids/2": (200, {"schema": "syntax = 'proto3';", "schemaType": "PROTOBUF"}),
    "/schemas/ids/3": (200, {"schema": '"string"'}),
    "/schemas/ids/4": (500, {"error_code": 50001, "message": "store is down"}),
    "/schemas/ids/5": (200, "<html>a proxy</html>"),
    "/schemas/ids/6": (200, {"schema": TEXT, "references": [{"name": "a", "subject": "b", "version": 1}]}),
    "/schemas/ids/7": (401, {"error_code": 401, "message": "who are you"}),
    "/subjects/good": (200, {"id": 42, "subject": "good", "version": 1, "schema": TEXT}),
    "/subjects/down": (503, {"error_code": 503, "message": "later"}),
    "/subjects/good/versions": (200, {"id": 42}),
    "/subjects/bad/versions": (409, {"error_code": 409, "message": "incompatible"}),
    "/subjects/down/versions": (503, {"error_code": 503, "message": "later"}),
}


class Handler(BaseHTTPRequestHandler):
    requests: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requests.append((path, self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = ANSWERS.get(path, (404, {"error_code": 40403, "message": "Schema not found"}))
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_POST = do_GET  # noqa: N815 - http.server wants these names

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Own", (Handler,), {"requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", handler
        http.shutdown()
        thread.join()


@pytest.fixture
def schemas(server: tuple[str, type[Handler]]) -> Iterator[RegistrySchemas]:
    registry = RegistrySchemas(url=server[0], timeout_s=60.0)
    yield registry
    registry.close()


def test_a_schema_by_its_id(schemas: RegistrySchemas) -> None:
    assert schemas.schema(1) == SCHEMA


@pytest.mark.parametrize(
    ("schema_id", "detail"),
    [
        (99, "schema id 99 is unknown to the registry"),
        (2, "schema id 2: got PROTOBUF, expected an Avro record"),
        (3, "schema id 3: got 'str', expected an Avro schema of type 'record'"),
        (6, "schema id 6: got a schema with references"),
    ],
)
def test_ids_without_a_usable_schema_are_refused(schemas: RegistrySchemas, schema_id: int, detail: str) -> None:
    answer = schemas.schema(schema_id)
    assert isinstance(answer, Refusal)
    assert detail in answer.detail


@pytest.mark.parametrize("schema_id", [4, 5, 7])
def test_everything_else_means_not_now_and_is_asked_once(
    schemas: RegistrySchemas, server: tuple[str, type[Handler]], schema_id: int
) -> None:
    with pytest.raises(SchemaUnavailableError, match=f"schema id {schema_id} can't be fetched from http"):
        schemas.schema(schema_id)
    assert len(server[1].requests) == 1


def test_register(schemas: RegistrySchemas) -> None:
    assert schemas.register("good", SCHEMA | {"__fastavro_parsed__": True}) == 42
    with pytest.raises(ContractError, match="refuses the schema for bad: incompatible"):
        schemas.register("bad", SCHEMA)
    with pytest.raises(UnreachableError, match="later"):
        schemas.register("down", SCHEMA)


def test_find(schemas: RegistrySchemas) -> None:
    assert schemas.find("good", SCHEMA) == 42
    with pytest.raises(ContractError, match="doesn't have this schema under other; register it"):
        schemas.find("other", SCHEMA)
    with pytest.raises(UnreachableError, match="later"):
        schemas.find("down", SCHEMA)


def test_credentials_are_sent_and_never_told(server: tuple[str, type[Handler]]) -> None:
    url, handler = server
    schemas = RegistrySchemas(url=url, timeout_s=60.0, basic_auth=("joe", "se:cret"))
    schemas.schema(1)
    assert handler.requests[-1][1] == "Basic " + base64.b64encode(b"joe:se:cret").decode()
    with pytest.raises(SchemaUnavailableError) as caught:
        schemas.schema(4)
    assert "cret" not in str(caught.value)
    schemas.close()


def test_a_server_that_does_not_answer_is_asked_once_within_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_retry(seconds: float) -> None:
        pytest.fail(f"waits {seconds} s to ask again")

    monkeypatch.setattr("confluent_kafka.schema_registry._sync.schema_registry_client.time.sleep", no_retry)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as silent:
        url = f"http://127.0.0.1:{silent.server_port}"
        schemas = RegistrySchemas(url=f"{url},{url}", timeout_s=0.2)
        with pytest.raises(SchemaUnavailableError, match="ReadTimeout"):
            schemas.schema(1)
        client = schemas._client._rest_client
        # Connecting and reading have the time-out each, and so has each URL.
        assert (client.max_retries, client.timeout) == (0, 0.05)
        schemas.close()


def test_nobody_there() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        url = f"http://127.0.0.1:{gone.server_port}"
    schemas = RegistrySchemas(url=url, timeout_s=1.0)
    with pytest.raises(SchemaUnavailableError, match="ConnectError"):
        schemas.schema(1)
    for ask in (schemas.register, schemas.find):
        with pytest.raises(UnreachableError, match="expected it to answer"):
            ask("good", SCHEMA)
    schemas.close()


@pytest.mark.parametrize("options", [{"url": "ftp://x"}, {"url": "http://x", "ca_location": "/nonexistent/ca.pem"}])
def test_settings_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(UnreachableError, match="schema registry settings can't be used"):
        RegistrySchemas(timeout_s=1.0, **options)

"""Schemas from a Confluent-compatible schema registry. The only file that talks to one.

The client is confluent-kafka's own. Its defaults would hold the worker up: no time-out and three retries with seconds
between them. Here a question is asked once and the time is bounded; the caller decides when to ask again.
"""

from __future__ import annotations

import json

from confluent_kafka.schema_registry import Schema as RegisteredSchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.load import SchemaError, schema_from_text
from worker.avro import Schema
from worker.errors import ContractError, SchemaUnavailableError, UnreachableError
from worker.framing import Refusal
from worker.records import Reason

_NOT_FOUND = 404
_REFUSED = frozenset({409, 422})


class RegistrySchemas:
    """Asks a schema registry.

    url: its base URL, or several, separated by commas. timeout_s: the most that one question may take (not counting the
    time a name server takes). basic_auth: user and password. ca_location: file or folder of CA certificates.
    Raises `UnreachableError` if the URL or the certificates can't be used; doesn't connect yet.
    """

    def __init__(
        self, *, url: str, timeout_s: float, basic_auth: tuple[str, str] | None = None, ca_location: str | None = None
    ) -> None:
        # The client's time-out holds for connecting and for reading, each, and for each URL.
        shares = 2 * len(url.split(","))
        settings: dict[str, object] = {"url": url, "timeout": timeout_s / shares, "max.retries": 0}
        if basic_auth is not None:
            settings["basic.auth.user.info"] = ":".join(basic_auth)
        if ca_location is not None:
            settings["ssl.ca.location"] = ca_location
        try:
            self._client = SchemaRegistryClient(settings)
        except (ValueError, TypeError, OSError) as error:
            raise UnreachableError(f"schema registry settings can't be used: {error}") from error
        self._url = url.rpartition("@")[2]

    def schema(self, schema_id: int) -> Schema | Refusal:
        """The schema of that id, as JSON; a `Refusal` if the registry doesn't know it or it isn't an Avro record.

        Blocks for up to `timeout_s`. Raises `SchemaUnavailableError` if the registry can't tell now.
        """
        try:
            registered = self._client.get_schema(schema_id)
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return _refusal(f"schema id {schema_id} is unknown to the registry {self._url}")
            raise self._unavailable(schema_id, error) from error
        except Exception as error:  # network, TLS, a proxy's HTML page: all mean "not now"
            raise self._unavailable(schema_id, error) from error
        kind = registered.schema_type or "AVRO"
        if kind != "AVRO" or registered.references:
            found = kind if kind != "AVRO" else "a schema with references"
            return _refusal(f"schema id {schema_id}: got {found}, expected an Avro record that stands alone")
        try:
            return schema_from_text(registered.schema_str or "", f"schema id {schema_id}")
        except SchemaError as error:
            return _refusal(str(error))

    def register(self, subject: str, schema: Schema) -> int:
        """The id of `schema` under `subject`; registers it if it is new.

        Raises `ContractError` if the registry refuses it (incompatible with an earlier version), `UnreachableError` if
        it can't be asked.
        """
        try:
            return self._client.register_schema(subject, RegisteredSchema(_text(schema), "AVRO"))
        except SchemaRegistryError as error:
            if error.http_status_code in _REFUSED:
                raise ContractError(
                    f"the registry {self._url} refuses the schema for {subject}: {error.error_message}; "
                    "make it compatible with the versions there, or use another subject"
                ) from error
            raise self._unreachable(error) from error
        except Exception as error:
            raise self._unreachable(error) from error

    def find(self, subject: str, schema: Schema) -> int:
        """The id that `schema` has under `subject` already. Raises `ContractError` if it isn't registered there."""
        try:
            found = self._client.lookup_schema(subject, RegisteredSchema(_text(schema), "AVRO"))
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                raise ContractError(
                    f"the registry {self._url} doesn't have this schema under {subject}; register it, "
                    "or set registry.auto_register = true"
                ) from error
            raise self._unreachable(error) from error
        except Exception as error:
            raise self._unreachable(error) from error
        return int(found.schema_id or 0)

    def latest(self, subject: str) -> Schema | None:
        """The newest schema under `subject`; None if there is none. Raises `ContractError` if it is no Avro record,
        `UnreachableError` if the registry can't be asked.
        """
        try:
            found = self._client.get_latest_version(subject)
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return None
            raise self._unreachable(error) from error
        except Exception as error:
            raise self._unreachable(error) from error
        text = found.schema.schema_str if found.schema is not None else None
        try:
            return schema_from_text(text or "", f"subject {subject}")
        except SchemaError as error:
            raise ContractError(f"{error}; expected an Avro record; choose another topic") from error

    def close(self) -> None:
        """Close its connections. Idempotent."""
        self._client.close()

    def _unavailable(self, schema_id: int, error: Exception) -> SchemaUnavailableError:
        return SchemaUnavailableError(
            (), f"schema id {schema_id} can't be fetched from {self._url}: {type(error).__name__}: {error}"
        )

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"schema registry {self._url}: got {type(error).__name__}: {error}; expected it to answer. "
            "Check the URL, the credentials and whether it is up"
        )


def _text(schema: Schema) -> str:
    return json.dumps({key: value for key, value in schema.items() if not key.startswith("__")})


def _refusal(detail: str) -> Refusal:
    return Refusal(reason=Reason.UNKNOWN_SCHEMA, detail=detail)

"""What a consumer's errors mean: wrong for good, fatal, or worth a line in the log because librdkafka retries."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from confluent_kafka import KafkaError

from worker.errors import FatalDeliveryError, FencedError, UnreachableError

log = structlog.get_logger(__name__)

PERMANENT: Mapping[int, str] = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the input topic doesn't exist; create it (forecast-worker topics create)",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this principal may not read the input topic; grant it READ",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this principal may not use the consumer group; grant it READ on the group",
    KafkaError._AUTO_OFFSET_RESET: "the committed offset is no longer on the topic and input.offset_reset is 'fail'; "  # noqa: SLF001
    "set it to 'earliest' or 'latest', or move the group's offset by hand",
}


def check(error: KafkaError) -> None:
    """Raise what can't heal by itself; librdkafka retries the rest, which is only worth a line in the log."""
    if error.code() in PERMANENT:
        raise UnreachableError(f"consuming: {error.str()}: {PERMANENT[error.code()]}")
    if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - librdkafka's local codes start so
        raise fatal(error)
    if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - see above
        log.warning("consumer reports", error=error.str(), code=error.name())


def fatal(error: KafkaError, doing: str = "consuming") -> FatalDeliveryError:
    """The exception for an error after which the consumer can't be used."""
    if error.code() == KafkaError.FENCED_INSTANCE_ID:
        return FencedError(f"{doing}: {error.str()}. Another one has this input.group_instance_id; give each its own.")
    return FatalDeliveryError(f"{doing}: {error.str()} ({error.name()})")

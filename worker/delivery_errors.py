"""What an error of a producer, or of a plain offset commit, means: retriable, abortable, or fatal.

An error is asked what it is, by itself. A transaction's errors say so; those of a plain offset commit don't, so the tables
here say it for them.
"""

from __future__ import annotations

from confluent_kafka import KafkaError

from worker.errors import AbortableError, DeliveryError, FatalDeliveryError, FencedError

FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - librdkafka's local codes have a leading underscore
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
PASSING = frozenset(
    {
        *(KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._WAIT_COORD),  # noqa: SLF001
        *(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR),
        *(KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION, KafkaError.STALE_MEMBER_EPOCH),
    }
)
"""Errors of a plain offset commit that pass by themselves. Unlike a transaction's, they don't say so."""
REGROUPED = frozenset(
    {
        *(KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS),
        *(KafkaError._ASSIGNMENT_LOST, KafkaError._STATE),  # noqa: SLF001
    }
)
"""Errors of a plain offset commit that came too late: whoever owns the partitions now reads the records again."""


def classify(error: KafkaError, doing: str) -> DeliveryError | None:
    """The exception that `error` means, or None if the same call may simply be made again."""
    message = f"{doing}: {error.str()} ({error.name()})"
    if error.fatal():
        if error.code() in FENCED:
            return FencedError(
                f"{message}. Another worker has taken over this transactional.id or group member: give each its own "
                "delivery.transactional_id. Or this one stood still for longer than delivery.transaction_timeout_s: restart it."
            )
        return FatalDeliveryError(f"{message}. The producer can't go on; restarting the worker settles it.")
    if error.txn_requires_abort():
        return AbortableError(message)
    if error.retriable():
        return None
    return FatalDeliveryError(f"{message}. Not known to be harmless, so it counts as fatal.")


def flagged(error: KafkaError) -> KafkaError:
    """A plain offset commit's error with the flags that `classify` asks for."""
    code = error.code()
    return KafkaError(
        code,
        error.str(),
        fatal=error.fatal() or code in FENCED,
        retriable=code in PASSING,
        txn_requires_abort=code in REGROUPED,
    )

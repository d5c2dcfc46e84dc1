"""Contender: a bare copy, the ceiling. The same bytes from topic to topic, in transactions of the same interval.

No decoding, no engine, no encoding: key, value, partition and timestamp are passed on. A worker written in Python on this
client can't be faster than this loop.
"""

from __future__ import annotations

import time

from confluent_kafka import Consumer, Producer

from bench.job import BATCH_ROWS, Job, Outcome, Stopwatch, job_from_arguments, report
from worker.clients import consumer_config, producer_config

POLL_S = 0.1
TIMEOUT_S = 60.0


def run(job: Job) -> Outcome:
    """Consume, produce, commit by interval, until every event of the job is committed."""
    settings, watch = job.settings(), Stopwatch()
    consumer, producer = Consumer(consumer_config(settings)), Producer(producer_config(settings))
    producer.init_transactions(TIMEOUT_S)
    consumer.subscribe([job.input_topic])
    done = transactions = 0
    due_s: float | None = None
    produce, topic = producer.produce, job.output_topic
    while done < job.events:
        messages = consumer.consume(min(BATCH_ROWS, job.events - done), POLL_S)
        if not messages:
            continue
        watch.first_record()
        watch.stage("poll")
        if due_s is None:
            producer.begin_transaction()
            due_s = time.monotonic() + job.commit_interval_s
        for message in messages:
            while True:
                try:
                    produce(
                        topic,
                        message.value(),
                        message.key(),
                        message.partition() or 0,
                        timestamp=message.timestamp()[1],
                    )
                    break
                except BufferError:
                    producer.poll(0.01)
        done += len(messages)
        watch.stage("produce")
        if done >= job.events or time.monotonic() >= due_s:
            positions = consumer.position(consumer.assignment())
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), TIMEOUT_S)
            producer.commit_transaction(TIMEOUT_S)
            watch.stage("commit")
            transactions += 1
            due_s = None
    outcome = watch.outcome(done, transactions)
    consumer.close()
    return outcome


if __name__ == "__main__":
    report(run(job_from_arguments()))

"""Contender: the same job as a plain loop, as a competent engineer would write it by the manuals of its three libraries.

confluent-kafka's `consume`, `fastavro` per message, numpy to stack, ONNX Runtime per batch, `fastavro` per forecast, one
transaction per batch. The clients have the worker's tuning. What it lacks is what the worker is for: rebalances, errors,
dead letters, checks, metrics; none of that costs it time here.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import fastavro
import numpy as np
import onnxruntime as ort
from confluent_kafka import Consumer, Message, Producer
from numpy.typing import NDArray

from bench import workload
from bench.job import BATCH_ROWS, MODEL, Job, Outcome, Stopwatch, job_from_arguments, report
from bench.noop_engine import HORIZON, INPUTS, QUANTILES, constant_forecast
from demo.events import single_object_header
from schemas.engine_card import load_card
from schemas.load import load_schema
from worker.clients import consumer_config, producer_config

POLL_S = 0.1
TIMEOUT_S = 60.0
HEADER_BYTES = 10

Event = Mapping[str, Any]
Predict = Callable[[Mapping[str, NDArray[np.float32]]], NDArray[np.float32]]


class Model:
    """Inputs by name, a function of their columns, and what a forecast says of its origin."""

    def __init__(self, engine: str) -> None:
        if engine == "noop":
            self.inputs: Sequence[str] = list(INPUTS)
            self.predict: Predict = lambda columns: constant_forecast(len(columns["sales"]))
            name, version, precision, digest = "noop", "1", "fp32", "0" * 64
        else:
            session = ort.InferenceSession(MODEL / "model.onnx", providers=["CPUExecutionProvider"])
            card = load_card(MODEL / "card.json")
            self.inputs = [node.name for node in session.get_inputs()]
            self.predict = lambda columns: np.asarray(session.run(["forecast"], columns)[0], np.float32)
            name, version, precision, digest = card.model, card.version, card.precision, card.onnx_sha256
        self.provenance = {
            "quantile_levels": list(QUANTILES),
            "model": name,
            "model_version": version,
            "engine_digest": digest,
            "precision": precision,
            "fallback_reason": None,
        }


class Codec:
    """Avro by the book. The writer's schema is the reader's, so fastavro has nothing to resolve."""

    def __init__(self) -> None:
        self._features = fastavro.parse_schema(workload.schema())
        forecast = load_schema(None, "sku_forecast")
        self._forecast = fastavro.parse_schema(forecast)
        self._header = single_object_header(dict(forecast))

    def decode(self, value: bytes) -> Event:
        """One event."""
        body = io.BytesIO(value)
        body.seek(HEADER_BYTES)
        return cast("Event", fastavro.schemaless_reader(body, self._features, None))

    def encode(self, forecast: Mapping[str, Any]) -> bytes:
        """One forecast."""
        body = io.BytesIO()
        body.write(self._header)
        fastavro.schemaless_writer(body, self._forecast, forecast)
        return body.getvalue()


def run(job: Job) -> Outcome:
    """Consume, decode, stack, run, encode, produce, commit, until every event of the job is committed."""
    settings, watch, codec, model = job.settings(), Stopwatch(), Codec(), Model(job.engine)
    consumer, producer = Consumer(consumer_config(settings)), Producer(producer_config(settings))
    producer.init_transactions(TIMEOUT_S)
    consumer.subscribe([job.input_topic])
    done = transactions = 0
    while done < job.events:
        messages = consumer.consume(min(BATCH_ROWS, job.events - done), POLL_S)
        if not messages:
            continue
        watch.first_record()
        watch.stage("poll")
        producer.begin_transaction()
        events = [codec.decode(message.value() or b"") for message in messages]
        columns = {name: np.array([event[name] for event in events], np.float32) for name in model.inputs}
        watch.stage("decode")
        forecasts = model.predict(columns)
        watch.stage("engine")
        values = _encoded(codec, model, messages, events, forecasts)
        watch.stage("encode")
        for message, value in zip(messages, values, strict=True):
            _produce(producer, job.output_topic, message, value)
        watch.stage("produce")
        positions = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), TIMEOUT_S)
        producer.commit_transaction(TIMEOUT_S)
        watch.stage("commit")
        transactions += 1
        done += len(messages)
    outcome = watch.outcome(done, transactions)
    consumer.close()
    return outcome


def _encoded(
    codec: Codec, model: Model, messages: Sequence[Message], events: Sequence[Event], forecasts: NDArray[np.float32]
) -> list[bytes]:
    now_ms = time.time_ns() // 1_000_000
    quantiles = forecasts.transpose(0, 2, 1).tolist()
    assert forecasts.shape[1:] == (HORIZON, len(QUANTILES))
    return [
        codec.encode(
            {
                "sku_id": event["sku_id"],
                "store_id": event["store_id"],
                "as_of": event["as_of"],
                "quantiles": rows,
                "source_partition": message.partition(),
                "source_offset": message.offset(),
                "generated_at": now_ms,
                **model.provenance,
            }
        )
        for message, event, rows in zip(messages, events, quantiles, strict=True)
    ]


def _produce(producer: Producer, topic: str, message: Message, value: bytes) -> None:
    while True:
        try:
            producer.produce(topic, value, message.key(), message.partition() or 0, timestamp=message.timestamp()[1])
        except BufferError:
            producer.poll(0.01)
        else:
            return


if __name__ == "__main__":
    report(run(job_from_arguments()))

"""Real FreshRetailNet events from topic to topic, exactly once, by one worker: seconds, and where they go.

The events come from a file (`python -m bench events`), the model from any folder: with a plan for this GPU its card decides for
TensorRT. The first round warms the broker and isn't counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka.admin import AdminClient

from bench.event_file import read_events
from bench.job import ROOT, Job, Outcome, run_contender
from bench.machine import machine
from bench.spread import spread
from bench.tables import topic_lines
from bench.throughput import DEAD_LETTERS, HEAP, INPUT, JVM_OPTIONS, PARTITIONS
from bench.verify import Keys, check_offsets, check_output, keys_of
from bench.workload import fill, write_schema
from demo.kafka import EmbeddedKafka
from schemas.engine_card import CARD_NAME, load_card

RESULT = ROOT / "bench" / "results" / "freshretailnet.json"


def measure(events: Path, model: Path, rounds: int, commit_interval_s: float) -> Mapping[str, object]:
    """All rounds; the result as it is written. Raises `InvalidRunError` unless each event has one forecast."""
    schema, messages = read_events(events)
    outcomes: list[Outcome] = []
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS) as kafka, TemporaryDirectory() as directory:
        writer_schema = write_schema(Path(directory), schema)
        servers = kafka.bootstrap_servers
        for topic in (INPUT, DEAD_LETTERS):
            kafka.create_topic(topic, partitions=PARTITIONS)
        size_bytes = fill(servers, INPUT, messages)
        keys = keys_of(servers, INPUT)
        for number in range(rounds + 1):
            name = f"freshretailnet-{number}"
            kafka.create_topic(name, partitions=PARTITIONS)
            job = Job(
                bootstrap_servers=servers,
                input_topic=INPUT,
                output_topic=name,
                dead_letter_topic=DEAD_LETTERS,
                group=name,
                writer_schema=str(writer_schema),
                events=len(messages),
                engine="light",
                commit_interval_s=commit_interval_s,
                model=str(model.resolve()),
            )
            outcomes.append(_turn(job, keys))
            print(f"  round {number}  {outcomes[-1].seconds:.3f} s", flush=True)
    card = load_card(model / CARD_NAME)
    counted = outcomes[1:]
    return {
        "machine": machine(HEAP, JVM_OPTIONS),
        "model": f"{card.model} {card.version}",
        "plans": [f"{plan.runtime} {plan.runtime_version} {plan.precision} on {plan.gpu}" for plan in card.plans],
        "events": len(messages),
        "event_bytes": size_bytes / len(messages),
        "commit_interval_s": commit_interval_s,
        "seconds": spread([outcome.seconds for outcome in counted]),
        "stage_s": {
            stage: spread([outcome.stage_s[stage] for outcome in counted])["median"] for stage in counted[0].stage_s
        },
        "runs": [asdict(outcome) for outcome in outcomes],
    }


def _turn(job: Job, keys: Keys) -> Outcome:
    outcome = run_contender("bench.worker_run", job)
    check_output(job.bootstrap_servers, job.output_topic, keys)
    check_offsets(job.bootstrap_servers, job.group, job.input_topic, keys)
    admin = AdminClient({"bootstrap.servers": job.bootstrap_servers})
    admin.delete_topics([job.output_topic])[job.output_topic].result(30.0)
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m bench freshretailnet", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--events", type=Path, required=True, help="file written by `python -m bench events`")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder with model.onnx, card.json and the card's plans"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default %(default)s)")
    parser.add_argument("--commit-interval-s", type=float, default=0.5, help="seconds (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    result = measure(given.events, given.model, given.rounds, given.commit_interval_s)
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(["", *topic_lines(result), "", f"written to {given.output}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

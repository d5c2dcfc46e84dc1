"""Where the worker's time goes at full load: its own stage times, and the functions that cost most.

Two runs on one broker, each in a process of its own: one undisturbed for the stages, one under cProfile for the functions.
The profiler slows Python calls down and leaves C calls as they are, so its shares favour C; its counts are exact.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from bench import worker_run
from bench.job import ROOT, Outcome, job_from_arguments, report
from bench.machine import machine
from bench.tables import machine_line, table
from bench.throughput import HEAP, JVM_OPTIONS, Contender, Track
from bench.workload import write_schema
from demo.kafka import EmbeddedKafka

RESULT = ROOT / "bench" / "results" / "profile.txt"
FUNCTIONS = 40
ENGINES: Mapping[Literal["noop", "light"], str] = {"noop": "no-op engine", "light": "light model"}
PROFILE = "profile.pstats"


def profiled() -> Outcome:
    """Run this process's job under cProfile; the profile goes beside the job's schema file."""
    job = job_from_arguments()
    profile = cProfile.Profile()
    outcome = profile.runcall(worker_run.run, job)
    profile.dump_stats(Path(job.writer_schema).with_name(PROFILE))
    return outcome


def measure(count: int) -> str:
    """The report."""
    lines: list[str] = []
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS) as kafka, TemporaryDirectory() as name:
        track = Track(kafka, write_schema(Path(name)), count, 0.5)
        track.turn(0, Contender(name="warm-up", module="bench.worker_run", engine="noop"))
        for number, (engine, name_of_engine) in enumerate(ENGINES.items(), 1):
            plain = track.turn(number, Contender(name="plain", module="bench.worker_run", engine=engine)).outcome
            track.turn(number, Contender(name="profiled", module="bench.profile_worker", engine=engine))
            lines += [f"== {name_of_engine}: {plain.rows_per_s:,.0f} rows/s, CPU {plain.cpu_us_per_row:.1f} µs/row", ""]
            lines += [*_stages(plain), "", _functions(Path(name) / PROFILE), ""]
    return "\n".join([machine_line({"machine": machine(HEAP, JVM_OPTIONS)}), f"{count:,} events.", "", *lines])


def _stages(outcome: Outcome) -> list[str]:
    """The loop's time by stage; `rest` is what no stage claims."""
    spent: Mapping[str, float] = {**outcome.stage_s, "rest": outcome.seconds - sum(outcome.stage_s.values())}
    rows = [
        [stage, f"{seconds / outcome.events * 1e6:.2f}", f"{seconds / outcome.seconds:.1%}"]
        for stage, seconds in spent.items()
    ]
    return table(["stage", "µs/row", "share"], rows)


def _functions(path: Path) -> str:
    """The functions with the most time of their own."""
    text = io.StringIO()
    pstats.Stats(str(path), stream=text).sort_stats("tottime").print_stats(FUNCTIONS)
    body = text.getvalue().partition("Ordered by")[2]
    body = body.replace(f"{ROOT}/", "")
    return "Ordered by" + re.sub(r"/\S*/(?=(?:site-packages|python3\.\d+)/)", "", body).rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write `RESULT`."""
    parser = argparse.ArgumentParser(prog="python -m bench profile", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--events", type=int, default=200_000, help="events per run (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    text = measure(given.events)
    given.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    # Started by a benchmark with a job, it is the contender; started by a person, it is the benchmark.
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        report(profiled())
    else:
        sys.exit(main())

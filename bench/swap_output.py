"""What the benchmarks of swaps find on the output topic: every committed forecast, and where it came from.

Reads with a plain consumer of committed messages. A forecast's provenance is picked out of its bytes, some microseconds each;
each `CROSS_CHECKED`-th message is decoded by fastavro as well, and must say the same.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.job import ContenderError
from demo.single_object import SingleObject
from demo.topics_reader import TopicReader, read_until_quiet
from schemas.load import load_schema

CROSS_CHECKED = 1000
QUIET_S = 2.0
"""The reader stops after so long without a message: doubled ones may come after all that is expected."""
PREFIX_BYTES = 10
"""Of single-object encoding."""


class Provenance(NamedTuple):
    """Of one forecast: which event it is of, what made it, and its numbers. fallback: why not the chosen version."""

    partition: int
    offset: int
    version: str
    digest: str
    fallback: str | None
    finite: bool


@dataclass(slots=True, kw_only=True)
class Found:
    """Everything on an output topic.

    offsets, makers: per input partition, row for row, in no order; `makers` are places in `versions`, which holds
    (version, digest). fallbacks: forecasts by what their `fallback_reason` says.
    """

    offsets: dict[int, array[int]] = field(default_factory=dict)
    makers: dict[int, array[int]] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    fallbacks: Counter[str] = field(default_factory=Counter)
    not_finite: int = 0

    def add(self, row: Provenance) -> None:
        """One more forecast."""
        place = self.versions.setdefault((row.version, row.digest), len(self.versions))
        self.offsets.setdefault(row.partition, array("q")).append(row.offset)
        self.makers.setdefault(row.partition, array("q")).append(place)
        if row.fallback is not None:
            self.fallbacks[row.fallback] += 1
        self.not_finite += not row.finite

    def take(self, other: Found) -> None:
        """All that is in `other`, too."""
        places = {at: self.versions.setdefault(name, len(self.versions)) for name, at in other.versions.items()}
        for partition, offsets in other.offsets.items():
            self.offsets.setdefault(partition, array("q")).extend(offsets)
            made = self.makers.setdefault(partition, array("q"))
            made.extend(places[at] for at in other.makers[partition])
        self.fallbacks += other.fallbacks
        self.not_finite += other.not_finite

    @property
    def rows(self) -> int:
        """All forecasts."""
        return sum(len(each) for each in self.offsets.values())

    def runs(self) -> dict[int, list[str]]:
        """Partition -> versions in the order of the inputs, repetitions left out."""
        names = [version for version, _ in self.versions]
        return {
            partition: versions_in_order(self.offsets[partition], [names[i] for i in self.makers[partition]])
            for partition in sorted(self.offsets)
        }


def versions_in_order(offsets: Sequence[int], versions: Sequence[str]) -> list[str]:
    """The versions by ascending offset of their inputs, repetitions left out."""
    order = np.argsort(np.asarray(offsets, np.int64), kind="stable")
    return [version for version, _ in itertools.groupby(versions[i] for i in order.tolist())]


def problems_of_outcomes(offsets: Mapping[int, Sequence[int]], committed: Mapping[int, int]) -> list[str]:
    """What is lost, doubled or beyond the committed positions, in words. offsets: partition -> those with a forecast.

    Every input offset from 0 to `committed` must have exactly one.
    """
    problems = []
    for partition, end in sorted(committed.items()):
        got = np.sort(np.asarray(offsets.get(partition, ()), np.int64))
        kept = np.unique(got)
        doubled = len(got) - len(kept)
        within = kept[(kept >= 0) & (kept < end)]
        if doubled:
            problems.append(f"partition {partition}: {doubled} doubled")
        if len(within) != end:
            problems.append(f"partition {partition}: {end - len(within)} of {end} lost")
        if len(within) != len(kept):
            problems.append(f"partition {partition}: {len(kept) - len(within)} that weren't committed")
    strange = sorted(set(offsets) - set(committed))
    return problems + ([f"partitions {strange} weren't read"] if strange else [])


def problems_of_runs(runs: Mapping[int, Sequence[str]], served: Sequence[str]) -> list[str]:
    """Where the version doesn't change once per swap, in words. served: the versions in the order of their swaps.

    A partition without an event while a version served has no run of it; that isn't a problem, and `silent` counts it. A version that
    comes back, comes too early, or wasn't to serve at all is.
    """
    problems = []
    for partition, found in sorted(runs.items()):
        left = iter(served)
        wrong = [(place, version) for place, version in enumerate(found) if version not in left]  # takes from `left`
        if wrong:
            place, version = wrong[0]
            problems.append(
                f"partition {partition}: {version} comes at place {place}, after {found[place - 1 : place]}"
            )
    return problems


def silent(runs: Mapping[int, Sequence[str]], served: Sequence[str]) -> int:
    """Pairs of a partition and a version of which it has no forecast, though the version served."""
    return sum(len(set(served) - set(found)) for found in runs.values())


def read_forecasts(servers: str, topic: str) -> Found:
    """All committed forecasts, read by a process for each core. Raises `ContenderError` if the quick reading of a message disagrees
    with fastavro's.
    """
    reader = TopicReader(servers, topic)
    partitions = reader.partitions
    reader.close()
    found, readers = Found(), min(os.cpu_count() or 1, len(partitions))
    # Spawned: librdkafka's threads don't survive a fork.
    with ProcessPoolExecutor(readers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(partial(_read, servers, topic), [partitions[at::readers] for at in range(readers)]):
            found.take(part)
    return found


def _read(servers: str, topic: str, partitions: Sequence[int]) -> Found:
    """Those of some of the output topic's partitions."""
    found, decode = Found(), SingleObject(load_schema(None, "sku_forecast")).decode
    reader = TopicReader(servers, topic, partitions)
    try:
        for number, message in enumerate(read_until_quiet(reader, QUIET_S)):
            value = message.value()
            if value is None:
                continue
            row = provenance_of(value)
            if number % CROSS_CHECKED == 0 and row != provenance_by(decode, value):
                raise ContenderError(f"quick and full reading differ: {row}, {provenance_by(decode, value)}")
            found.add(row)
    finally:
        reader.close()
    return found


def provenance_by(decode: Callable[[bytes], Mapping[str, Any]], value: bytes) -> Provenance:
    """By a full decoder of the value."""
    record = decode(value)
    return Provenance(
        partition=record["source_partition"],
        offset=record["source_offset"],
        version=record["model_version"],
        digest=record["engine_digest"],
        fallback=record["fallback_reason"],
        finite=bool(np.isfinite(record["quantiles"]).all()),
    )


def provenance_of(value: bytes) -> Provenance:
    """From the bytes of one forecast in single-object encoding, whose arrays are one block each, as the worker writes them."""
    at = PREFIX_BYTES
    for _ in ("sku_id", "store_id"):
        length, at = _number(value, at)
        at += length
    _, at = _number(value, at)  # as_of
    levels, at = _number(value, at)
    at += 4 * levels + 1  # a zero ends an array
    rows, at = _number(value, at)
    finite = True
    for _ in range(rows):
        days, at = _number(value, at)
        finite = finite and all(map(math.isfinite, struct.unpack_from(f"<{days}f", value, at)))
        at += 4 * days + 1
    partition, at = _number(value, at + 1)
    offset, at = _number(value, at)
    _, at = _number(value, at)  # generated_at
    texts = []
    for _ in ("model", "model_version", "engine_digest", "precision"):
        length, at = _number(value, at)
        texts.append(value[at : at + length].decode())
        at += length
    fallback = None
    if value[at]:
        length, at = _number(value, at + 1)
        fallback = value[at : at + length].decode()
    return Provenance(partition, offset, texts[1], texts[2], fallback, finite)


def _number(value: bytes, at: int) -> tuple[int, int]:
    """Avro's zigzag number at `at`, and where the next thing begins."""
    byte = value[at]
    number, shift = byte & 0x7F, 7
    while byte & 0x80:
        at += 1
        byte = value[at]
        number |= (byte & 0x7F) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), at + 1

"""A profile from traffic: how many rows a commit window brings, and which batch sizes come up.               (pure)

`traffic_prometheus.py` and `topic_rows.py` read the sizes; here they become a proposal, a value that prints as the text
that `--profile` takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine_build.errors import TrafficError
from schemas.engine_card import Profile

LEAST_ROWS: Final = 2
"""The smallest batch of a profile that nobody named; workers pad a single row. At one row, TensorRT 10.6 computed wrong numbers on an
H200, others each time, in the LSTM and in the Transformer in INT8; at two and more none
(bench/results/one-row-h200.json)."""

LEAST_GRAPH_ROWS: Final = 64
"""Below this one graph serves all: on an H200 one of 64 rows takes up to 1.2 times as long as one of two (bench/results/tensorrt.json and the
first run of tensorrt-two-rows-h200.json), and each makes every load of the plan longer by a fifth of a second."""

LARGEST_GRAPH_ROWS: Final = 512
"""Above this a launch costs little beside the work, so a CUDA graph gains nothing worth its memory."""

_TEXT: Final = re.compile(r"(\d+):(\d+):(\d+)(?:@(\d+(?:,\d+)*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A profile and the batch sizes worth a CUDA graph, rows, ascending. notes: how it came about, one sentence each."""

    profile: Profile
    cuda_graph_rows: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        text = f"{self.profile.min_rows}:{self.profile.opt_rows}:{self.profile.max_rows}"
        return f"{text}@{','.join(map(str, self.cuda_graph_rows))}" if self.cuda_graph_rows else text


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sizes:
    """How often which number of rows came up. rows: float64[n], ascending, above 0; counts: float64[n], above 0."""

    rows: NDArray[np.float64]
    counts: NDArray[np.float64]

    def quantile(self, share: float, *, by_rows: bool = False) -> float:
        """The smallest size that `share` of all occurrences (or of all rows) doesn't exceed."""
        weights = self.counts * self.rows if by_rows else self.counts
        reached = np.cumsum(weights)
        return float(self.rows[min(int(np.searchsorted(reached, share * reached[-1])), len(self.rows) - 1)])


def sizes_of(rows: Sequence[int] | NDArray[np.int64]) -> Sizes:
    """Sizes from single observations; zeros don't count. Raises `TrafficError` if nothing is left."""
    found, counts = np.unique(np.asarray(rows, np.int64), return_counts=True)
    some = found > 0
    if not some.any():
        raise TrafficError("traffic", ["got no rows in any window; let workers run for a while, or read a longer span"])
    return Sizes(rows=found[some].astype(np.float64), counts=counts[some].astype(np.float64))


def parse_profile(text: str) -> Proposal:
    """The proposal that prints as `text`: `MIN:OPT:MAX`, with `@` and sizes for CUDA graphs behind it. Raises `TrafficError`."""
    match = _TEXT.fullmatch(text.strip())
    expected = "MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, as in 2:512:8192 or 2:512:8192@64,512"
    if match is None:
        raise TrafficError("profile", [f"got {text!r}, expected {expected}"])
    least, usual, most = (int(match[place]) for place in (1, 2, 3))
    graphs = tuple(int(each) for each in match[4].split(",")) if match[4] else ()
    if not 1 <= least <= usual <= most:
        raise TrafficError("profile", [f"got {text!r}, expected {expected}"])
    if list(graphs) != sorted(set(graphs)) or any(not least <= rows <= most for rows in graphs):
        raise TrafficError("profile", [f"got {text!r}, expected sizes behind @ ascending and within {least} to {most}"])
    return Proposal(profile=Profile(min_rows=least, opt_rows=usual, max_rows=most), cuda_graph_rows=graphs)


def profile_of(card: Profile) -> Profile:
    """The profile to build for a model whose card says `card`: the same, but from `LEAST_ROWS` rows on if it takes so many."""
    least = max(card.min_rows, min(LEAST_ROWS, card.max_rows))
    return Profile(min_rows=least, opt_rows=max(card.opt_rows, least), max_rows=card.max_rows)


def propose(
    demand: Sizes,
    batches: Sizes | None = None,
    *,
    quantile: float = 0.99,
    headroom: float = 0.25,
    graph_share: float = 0.95,
    memory: tuple[int, int] | None = None,
) -> Proposal:
    """A profile for traffic of `demand` rows per commit window, in batches of sizes `batches` (None: as the demand).

    max: the demand's `quantile` and `headroom` more, rounded up, within memory (bytes there are, bytes a row takes). opt: half
    of all rows come in batches up to it. min: as `profile_of` has it. CUDA graphs: powers of two from 64 up to 512 (or the profile's
    most rows, if fewer than 64) to which `graph_share` of the batches of that size are padded. Raises `TrafficError` if memory doesn't suffice for a row.
    """
    sizes = batches or demand
    wanted = demand.quantile(quantile)
    most = rounded_up(wanted * (1.0 + headroom))
    notes = [
        f"max: P{100 * quantile:g} of the demand is {wanted:,.0f} rows, {headroom:.0%} more and rounded up: {most:,}"
    ]
    if memory is not None:
        bound = memory[0] // memory[1]
        if bound < 1:
            raise TrafficError("memory", [f"got {memory[0]:,} bytes for rows of {memory[1]:,}, expected room for one"])
        if bound < most:
            notes.append(f"max: bounded by memory to {bound:,} rows ({memory[0]:,} bytes, {memory[1]:,} a row)")
            most = bound
    usual = min(rounded_up(sizes.quantile(0.5, by_rows=True)), most)
    profile = profile_of(Profile(min_rows=1, opt_rows=usual, max_rows=most))
    graphs, covered = _graph_rows(sizes, min(most, LARGEST_GRAPH_ROWS), graph_share)
    notes.append(f"opt: half of all rows come in batches of up to {usual:,}")
    if profile.opt_rows > usual:
        notes.append(f"min: {profile.min_rows}, as single rows are padded")
    notes.append(f"CUDA graphs: {covered:.0%} of the batches are padded to one of {len(graphs)} sizes")
    return Proposal(profile=profile, cuda_graph_rows=graphs, notes=tuple(notes))


def rounded_up(rows: float) -> int:
    """The next number that is at most an eighth larger and, above 8, a multiple of 8: kernels like round sizes."""
    whole = max(int(np.ceil(rows)), 1)
    if whole <= 8:
        return whole
    step = max(8, 1 << (whole.bit_length() - 4))
    return -(-whole // step) * step


def _graph_rows(sizes: Sizes, largest: int, share: float) -> tuple[tuple[int, ...], float]:
    """The sizes that small batches are padded to, most used first until `share` of them is covered; of all batches."""
    powers = [1 << power for power in range(largest.bit_length())]
    steps = [rows for rows in powers if LEAST_GRAPH_ROWS <= rows <= largest] or [largest]
    small = sizes.rows <= steps[-1]
    total = float(sizes.counts.sum())
    if not small.any():
        return (), 0.0
    places = np.searchsorted(steps, sizes.rows[small])
    used = np.bincount(places, weights=sizes.counts[small], minlength=len(steps))
    chosen: list[int] = []
    for place in np.argsort(-used, kind="stable"):
        if used[place] == 0 or used[chosen].sum() >= share * used.sum():
            break
        chosen.append(int(place))
    return tuple(sorted(steps[place] for place in chosen)), float(used[chosen].sum()) / total

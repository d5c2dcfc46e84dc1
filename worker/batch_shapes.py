"""How many rows the GPU runs for a batch of so many: which profile, and whether a CUDA graph is there for it.       (pure)

A batch may be run with more rows than it has, the rest zeroed: because every profile that is large enough begins higher, or
because a graph, of a listed size or of full batches, is launched faster than a batch is enqueued.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FREE_ROWS: Final = 64
"""A listed graph of at most so many rows is used for every smaller batch: up to there a batch takes little longer than one row,
launching its kernels."""

SMALL_ROWS: Final = 512
SMALL_PADDING: Final = 2.0
"""A listed graph of at most `SMALL_ROWS` isn't used if it would run more than so many times the rows that are there."""

PADDING: Final = 1.125
"""Likewise for a larger one, where rows cost time, and for the graph of full batches that nobody listed."""


@dataclass(frozen=True, slots=True, order=True)
class RowRange:
    """Rows that a profile was built for: the fewest, those it was tuned for, the most."""

    min_rows: int
    opt_rows: int
    max_rows: int


@dataclass(frozen=True, slots=True)
class Shape:
    """profile: its index. rows: how many are run, the batch's and zeroed ones. graph: whether a CUDA graph is wanted."""

    profile: int
    rows: int
    graph: bool


class BatchShapes:
    """The shapes that batches of 1 to `max_rows` rows are run with.

    Args:
        profiles: of the plan, by index.
        graph_rows: batch sizes for which a CUDA graph is wanted; those that no profile takes or no batch needs are left out.
        max_rows: the largest batch.
        full: whether a graph is wanted for batches of `max_rows`, too.

    Raises `ValueError` if no profile takes `max_rows` rows.
    """

    def __init__(
        self, profiles: Sequence[RowRange], graph_rows: Sequence[int], max_rows: int, *, full: bool = False
    ) -> None:
        largest = max((profile.max_rows for profile in profiles), default=0)
        if max_rows > largest:
            raise ValueError(f"batch rows: got {max_rows}, the plan's profiles take {largest} at most")
        self._profiles = tuple(profiles)
        least = {max_rows: math.ceil(max_rows / PADDING)} if full else {}
        least |= {rows: _least_rows(rows) for rows in graph_rows}
        self._least = {rows: least[rows] for rows in sorted(least) if 1 <= rows <= largest and self._fits(rows)}
        self._unlisted = {max_rows} - {*graph_rows} if full else set()
        self._found = {rows: self.shape_for(rows) for rows in sorted(self._turns(max_rows))}

    def shape_for(self, rows: int) -> Shape:
        """How a batch of `rows` rows is run, 1 <= rows <= max_rows."""
        graph = next((size for size, least in self._least.items() if least <= rows <= size), None)
        if graph is not None:
            return Shape(self._profile_for(graph), graph, graph=True)
        profile = self._profile_for(rows)
        return Shape(profile, max(rows, self._profiles[profile].min_rows), graph=False)

    @property
    def capacity_rows(self) -> int:
        """Rows that the memory must have room for; at least the largest batch."""
        return max(shape.rows for shape in self._found.values())

    @property
    def profiles(self) -> tuple[int, ...]:
        """The profiles in use, ascending."""
        return tuple(sorted({shape.profile for shape in self._found.values()}))

    @property
    def graphs(self) -> tuple[Shape, ...]:
        """The shapes that a graph is wanted for, smallest first."""
        return tuple(sorted({shape for shape in self._found.values() if shape.graph}, key=lambda shape: shape.rows))

    def is_listed(self, shape: Shape) -> bool:
        """Whether somebody asked for the graph of `shape`."""
        return shape.rows not in self._unlisted

    @property
    def samples(self) -> tuple[int, ...]:
        """Batch sizes, ascending, that between them use every graph, and each profile without one for its smallest and largest batch."""
        graphs = {shape: rows for rows, shape in self._found.items() if shape.graph}
        plain: dict[int, list[int]] = {}
        for rows, shape in self._found.items():
            if not shape.graph:
                plain.setdefault(shape.profile, []).append(rows)
        return tuple(sorted({*graphs.values(), *(rows for each in plain.values() for rows in (each[0], each[-1]))}))

    @property
    def warm_up(self) -> tuple[Shape, ...]:
        """Shapes without a graph, to be run once before serving: each profile in use at its fewest, tuned and most rows."""
        most, wanted = self.capacity_rows, set()
        for index in self.profiles:
            profile = self._profiles[index]
            for rows in (profile.min_rows, profile.opt_rows, profile.max_rows):
                wanted.add(Shape(index, min(rows, most), graph=False))
        return tuple(sorted(wanted, key=lambda shape: (shape.profile, shape.rows)))

    def _turns(self, max_rows: int) -> set[int]:
        """Every batch size at which profile or graph may turn to another one, and the one before it.

        So few, as a version is loaded while another one serves: to ask for each of thousands of sizes would keep Python busy for
        many times the length of a batch.
        """
        ends = {1, max_rows}
        for profile in self._profiles:
            ends |= {profile.min_rows - 1, profile.max_rows}
        for graph, least in self._least.items():
            ends |= {graph, least - 1}
        return {rows for end in ends for rows in (end, end + 1) if 1 <= rows <= max_rows}

    def _fits(self, rows: int) -> bool:
        """Whether the profile that runs `rows` rows does so without padding."""
        return self._profiles[self._profile_for(rows)].min_rows <= rows

    def _profile_for(self, rows: int) -> int:
        """The profile that runs `rows` rows with the least padding; of several the one with the lowest maximum."""
        fits = [(max(rows, p.min_rows), p.max_rows, i) for i, p in enumerate(self._profiles) if p.max_rows >= rows]
        return min(fits)[2]


def _least_rows(graph: int) -> int:
    """The fewest rows that a listed graph of `graph` rows is used for."""
    if graph <= FREE_ROWS:
        return 1
    return math.ceil(graph / (SMALL_PADDING if graph <= SMALL_ROWS else PADDING))

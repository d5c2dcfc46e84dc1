"""Which shape a batch is run with."""

from __future__ import annotations

import pytest

from worker.batch_shapes import BatchShapes, RowRange, Shape

ONE = [RowRange(1, 8, 64)]
TWO = [RowRange(1, 16, 64), RowRange(128, 512, 4096)]


def run_rows(shapes: BatchShapes, *rows: int) -> list[tuple[int, int, bool]]:
    return [(s.profile, s.rows, s.graph) for s in map(shapes.shape_for, rows)]


def test_without_graphs_a_batch_is_run_as_large_as_it_is() -> None:
    shapes = BatchShapes(ONE, (), 64)
    assert run_rows(shapes, 1, 7, 64) == [(0, 1, False), (0, 7, False), (0, 64, False)]
    assert shapes.capacity_rows == 64
    assert shapes.graphs == ()


def test_a_batch_goes_to_the_profile_that_pads_least() -> None:
    shapes = BatchShapes(TWO, (), 4096)
    assert run_rows(shapes, 64, 65, 127, 128, 4096) == [
        *((0, 64, False), (1, 128, False), (1, 128, False), (1, 128, False), (1, 4096, False))
    ]


def test_of_overlapping_profiles_the_smaller_one_is_taken() -> None:
    shapes = BatchShapes([RowRange(1, 512, 4096), RowRange(1, 8, 64)], (), 100)
    assert run_rows(shapes, 10, 64, 65) == [(1, 10, False), (1, 64, False), (0, 65, False)]


def test_memory_has_room_for_padded_batches() -> None:
    assert BatchShapes(TWO, (), 70).capacity_rows == 128
    assert BatchShapes(ONE, (16,), 10).capacity_rows == 16


def test_a_graph_is_used_for_the_batches_below_its_size() -> None:
    shapes = BatchShapes(ONE, (1, 8, 32), 64)
    assert run_rows(shapes, 1, 2, 8, 9, 32, 33) == [
        *((0, 1, True), (0, 8, True), (0, 8, True), (0, 32, True), (0, 32, True), (0, 33, False))
    ]


def test_a_graph_is_not_used_where_it_would_compute_many_rows_for_nothing() -> None:
    shapes = BatchShapes([RowRange(1, 512, 4096)], (64, 256, 1024), 2048)
    assert run_rows(shapes, 1, 64, 65, 127, 128, 256, 257, 910, 911, 1024, 1025) == [
        *((0, 64, True), (0, 64, True), (0, 65, False), (0, 127, False), (0, 256, True), (0, 256, True)),
        *((0, 257, False), (0, 910, False), (0, 1024, True), (0, 1024, True), (0, 1025, False)),
    ]


def test_below_the_smallest_profile_a_batch_is_run_with_its_fewest_rows_or_by_a_graph_that_it_takes() -> None:
    profile = [RowRange(2, 8, 64)]
    assert run_rows(BatchShapes(profile, (), 64), 1, 2, 3) == [(0, 2, False), (0, 2, False), (0, 3, False)]
    assert run_rows(BatchShapes(profile, (1, 8), 64), 1, 9) == [(0, 8, True), (0, 9, False)]


def test_graphs_that_no_profile_takes_or_no_batch_needs_are_left_out() -> None:
    assert [s.rows for s in BatchShapes(TWO, (8, 100, 5000), 64).graphs] == [8]
    assert [s.rows for s in BatchShapes(ONE, (8, 8, 16), 10).graphs] == [8, 16]


def test_warming_up_runs_the_edges_of_every_profile_in_use() -> None:
    assert BatchShapes(TWO, (), 4096).warm_up == (
        *(Shape(0, rows, graph=False) for rows in (1, 16, 64)),
        *(Shape(1, rows, graph=False) for rows in (128, 512, 4096)),
    )
    assert [s.rows for s in BatchShapes(TWO, (), 300).warm_up] == [1, 16, 64, 128, 300]
    assert [s.rows for s in BatchShapes(TWO, (), 10).warm_up] == [1, 10]


@pytest.mark.parametrize("profiles", [ONE, []])
def test_a_batch_above_all_profiles_is_refused(profiles: list[RowRange]) -> None:
    with pytest.raises(ValueError, match=r"batch rows: got 65, the plan's profiles take .* at most"):
        BatchShapes(profiles, (), 65)

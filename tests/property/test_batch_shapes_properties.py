"""Every batch fits the shape that it is run with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.batch_shapes import FREE_ROWS, PADDING, SMALL_PADDING, SMALL_ROWS, BatchShapes, RowRange

SIZES = st.integers(1, 1500)
RANGES = st.lists(st.tuples(SIZES, SIZES, SIZES).map(lambda t: RowRange(*sorted(t))), min_size=1, max_size=4)


@given(RANGES, st.lists(SIZES, max_size=5), st.booleans(), st.data())
def test_a_shape_holds_the_batch_lies_in_its_profile_and_in_memory(
    profiles: list[RowRange],
    graph_rows: list[int],
    full: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    largest = max(profile.max_rows for profile in profiles)
    max_rows = data.draw(st.integers(1, largest))
    shapes = BatchShapes(profiles, graph_rows, max_rows, full=full)
    for rows in range(1, max_rows + 1):
        shape = shapes.shape_for(rows)
        profile = profiles[shape.profile]
        assert rows <= shape.rows <= shapes.capacity_rows
        assert profile.min_rows <= shape.rows <= profile.max_rows
        assert shape.graph == (shape in shapes.graphs)
        if shape.graph:
            assert shapes.is_listed(shape) == (shape.rows in graph_rows)
            if shapes.is_listed(shape):
                padding = SMALL_PADDING if shape.rows <= SMALL_ROWS else PADDING
                assert shape.rows <= max(padding * rows, FREE_ROWS)
            else:
                assert full
                assert shape.rows == max_rows <= PADDING * rows
        else:
            assert shape.rows in {rows, profile.min_rows}


@given(RANGES, st.lists(SIZES, max_size=5), st.booleans(), st.data())
def test_what_is_made_and_proved_beforehand_is_what_some_batch_needs(
    profiles: list[RowRange],
    graph_rows: list[int],
    full: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    max_rows = data.draw(st.integers(1, max(profile.max_rows for profile in profiles)))
    shapes = BatchShapes(profiles, graph_rows, max_rows, full=full)
    found = [shapes.shape_for(rows) for rows in range(1, max_rows + 1)]
    assert shapes.capacity_rows == max(shape.rows for shape in found)
    assert set(shapes.profiles) == {shape.profile for shape in found}
    assert set(shapes.graphs) == {shape for shape in found if shape.graph}
    sampled = [shapes.shape_for(rows) for rows in shapes.samples]
    assert {shape for shape in sampled if shape.graph} == set(shapes.graphs)
    for profile in shapes.profiles:
        plain = [rows for rows, shape in enumerate(found, start=1) if shape.profile == profile and not shape.graph]
        assert not plain or {plain[0], plain[-1]} <= set(shapes.samples)


@given(RANGES, st.lists(SIZES, max_size=5), st.data())
def test_warming_up_stays_in_profile_and_memory_and_leaves_no_profile_out(
    profiles: list[RowRange], graph_rows: list[int], data: st.DataObject
) -> None:
    max_rows = data.draw(st.integers(1, max(profile.max_rows for profile in profiles)))
    shapes = BatchShapes(profiles, graph_rows, max_rows)
    used = {shapes.shape_for(rows).profile for rows in range(1, max_rows + 1)}
    assert {shape.profile for shape in shapes.warm_up} == used
    for shape in shapes.warm_up:
        assert profiles[shape.profile].min_rows <= shape.rows <= profiles[shape.profile].max_rows
        assert shape.rows <= shapes.capacity_rows
        assert not shape.graph

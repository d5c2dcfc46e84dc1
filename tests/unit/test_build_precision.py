from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from engine_build.entropy import range_of
from engine_build.errors import GraphError
from engine_build.onnx_run import OnnxRun, spread
from engine_build.precision import Workpiece, write_fp16, write_fp32, write_int8
from engine_build.qdq import layers_of, quantised
from engine_build.ranges import ranges_of
from engine_build.regions import half_region, named
from engine_build.sensitivity import Switches, choices, wape_to
from tests.helpers.onnx_graphs import network, rows, saved

ROWS = rows()


def test_the_body_lies_between_the_layers_and_scaling_and_calendar_stay_outside() -> None:
    region = half_region(network(), ROWS)
    assert region.nodes == {"first_layer", "middle", "second_layer"}
    assert region.layers == ("first_layer", "second_layer")
    assert region.left == {}


def test_a_weekday_from_days_since_1970_is_found_by_its_error_and_keeps_what_feeds_it() -> None:
    region = half_region(network(sharp=True), ROWS)
    assert region.left["weekday"] > 0.5
    assert {"day_layer", "weeks", "whole", "monday"} <= region.left.keys()
    assert region.nodes >= {"first_layer", "middle", "second_layer"}
    assert not region.nodes & {"day_layer", "weekday"}


def test_names_given_by_the_caller_stay() -> None:
    region = half_region(network(), ROWS, keep_fp32=["second*"])
    assert region.nodes == {"first_layer", "middle"}


def test_overflow_is_left_in_fp32() -> None:
    region = half_region(network(middle="Exp"), {**ROWS, "sales": ROWS["sales"] * 2000})
    assert "middle" not in region.nodes


def test_unnamed_and_twin_nodes_get_names_of_their_own() -> None:
    model = network()
    model.graph.node[0].name = ""
    model.graph.node[2].name = model.graph.node[1].name
    names = [node.name for node in named(model).graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


def test_fp32_is_the_same_bytes(tmp_path: Path) -> None:
    source = saved(network(), tmp_path)
    assert write_fp32(source, tmp_path / "copy.onnx").path.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("sharp", [False, True])
def test_fp16_is_close_to_fp32_with_float_inputs_and_outputs(tmp_path: Path, sharp: bool) -> None:  # noqa: FBT001
    source = saved(network(sharp=sharp), tmp_path)
    written = write_fp16(Workpiece(source, ROWS), tmp_path / "half.onnx")
    assert 0 < written.wape_to_fp32 < 2e-3
    assert written.fp16_layers == 2
    graph = onnx.load(str(written.path)).graph
    assert {each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}


def test_int8_reads_float_weights_through_pairs_and_says_what_was_tried(tmp_path: Path) -> None:
    written = write_int8(Workpiece(saved(network(), tmp_path), ROWS), tmp_path / "int8.onnx", most_error=0.05)
    assert (written.int8_layers, written.precision) == (2, "int8")
    assert written.wape_to_fp32 < 0.05
    assert {"minmax: all layers", "entropy: all layers"} <= written.trials.keys()
    graph = onnx.load(str(written.path)).graph
    kinds = {each.name: each.data_type for each in graph.initializer}
    assert kinds["first"] == kinds["second"] == onnx.TensorProto.FLOAT
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 4
    assert all(
        kind != onnx.TensorProto.INT8 or not np.any(onnx.numpy_helper.to_array(each))
        for each, kind in zip(graph.initializer, kinds.values(), strict=True)
    )


def test_layers_that_do_not_bear_eight_bits_are_left_out_by_their_error(tmp_path: Path) -> None:
    written = write_int8(Workpiece(saved(network(), tmp_path), ROWS), tmp_path / "int8.onnx", most_error=1e-7)
    assert written.int8_layers == 0
    assert set(written.left_unquantised) == {"first_layer", "second_layer"}
    assert all(error > 1e-7 for error in written.left_unquantised.values())


@pytest.mark.parametrize("rest", ["fp16", "fp32"])
def test_the_rest_of_an_int8_network_is_half_or_full_by_option(tmp_path: Path, rest: str) -> None:
    source = saved(network(), tmp_path)
    written = write_int8(Workpiece(source, ROWS), tmp_path / "out.onnx", rest=rest, most_error=0.05)  # type: ignore[arg-type]
    casts = [node for node in onnx.load(str(written.path)).graph.node if node.op_type == "Cast"]
    assert bool(casts) == (rest == "fp16")
    assert OnnxRun(written.path).forecasts(ROWS).shape == (300, 2, 3)


def test_int8_needs_scales_per_channel(tmp_path: Path) -> None:
    model = network()
    model.opset_import[0].version = 12
    with pytest.raises(GraphError, match="opset 12: INT8 needs 13 or newer"):
        write_int8(Workpiece(saved(model, tmp_path), ROWS), tmp_path / "out.onnx")


def test_switched_measurements_agree_with_the_graph_that_is_written() -> None:
    model = network()
    layers = layers_of(model, {"first_layer", "second_layer"})
    largest = ranges_of(model, [layer.values for layer in layers], ROWS, ("minmax",))["minmax"]
    switches = Switches(model, layers, ROWS)
    found = OnnxRun(quantised(model, layers, largest)).forecasts(ROWS)
    assert switches.error(switches.groups, largest) == pytest.approx(
        wape_to(OnnxRun(model).forecasts(ROWS), found), rel=0.1
    )


def test_the_worst_group_goes_first() -> None:
    model = network()
    layers = layers_of(model, {"first_layer", "second_layer"})
    largest = ranges_of(model, [layer.values for layer in layers], ROWS, ("minmax",))["minmax"]
    switches = Switches(model, layers, ROWS)
    alone = {layer.node: switches.error([layer.values], largest) for layer in layers}
    choice = choices(switches, {"minmax": largest}, most_error=max(alone.values()) * 0.99)["minmax"]
    assert max(alone, key=lambda name: alone[name]) in choice.left
    assert choice.error <= max(alone.values()) * 0.99


def test_what_was_measured_once_is_not_measured_again() -> None:
    model = network()
    layers = layers_of(model, {"first_layer", "second_layer"})
    largest = ranges_of(model, [layer.values for layer in layers], ROWS, ("minmax",))["minmax"]
    switches = Switches(model, layers, ROWS)
    twice = choices(switches, {"minmax": largest, "entropy": dict(largest)}, most_error=1e-9)
    assert twice["minmax"].left == twice["entropy"].left
    assert (twice["entropy"].error, twice["entropy"].trials) == (twice["minmax"].error, 0)
    assert switches.trials <= 1 + 2 + 2


def test_the_order_is_that_of_the_method_that_errs_least(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    layers = layers_of(model, {"first_layer", "second_layer"})
    good = ranges_of(model, [layer.values for layer in layers], ROWS, ("minmax",))["minmax"]
    bad = {name: value * 100 for name, value in good.items()}
    switches = Switches(model, layers, ROWS)
    seen = []
    error = switches.error

    def spied(groups: Collection[str], largest: Mapping[str, float], *, rough: bool = False) -> float:
        seen.append((rough, largest))
        return error(groups, largest, rough=rough)

    monkeypatch.setattr(switches, "error", spied)
    choices(switches, {"minmax": bad, "entropy": good}, most_error=1e-9)
    assert [largest for rough, largest in seen if rough] == [good, good]


@pytest.mark.parametrize("seed", range(6))
def test_entropy_is_onnx_runtimes_own(seed: int) -> None:
    random = np.random.default_rng(seed)
    kinds = (
        random.normal(size=5000),
        random.exponential(size=5000),
        -(random.exponential(size=5000) ** 2),
        random.standard_t(3, size=5000),
        np.maximum(random.normal(size=5000), 0.0),
        np.zeros(50),
    )
    collector = HistogramCollector(
        method="entropy", symmetric=True, num_bins=512, num_quantized_bins=64, percentile=99.999, scenario="same"
    )
    for scale in (1.0, 1.5):  # the second makes the histogram grow
        collector.collect({"x": [(scale * kinds[seed]).astype(np.float32)]})
    histogram = collector.histogram_dict["x"]
    low, high = collector.get_entropy_threshold(histogram, 64)
    found = range_of(histogram[0], histogram[1], 64)
    assert (max(found[0], histogram[2]), min(found[1], histogram[3])) == pytest.approx((low, high))


def test_a_histogram_with_few_bins_is_taken_whole() -> None:
    assert range_of(np.ones(4, np.int64), np.linspace(-2.0, 2.0, 5), 64) == (-2.0, 2.0)


def test_few_rows_are_spread_over_all() -> None:
    assert spread({"x": np.arange(9, dtype=np.float32)}, 3)["x"].tolist() == [0, 4, 8]
    assert spread({"x": np.arange(2, dtype=np.float32)}, 3)["x"].tolist() == [0, 1]


def test_entropy_never_asks_for_more_than_the_largest_value() -> None:
    model = network()
    found = ranges_of(model, ["tokens", "positive"], ROWS)
    assert all(0 < found["entropy"][name] <= found["minmax"][name] for name in ("tokens", "positive"))


def test_every_graph_is_parsed_by_tensorrt_rtx(tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="only for Linux on x86_64")
    source = saved(network(), tmp_path)
    written = [
        write_fp16(Workpiece(source, ROWS), tmp_path / "half.onnx"),
        write_int8(Workpiece(source, ROWS), tmp_path / "int8.onnx"),
    ]
    for each in written:
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network_ = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network_, logger)  # which holds no reference to the network
        assert parser.parse(each.path.read_bytes()), [parser.get_error(k).desc() for k in range(parser.num_errors)]

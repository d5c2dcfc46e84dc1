from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from torch import Tensor  # noqa: E402 - after the check that PyTorch is there

from demo.series import SeriesSet  # noqa: E402 - after the check that PyTorch is there
from demo.training.calibrate import calibrate  # noqa: E402
from demo.training.export import export, largest_difference  # noqa: E402
from demo.training.features import FeatureConfig, WindowFeatures  # noqa: E402
from demo.training.fit import FitConfig, fit, predict  # noqa: E402
from demo.training.loss import LossConfig, quantile_loss  # noqa: E402
from demo.training.model import Calibration, Forecaster  # noqa: E402
from demo.training.windows import Windows, epoch_order, weekday_means  # noqa: E402
from tests.helpers.series import made_series  # noqa: E402

ALL = ("promo", "discount", "holiday", "temperature", "in_stock", "weekday_mean")
FEATURES = FeatureConfig(covariates=ALL, scale_floor=0.1, yearly_harmonics=2)
SIZES = {"lstm": {"width": 8}, "transformer": {"width": 8, "layers": 1}, "tsmixer": {"width": 8, "layers": 1}}


def forecaster(kind: str, members: int = 2, features: FeatureConfig = FEATURES) -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(features, [(kind, SIZES[kind])] * members, dropout=0.1).eval()


def fields(rows: int = 5, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {
        name: torch.rand(rows, width, generator=generator)
        for name, width in FEATURES.inputs.items()
        if width is not None
    }
    made["sales"] = made["sales"] * 50.0
    made["weekday_mean"] = made["weekday_mean"] * 50.0
    return made | {"as_of": torch.arange(18_000.0, 18_000.0 + rows)}


def windows(series: SeriesSet | None = None, features: FeatureConfig = FEATURES) -> Windows:
    data = series or made_series(days=120)
    stock = np.random.default_rng(0).uniform(0.5, 1.0, data.sales.shape).astype(np.float32)
    return Windows(dataclasses.replace(data, in_stock=stock), features.inputs, torch.device("cpu"))


@pytest.mark.parametrize("kind", SIZES)
def test_quantiles_ascend_and_are_not_negative_whatever_the_weights(kind: str) -> None:
    model = forecaster(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0)
        forecast = model(fields(rows=64))
    assert forecast.shape == (64, 14, 3)
    assert (forecast >= 0).all()
    assert (torch.diff(forecast, dim=2) >= 0).all()


@pytest.mark.parametrize("kind", SIZES)
def test_rows_do_not_depend_on_their_batch_mates(kind: str) -> None:
    model, batch = forecaster(kind), fields(rows=6)
    with torch.no_grad():
        whole = model(batch)
        alone = model({name: values[2:3] for name, values in batch.items()})
    torch.testing.assert_close(whole[2:3], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SIZES)
def test_onnx_runtime_agrees_with_pytorch_at_any_batch_size(kind: str, tmp_path: Path) -> None:
    model = forecaster(kind)
    export(model, tmp_path / "model.onnx")
    for rows in (1, 7):
        assert largest_difference(model, tmp_path / "model.onnx", fields(rows)) < 1e-4


def test_the_exported_graph_counts_weekdays_in_32_bit_integers_alone(tmp_path: Path) -> None:
    """In half precision a date would be known to 16 days only, and not every TensorRT has INT64."""
    onnx = pytest.importorskip("onnx")
    features = dataclasses.replace(FEATURES, yearly_harmonics=0)
    export(forecaster("tsmixer", 1, features), tmp_path / "model.onnx")
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(tmp_path / "model.onnx"))).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in graph.value_info}
    dates, back = {"as_of"}, 0
    for node in graph.node:
        if dates.isdisjoint(node.input):
            continue
        (result,) = node.output
        if node.op_type == "Cast" and kinds[result] == onnx.TensorProto.FLOAT:
            back += 1
            continue
        dates.add(result)
        assert kinds[result] == onnx.TensorProto.INT32, node
    assert back == 2  # of the history and of the horizon


def test_a_missing_covariate_is_its_neutral_value() -> None:
    few = FeatureConfig(covariates=(), scale_floor=0.1, yearly_harmonics=0)
    assert list(few.inputs) == ["sales", "as_of"]
    neutral = {"promo": 0.0, "discount": 1.0, "holiday": 0.0, "temperature": 15.0, "in_stock": 1.0, "weekday_mean": 0.0}
    assert WindowFeatures(FEATURES).neutral() == neutral


def test_weekdays_agree_with_the_calendar_for_a_century() -> None:
    features = WindowFeatures(FEATURES)
    days = torch.arange(-10_000, 30_000, dtype=torch.int32)
    one_hot = features._weekday(days.unsqueeze(1)).squeeze(1)
    assert one_hot.sum(1).tolist() == [1.0] * len(days)
    expected = (np.arange(-10_000, 30_000) + 3) % 7
    assert one_hot.argmax(1).tolist() == expected.tolist()


def test_days_out_of_stock_do_not_lower_the_scale() -> None:
    features, batch = WindowFeatures(FEATURES), fields()
    batch["in_stock"] = torch.ones(5, 30)
    batch["holiday"] = torch.zeros(5, 30)
    batch["sales"] = torch.full((5, 30), 10.0)
    expected = features(batch).scale
    batch["sales"][:, :9] = 0.0
    batch["in_stock"][:, :9] = 0.0
    torch.testing.assert_close(features(batch).scale, expected)


def test_forecasts_are_proportional_to_the_units_but_for_the_floor() -> None:
    model = forecaster("tsmixer", features=dataclasses.replace(FEATURES, scale_floor=0.0))
    one, ten = model.features(fields()), model.features(scaled(fields(), 10.0))
    torch.testing.assert_close(one.future, ten.future)
    torch.testing.assert_close(one.history, ten.history)
    torch.testing.assert_close(one.scale * 10.0, ten.scale)


def scaled(batch: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    return batch | {name: batch[name] * factor for name in ("sales", "weekday_mean")}


def test_censored_days_carry_no_loss() -> None:
    quantiles = torch.rand(3, 14, 3).sort(dim=2).values
    actual, scale = torch.rand(3, 14), torch.rand(3, 1) + 0.5
    counted = torch.ones(3, 14)
    counted[:, 5] = 0.0
    loss = quantile_loss(quantiles, actual, counted, scale, LossConfig())
    actual[:, 5] = 1e6
    assert quantile_loss(quantiles, actual, counted, scale, LossConfig()) == loss
    counted[:, 5] = 1.0
    assert quantile_loss(quantiles, actual, counted, scale, LossConfig()) > loss


def test_calibration_hats_sum_to_one_at_any_scale() -> None:
    scale = torch.tensor([[1e-6], [0.3], [1.0], [7.0], [1e6]])
    torch.testing.assert_close(Calibration().hats(scale).sum(1), torch.ones(5))


def test_calibration_covers_eight_days_of_ten_and_centres_the_median() -> None:
    plain = made_series(count=80, days=120)
    noise = np.random.default_rng(5).gamma(3.0, 1 / 3.0, plain.sales.shape).astype(np.float32)
    model, data = forecaster("tsmixer"), windows(dataclasses.replace(plain, sales=plain.sales * noise))
    calibrate(model, data, [60, 75, 90])
    forecast = predict(model, data, [60, 75, 90]).numpy()
    actual = np.stack([data.origin(day).actual.numpy() for day in (60, 75, 90)])
    assert (actual < forecast[..., 0]).mean() == pytest.approx(0.1, abs=0.02)
    assert (actual > forecast[..., 2]).mean() == pytest.approx(0.1, abs=0.02)
    median = forecast[..., 1]
    assert ((actual < median) * median).sum() / median.sum() == pytest.approx(0.5, abs=0.02)


def test_windows_hold_what_the_events_hold() -> None:
    data = made_series(days=120)
    series = dataclasses.replace(data, in_stock=np.ones_like(data.sales), long_memory=True)
    batch = Windows(series, FEATURES.inputs, torch.device("cpu")).origin(90)
    events = series.windows(int(series.dates[90]))
    for name, values in events.items():
        np.testing.assert_allclose(batch.fields[name].numpy(), values, rtol=1e-6, err_msg=name)
    assert batch.fields["as_of"].tolist() == [float(series.dates[90])] * len(series)
    np.testing.assert_array_equal(batch.actual.numpy(), series.sales[:, 91:105])


def test_days_before_the_data_read_as_out_of_stock_and_days_from_the_end_do_not_count() -> None:
    data = windows()
    batch = data.batch(torch.tensor([0]), torch.tensor([9]), end=15)
    assert batch.fields["in_stock"][0, :20].tolist() == [0.0] * 20
    assert (batch.fields["in_stock"][0, 20:] > 0).all()
    assert batch.counted[0].tolist() == [1.0] * 5 + [0.0] * 9


def test_an_origin_without_a_whole_horizon_is_refused() -> None:
    with pytest.raises(ValueError, match="day 106"):
        windows().origin(106)


def test_an_epoch_visits_every_window_once() -> None:
    order = epoch_order(3, np.array([5, 6]), torch.Generator().manual_seed(0))
    assert sorted(map(tuple, order.tolist())) == [(s, d) for s in range(3) for d in (5, 6)]


def test_weekday_means_of_all_days_agree_with_those_of_the_events() -> None:
    data = made_series(days=120)
    means = weekday_means(data.sales)
    assert (means[:, :49] == 0).all()
    np.testing.assert_allclose(means[:, 118], data.sales[:, 118 - 7 * 16 :: 7].mean(axis=1), rtol=1e-5)


def test_training_lowers_the_validation_score_and_repeats_itself() -> None:
    config = FitConfig(epochs=3, batch=32, learning_rate=5e-3, level_noise=0.0)
    data = windows(features=FEATURES)

    def score(model: Forecaster) -> float:
        forecast = predict(model, data, [100])[0, :, :, 1]
        return float((forecast - data.origin(100).actual).abs().mean())

    first, second = (fit(forecaster("tsmixer", 1), data, config, end=100, seed=1, score=score) for _ in range(2))
    assert first.history[-1].loss < first.history[0].loss
    assert [each.score for each in first.history] == [each.score for each in second.history]
    best = min(each.score for each in first.history if each.score is not None)
    assert score(first.model) == pytest.approx(best)


def test_a_fixed_number_of_epochs_needs_no_validation() -> None:
    config = FitConfig(epochs=5, batch=32, learning_rate=1e-3)
    result = fit(forecaster("lstm", 1), windows(), config, end=60, seed=1, score=None, epochs=2)
    assert [each.epoch for each in result.history] == [1, 2]
    assert result.epoch == 2


@pytest.mark.parametrize("kind", SIZES)
def test_compilers_with_symbolic_shapes_can_trace_it(kind: str) -> None:
    """By the tracer alone: what the compiler makes of the trace needs a C++ compiler or a GPU."""
    model = forecaster(kind, members=1)
    whole = kind != "lstm"  # PyTorch's tracer leaves LSTMs to the library
    compiled = torch.compile(model, dynamic=True, backend="aot_eager", fullgraph=whole)
    with torch.inference_mode():
        for rows in (1, 3, 64):
            torch.testing.assert_close(compiled(fields(rows)), model(fields(rows)))


def test_the_days_before_are_as_wide_as_named_whatever_the_input_claims() -> None:
    """A slice from the end has a width that only its input knows; what is stacked must be known to fit without it."""
    graph = torch.export.export(
        forecaster("tsmixer", members=1),
        (fields(3),),
        dynamic_shapes=({name: {0: torch.export.Dim("rows")} for name in FEATURES.inputs},),
    )
    starts = [node.args for node in graph.graph.nodes if "slice" in str(node.target)]
    assert all(all(not isinstance(part, int) or part >= 0 for part in args[1:]) for args in starts)

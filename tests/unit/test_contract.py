from typing import Any

import pytest

from worker.contract import Tensor, check_output, inputs_of
from worker.errors import ContractError

FLOATS = {"type": "array", "items": "float"}


def schema(**types: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Features", "fields": [{"name": n, "type": t} for n, t in types.items()]}


def tensor(name: str, *sizes: int | None, dtype: str = "float32", batch: int | None = None) -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=(batch, *sizes))


def refused(tensors: list[Tensor], avro: dict[str, Any]) -> str:
    with pytest.raises(ContractError) as caught:
        inputs_of(tensors, avro)
    return str(caught.value)


@pytest.mark.parametrize(
    "avro",
    [
        *("int", "long", "float", "double", "boolean", ["null", "float"], ["int", "null", "double"]),
        {"type": "int", "logicalType": "date"},
        {"type": {"type": "long"}},
    ],
)
def test_a_number_feeds_a_scalar(avro: object) -> None:
    assert inputs_of([tensor("price")], schema(price=avro)) == {"price": None}


@pytest.mark.parametrize(
    "avro",
    [FLOATS, ["null", FLOATS], {"type": "array", "items": "int"}, {"type": "array", "items": ["null", "double"]}],
)
def test_an_array_of_numbers_feeds_a_row(avro: object) -> None:
    assert inputs_of([tensor("sales", 30)], schema(sales=avro)) == {"sales": 30}


def test_inputs_keep_the_order_of_the_model_and_fields_may_be_left_unused() -> None:
    found = inputs_of([tensor("b", 2), tensor("a")], schema(a="int", b=FLOATS, c="string"))
    assert list(found.items()) == [("b", 2), ("a", None)]


@pytest.mark.parametrize("avro", ["string", "bytes", FLOATS, ["float", "string"], ["null"], "null", ["null", FLOATS]])
def test_a_scalar_wants_a_number(avro: object) -> None:
    message = refused([tensor("price")], schema(price=avro))
    assert "input 'price': the model takes float32[batch], so the field must be a number; the schema has" in message


@pytest.mark.parametrize(
    "avro",
    ["float", {"type": "array", "items": "string"}, [FLOATS, "string"], ["null"], {"type": "map", "values": "int"}],
)
def test_a_row_wants_an_array_of_numbers(avro: object) -> None:
    message = refused([tensor("sales", 30)], schema(sales=avro))
    assert "input 'sales': the model takes float32[batch, 30], so the field must be an array of numbers" in message


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (tensor("sales", batch=8), "float32[8]"),
        (tensor("sales", None), "float32[batch, batch]"),
        (tensor("sales", 0), "float32[batch, 0]"),
        (tensor("sales", 30, 2), "float32[batch, 30, 2]"),
        (Tensor(name="sales", dtype="float32", shape=()), "float32[]"),
    ],
)
def test_shapes_are_batch_or_batch_by_n(wrong: Tensor, shown: str) -> None:
    message = refused([wrong], schema(sales=FLOATS))
    assert f"input 'sales': got {shown}, expected float32[batch] or float32[batch, n]" in message


def test_inputs_are_float32() -> None:
    message = refused([tensor("sales", 30, dtype="float64")], schema(sales=FLOATS))
    assert "got dtype float64, expected float32; cast inside the graph" in message


def test_a_default_has_as_many_values_as_the_model_takes() -> None:
    avro = schema(promo=FLOATS)
    avro["fields"][0]["default"] = [0.0, 0.0]
    assert inputs_of([tensor("promo", 2)], avro) == {"promo": 2}
    assert "the model takes 3 values, the schema's default has 2" in refused([tensor("promo", 3)], avro)


def test_every_problem_is_told_at_once() -> None:
    message = refused([tensor("price"), tensor("sales", 3), tensor("gone")], schema(price="string", sales="int"))
    assert message.startswith("the model doesn't fit schema Features:")
    assert message.count("\n  - input ") == 3
    assert "input 'gone': no field of that name in the schema, expected one of ['price', 'sales']" in message


def test_the_only_output_is_the_forecast() -> None:
    check_output([tensor("forecast", 14, 3)], 14, (0.1, 0.5, 0.9))


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [tensor("forecasts", 14, 3)],
        [tensor("forecast", 3, 14)],
        [tensor("forecast", 14, 3, batch=1)],
        [tensor("forecast", 14, 3, dtype="float16")],
        [tensor("forecast", 14, 3), tensor("hidden", 8)],
    ],
)
def test_any_other_output_is_refused(outputs: list[Tensor]) -> None:
    with pytest.raises(ContractError, match="expected 'forecast' float32\\[batch, 14, 3\\]") as caught:
        check_output(outputs, 14, (0.1, 0.5, 0.9))
    assert "; ".join(f"'{each.name}' {each}" for each in outputs) in str(caught.value)

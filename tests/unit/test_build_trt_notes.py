"""What a build by TensorRT 8.6 says of the layers that it holds to FP32."""

from __future__ import annotations

import pytest

from engine_build.trt import Library
from engine_build.trt_types import BuildRequest
from schemas.engine_card import Precision, Profile
from tests.helpers.fake_tensorrt import FakeTensorRT, Generation


@pytest.mark.parametrize(
    ("generation", "precision", "notes"),
    [
        ("8.6.1", "fp32", ()),
        ("8.6.1", "int8", ("2 of 11 layers are held to FP32, as the graph says",)),
        ("10.13.0.35", "int8", ()),
    ],
)
def test_held_layers_are_counted_where_types_are_weak(
    generation: Generation, precision: Precision, notes: tuple[str, ...]
) -> None:
    library = Library("tensorrt", FakeTensorRT(generation))
    profile = Profile(min_rows=1, opt_rows=8, max_rows=64)
    request = BuildRequest(source="test", graph=b"", precision=precision, profiles=(profile,))
    assert library.build(request).notes == notes

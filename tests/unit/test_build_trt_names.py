"""The names that the adapter uses, asked of every TensorRT that is installed. Needs no GPU: nothing is made of them."""

from __future__ import annotations

from typing import Any

import pytest

from engine_build.trt import NAMES
from engine_build.trt_weak import FREE

EVERYWHERE = {
    "IBuilderConfig": (
        *("set_memory_pool_limit", "set_flag", "clear_flag", "add_optimization_profile"),
        "builder_optimization_level",
    ),
    "Builder": ("create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "ParserError": ("node", "desc", "func"),
    "INetworkDefinition": ("num_layers", "num_inputs", "num_outputs", "get_layer", "get_input", "get_output"),
    "ITensor": ("name", "dtype", "shape"),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape", "get_tensor_dtype"),
        *("get_tensor_profile_shape", "num_optimization_profiles", "create_execution_context"),
        "create_engine_inspector",
    ),
    "EngineInspector": ("get_engine_information",),
    "IExecutionContext": ("set_tensor_address", "set_input_shape", "execute_async_v3"),
}
WEAK = {
    "ILayer": ("precision", "set_output_type", "type", "get_input", "get_output", "num_inputs", "num_outputs"),
    "BuilderFlag": ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "TF32"),
    "LayerType": (*FREE, "DEQUANTIZE", "QUANTIZE"),
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH",),
    "IBuilderConfig": ("get_preview_feature", "set_preview_feature", "create_timing_cache", "set_timing_cache"),
}


def missing(module: Any, names: dict[str, tuple[str, ...]]) -> list[str]:
    return [
        f"{kind}.{name}" for kind, each in names.items() for name in each if not hasattr(getattr(module, kind), name)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    module = pytest.importorskip(name, reason="not installed", exc_type=ImportError)
    assert missing(module, EVERYWHERE) == []
    assert any(hasattr(module.ICudaEngine, each) for each in ("device_memory_size_v2", "device_memory_size"))
    assert module.float32 == module.DataType.FLOAT
    if not hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        assert missing(module, WEAK) == []
    if hasattr(module, "IProgressMonitor"):
        assert missing(module, {"IProgressMonitor": ("phase_start", "step_complete", "phase_finish")}) == []

"""A small valid engine card, as the JSON that a file would hold."""

from __future__ import annotations

from typing import Any


def card_content(**changes: Any) -> dict[str, Any]:
    """Two inputs (an array of 3 and a scalar), horizon 2, quantiles 0.1 and 0.9, with `changes` on top."""
    content: dict[str, Any] = {
        "model": "test",
        "version": "1",
        "inputs": [
            {"name": "sales", "dtype": "float32", "shape": ["batch", 3]},
            {"name": "price", "dtype": "float32", "shape": ["batch"]},
        ],
        "outputs": [{"name": "forecast", "dtype": "float32", "shape": ["batch", 2, 2]}],
        "quantiles": [0.1, 0.9],
        "horizon": 2,
        "profile": {"min_rows": 1, "opt_rows": 8, "max_rows": 64},
        "precision": "fp32",
        "onnx_sha256": "0" * 64,
        "schema_fingerprint": "0123456789abcdef",
        "golden": {
            "inputs": {"sales": [[1.0, 2.0, 3.0]], "price": [1.0]},
            "outputs": [[[0.5, 1.5], [0.25, 2.0]]],
            "relative_tolerance": 0.001,
            "absolute_tolerance": 0.0,
        },
        "accuracy": {"fp32": {"wape": 0.2, "wape_total": 0.1, "bias": -0.01, "pinball": 1.0, "rows": 10}},
    }
    return content | changes


def plan_content(**changes: Any) -> dict[str, Any]:
    """A plan for one GPU type by TensorRT 8.6.1, with `changes` on top."""
    content: dict[str, Any] = {
        "file": "plans/nvidia-h200-trt8.6.1-fp16-aaaaaaaaaaaa.plan",
        "sha256": "a" * 64,
        "size_bytes": 1000,
        "graph_sha256": "b" * 64,
        "precision": "fp16",
        "runtime": "tensorrt",
        "runtime_version": "8.6.1",
        "compute_capabilities": ["9.0"],
        "gpu": "NVIDIA H200",
        "profiles": [{"min_rows": 1, "opt_rows": 8, "max_rows": 64}],
        "cuda_graph_rows": [1, 8],
        "relative_tolerance": 0.01,
        "absolute_tolerance": 0.001,
    }
    return content | changes

"""Puts nodes into an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make copies of `nodes`, which may be the graph's own, all the nodes of `graph`, in that order."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)

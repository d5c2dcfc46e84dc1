"""Puts nodes into an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make copies of `nodes`, which may be the graph's own, all the nodes of `graph`, in that order."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def put_behind(
    graph: onnx.GraphProto, added: Mapping[str, Sequence[onnx.NodeProto]], first: Iterable[onnx.NodeProto] = ()
) -> None:
    """Put `added` (tensor -> nodes that read it) into `graph`, each directly behind the node that makes its tensor.

    Those of inputs and weights come before all nodes, and `first`, which read nothing that a node of the graph makes, before these.
    """
    sources = [each.name for each in (*graph.input, *graph.initializer)]
    ordered = [*first, *(new for name in sources for new in added.get(name, ()))]
    for node in graph.node:
        ordered += [node, *(new for name in node.output for new in added.get(name, ()))]
    set_nodes(graph, ordered)

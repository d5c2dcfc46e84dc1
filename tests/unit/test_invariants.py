"""Invariants 1 and 2, read off the source: where offsets are born, spent and counted on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in sorted((ROOT / "worker").glob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

ASKING = frozenset({"store_offsets", "position", "incremental_assign", "incremental_unassign"})
SPENDING = frozenset({"commit_transaction", "send_offsets_to_transaction"})


def attributes(tree: ast.AST, names: frozenset[str]) -> Iterator[str]:
    """Every `x.name` as it is written, called or handed on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            yield ast.unparse(node)


def offset_sums(tree: ast.AST) -> Iterator[str]:
    """Every `offset + 1` in any dress: either order, `+=`, an attribute or an element of something named after offsets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            sides = (node.left, node.right)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
            sides = (node.target, node.value)
        else:
            continue
        texts = [ast.unparse(side) for side in sides]
        if "1" in texts and any("offset" in text.lower() for text in texts):
            yield ast.unparse(node)


def made(tree: ast.AST, name: str) -> Iterator[str]:
    """Every call of `name`, of `module.name`, and of `replace` with a value named after it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            copies = called.split(".")[-1] == "replace" and name.lower() in ast.unparse(node).lower()
            if called.split(".")[-1] == name or copies:
                yield ast.unparse(node)


def found(rule: Iterator[str]) -> list[str]:
    return sorted(rule)


def test_one_is_added_to_an_offset_in_one_place_only() -> None:
    assert {name: sums for name in TREES if (sums := found(offset_sums(TREES[name])))} == {
        "records": ["self.offset + 1"]
    }


def test_nobody_asks_the_consumer_for_its_position_or_stores_offsets() -> None:
    """But for a replay: where it stands says when it has passed its end, and nothing else; see the heads of both files."""
    assert {name: uses for name in TREES if (uses := found(attributes(TREES[name], ASKING)))} == {
        "replay_live": ["self._consumer.position"],
        "replay_source": ["self._consumer.position"],
    }


def test_offsets_are_committed_by_the_transaction_only() -> None:
    commits = {name: found(attributes(TREES[name], frozenset({"commit"}))) for name in TREES}
    assert {name: uses for name, uses in commits.items() if uses} == {
        "pipeline": ["self._delivery.commit"],
        "replay_delivery": ["self._delivery.commit", "self.commit"],
        "replay_plan": ["book.commit"],
        "transaction": ["self._consumer.commit"],
    }
    assert {name for name in TREES if found(attributes(TREES[name], SPENDING))} == {"transaction"}


def test_positions_are_made_by_sealing_a_batch_and_by_joining_two() -> None:
    assert {name: len(calls) for name in TREES if (calls := found(made(TREES[name], "Positions")))} == {
        "batching": 1,
        "records": 1,
        "replay_delivery": 1,  # of nothing: what is put back on the live topic stands for no record
        "replay_plan": 1,  # of no record: where each partition of a replay starts
    }


def test_what_is_published_was_checked() -> None:
    """The publisher takes nothing but `Checked`, and only the file that asks the guard makes one."""
    assert {name for name in TREES if found(made(TREES[name], "Checked"))} == {"forecasting"}


@pytest.mark.parametrize(
    "text",
    [
        *("record.offset + 1", "1 + offset", "offsets[-1] + 1", "last_offset - 1", "max(offsets) + 1"),
        *("self.offset += 1", "records.offsets[i] + 1"),
    ],
)
def test_the_search_sees_sums_in_any_dress(text: str) -> None:
    assert found(offset_sums(ast.parse(text))) == [text]


@pytest.mark.parametrize("text", ["row + 1", "offset + 2", "offset == 1", "self.rows += 1"])
def test_and_leaves_others_alone(text: str) -> None:
    assert found(offset_sums(ast.parse(text))) == []


def test_the_search_sees_calls_and_references() -> None:
    tree = ast.parse("f(consumer.position)\nconsumer.store_offsets(offsets=x)\nproducer.commit_transaction\n")
    assert found(attributes(tree, ASKING)) == ["consumer.position", "consumer.store_offsets"]
    assert found(attributes(tree, SPENDING)) == ["producer.commit_transaction"]
    assert found(made(ast.parse("records.Positions('t', {}, 0)\nreplace(positions, records=1)\n"), "Positions")) == [
        "records.Positions('t', {}, 0)",
        "replace(positions, records=1)",
    ]

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from schemas.engine_card import parse_card, sha256_hex, write_card
from schemas.model_store import (
    CURRENT_NAME,
    StoreError,
    current_name,
    is_store,
    is_version_name,
    open_version,
    version_names,
)
from tests.helpers.cards import card_content


def publish(store: Path, name: str, *, age_s: int = 0, says: str | None = None) -> Path:
    folder = store / name
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(name.encode())
    os.utime(folder / "model.onnx", (1_700_000_000 - age_s, 1_700_000_000 - age_s))
    digest = sha256_hex(folder / "model.onnx")
    write_card(
        parse_card(json.dumps(card_content(version=says or name, onnx_sha256=digest))),
        folder / "card.json",
    )
    return folder


def test_a_folder_with_current_is_a_store(tmp_path: Path) -> None:
    publish(tmp_path, "7")
    assert not is_store(tmp_path)
    (tmp_path / CURRENT_NAME).write_text("7\n")
    assert is_store(tmp_path)
    assert current_name(tmp_path) == "7"


def test_versions_are_listed_by_age_and_only_when_complete(tmp_path: Path) -> None:
    publish(tmp_path, "b", age_s=10)
    publish(tmp_path, "a", age_s=5)
    publish(tmp_path, "c", age_s=20)
    publish(tmp_path, ".incoming-d")
    (publish(tmp_path, "e") / "model.onnx").unlink()
    assert version_names(tmp_path) == ("c", "b", "a")


def test_a_version_is_opened_with_its_card_and_digest(tmp_path: Path) -> None:
    publish(tmp_path, "2026-11-23.1")
    version = open_version(tmp_path, "2026-11-23.1")
    assert (version.name, version.digest) == ("2026-11-23.1", sha256_hex(version.model))


def test_a_missing_version_is_said_with_those_that_are_there(tmp_path: Path) -> None:
    publish(tmp_path, "1")
    with pytest.raises(StoreError, match="there is no version 2; there are: 1"):
        open_version(tmp_path, "2")


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    (publish(tmp_path, "1") / "model.onnx").write_bytes(b"other")
    with pytest.raises(StoreError, match=r"its card says .* publish it again"):
        open_version(tmp_path, "1")


def test_a_model_that_goes_away_is_refused(tmp_path: Path) -> None:
    (publish(tmp_path, "1") / "model.onnx").unlink()
    with pytest.raises(StoreError, match="the version isn't complete"):
        open_version(tmp_path, "1")


def test_a_folder_under_another_name_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "1", says="2")
    with pytest.raises(StoreError, match="says version 2, its folder says 1"):
        open_version(tmp_path, "1")


@pytest.mark.parametrize("text", ["", "../1", ".hidden", "a b", "x" * 129])
def test_current_must_name_a_version(tmp_path: Path, text: str) -> None:
    (tmp_path / CURRENT_NAME).write_text(text)
    assert not is_version_name(text)
    with pytest.raises(StoreError, match="expected the name of a version"):
        current_name(tmp_path)
    with pytest.raises(StoreError, match="expected letters"):
        open_version(tmp_path, text)


def test_a_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be read"):
        current_name(tmp_path)
    with pytest.raises(StoreError, match="can't be listed"):
        version_names(tmp_path / "none")

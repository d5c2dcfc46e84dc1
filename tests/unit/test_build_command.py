from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from engine_build.__main__ import main
from engine_build.trt import load_library
from schemas.engine_card import load_card, parse_card, write_card
from schemas.model_store import current_name

MODELS = Path(__file__).parents[2] / "models"
SMOOTHER = MODELS / "bakery-smoother" / "model.onnx"


@pytest.fixture(autouse=True)
def _needs_rtx() -> None:
    if load_library("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx isn't installed: it has wheels for Linux on x86-64 only")


def build(out: Path, *options: str | Path, onnx: Path = SMOOTHER) -> int:
    arguments = ["build", "--onnx", onnx, "--out", out, "--profile", "1:8:64@1,8", *options]
    if "--target" not in options:
        arguments += ["--target", "sm80,sm89"]
    return main([str(each) for each in arguments])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def calibration_file(folder: Path, **changes: Any) -> Path:
    """720 rows over 20 days, made from the golden batch."""
    golden = load_card(SMOOTHER.with_name("card.json")).golden.inputs
    random = np.random.default_rng(2)
    columns: dict[str, Any] = {}
    for name, values in golden.items():
        columns[name] = np.resize(np.asarray(values, np.float32), (720, *np.asarray(values).shape[1:]))
    columns["sales"] = (columns["sales"] * random.lognormal(0, 0.6, (720, 1))).astype(np.float32)
    columns["as_of"] = (18_000 + np.arange(720) % 20).astype(np.float32)
    columns["promo"] = (random.uniform(size=(720, 30)) < 0.1).astype(np.float32)
    columns |= changes
    path = folder / "calibration.parquet"
    pq.write_table(pa.table({name: pa.array(values.tolist()) for name, values in columns.items()}), path)
    return path


def test_a_model_becomes_a_version_with_plans_a_report_and_a_golden_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert build(tmp_path, "--json", report) == 0
    folder = tmp_path / "bakery-smoother" / "1"
    assert f"published {folder}; it is current" in said(capsys)
    card = load_card(folder / "card.json")
    assert {plan.precision for plan in card.plans} == {"fp16", "fp32"}
    for plan in card.plans:
        assert plan.proved == "structure"
        assert plan.compute_capabilities == ("8.0", "8.9")
        assert plan.cuda_graph_rows == (1, 8)
        assert plan.file.startswith("plans/sm80-sm89-rtx1.")
    assert set(np.load(folder / "golden.npz")) == {*card.golden.inputs, "forecast"}
    assert main(["verify", str(folder.parent)]) == 0
    content = json.loads(report.read_text())
    assert content["published"] == ["fp16", "fp32"]
    page = (folder / "report.html").read_text()
    assert "not measured: built without a GPU of its type" in page
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_further_targets_join_the_version_with_its_own_graphs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path, "--precision", "fp16", "--target", "sm80") == 0
    assert build(tmp_path, "--precision", "fp16", "--target", "sm89") == 0
    assert "plans added to" in said(capsys)
    card = load_card(tmp_path / "bakery-smoother" / "1" / "card.json")
    assert [plan.compute_capabilities for plan in card.plans] == [("8.9",), ("8.0",)]
    assert main(["verify", str(tmp_path / "bakery-smoother" / "1")]) == 0
    assert (tmp_path / "bakery-smoother" / "1" / "report.html").read_text().count("Plans</h2>") == 2


def test_a_worker_builds_from_the_published_version_itself(tmp_path: Path) -> None:
    assert build(tmp_path, "--precision", "fp16", "--target", "sm80") == 0
    published = tmp_path / "bakery-smoother" / "1" / "model.onnx"
    assert build(tmp_path, "--precision", "fp16", "--target", "sm86", onnx=published) == 0
    assert len(load_card(published.with_name("card.json")).plans) == 2


def test_int8_comes_with_calibration_and_its_digest_goes_into_the_card(tmp_path: Path) -> None:
    rows = calibration_file(tmp_path)
    assert build(tmp_path / "out", "--calibration", rows, "--precision", "int8") in (0, 6)
    assert build(tmp_path / "out", "--calibration", rows) == 0
    card = load_card(tmp_path / "out" / "bakery-smoother" / "1" / "card.json")
    assert {plan.precision for plan in card.plans} >= {"fp32"}
    assert all(plan.calibration_sha256 for plan in card.plans if plan.precision == "int8")


def test_a_model_without_a_card_gets_one_from_calibration_rows(tmp_path: Path) -> None:
    lonely = tmp_path / "lonely" / "model.onnx"
    lonely.parent.mkdir()
    shutil.copy(SMOOTHER, lonely)
    rows = calibration_file(tmp_path)
    assert build(tmp_path / "out", onnx=lonely) == 2
    assert build(tmp_path / "out", "--calibration", rows, "--precision", "fp32", onnx=lonely) == 0
    card = load_card(tmp_path / "out" / "lonely" / "1" / "card.json")
    assert len(card.golden.outputs) == 8
    assert card.schema_fingerprint == load_card(SMOOTHER.with_name("card.json")).schema_fingerprint


def test_explain_says_what_would_be_done_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(tmp_path, "--explain") == 0
    text = said(capsys)
    assert "publishes to: bakery-smoother version 1, which is new" in text
    assert "precisions: fp32, fp16; no INT8" in text
    assert "batch sizes: 1 : 8 : 64 rows; CUDA graphs for [1, 8]" in text
    assert "members of an ensemble: none found" in text
    assert "nothing can be measured" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ((), "in turn at INT8, for its memory, unless recurrent; else together (1 would wait)"),
        (("--members", "together"), "together (1"),
        (("--members", "in-turn"), "in turn, so that"),
    ],
)
def test_explain_counts_the_members_of_an_ensemble(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], how: str
) -> None:
    mixer = SMOOTHER.parents[1] / "freshretailnet-tsmixer" / "model.onnx"
    assert build(tmp_path, "--explain", *options, onnx=mixer) == 0
    assert f"members of an ensemble: {how}" in said(capsys)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--profile", "8:1:64"], 2, "profile: got '8:1:64', expected MIN:OPT:MAX"),
        (["--target", "ampere"], 2, "--target: got ampere, expected names as in sm80,sm89"),
        (["--target", "sm90"], 7, "doesn't build for compute capability 9.0"),
        (["--precision", "int8"], 2, "needs rows to find scales from; name them with --calibration"),
        (["--version", "a b"], 9, "version 'a b' can't be a folder's name"),
        (["--calibration", "none.parquet"], 2, "can't be read as Parquet"),
        (["--calibration", "topic://events"], 2, "names no broker; give --config worker.toml or --bootstrap"),
        (["--sign-key", "none.pem"], 2, "none.pem: can't be read"),
        (["--runtime", "tensorrt"], 7, "tensorrt isn't installed"),
        (["--workspace-mib", "-1"], 2, "--workspace-mib"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str], code: int, message: str
) -> None:
    if message.startswith("tensorrt isn't") and load_library("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    try:
        found = build(tmp_path, "--precision", "fp32", *options)
    except SystemExit as exited:
        found = int(str(exited.code))
    assert found == code
    assert message in said(capsys)
    assert not list(tmp_path.glob("*/CURRENT"))


def test_a_card_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = MODELS / "bakery-tsmixer" / "card.json"
    assert build(tmp_path, "--card", other) == 2
    assert "name the card of this model with --card" in said(capsys)


def test_a_golden_batch_that_the_model_does_not_compute_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(SMOOTHER.with_name("card.json").read_text())
    content["golden"]["outputs"][0][0][0] += 50.0
    write_card(parse_card(json.dumps(content)), tmp_path / "card.json")
    assert build(tmp_path, "--card", tmp_path / "card.json") == 2
    assert "differs from the card's golden batch by up to 50" in said(capsys)


def test_without_a_gpu_and_targets_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--onnx", str(SMOOTHER), "--out", str(tmp_path), "--runtime", "tensorrt_rtx"]) in (0, 7)
    text = said(capsys)
    assert "name --target, of sm75, sm80" in text or "published" in text


def test_signing_verifying_rolling_back_and_clearing_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = Ed25519PrivateKey.generate()
    secret, public = tmp_path / "key.pem", tmp_path / "key.pub"
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    store = tmp_path / "bakery-smoother"
    for version in ("1", "2", "3"):
        assert build(tmp_path, "--precision", "fp32", "--version", version, "--sign-key", secret) == 0
    assert main(["verify", str(store), "--trust", str(public)]) == 0
    assert main(["use", str(store), "1"]) == 0
    assert current_name(store) == "1"
    assert main(["gc", str(store), "--keep", "1"]) == 0
    assert main(["list", str(store)]) == 0
    text = said(capsys)
    assert "current: 1 (was 3)" in text
    assert "removed: 2" in text
    assert "current, signed" in text
    assert main(["inspect", str(store), "--layers"]) == 0
    assert "bakery-smoother version 1" in said(capsys)
    plan = next((store / "3" / "plans").iterdir())
    plan.write_bytes(plan.read_bytes()[:-1])
    assert main(["verify", str(store)]) == 9
    assert "the file is damaged or was replaced" in said(capsys)
    assert main(["sign", str(store), "3", "--key", str(secret)]) == 9
    assert main(["use", str(store), "9"]) == 9
    assert main(["verify", str(tmp_path / "none")]) == 2

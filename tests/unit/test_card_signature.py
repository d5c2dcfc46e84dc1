from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from schemas.card_signature import SignatureError, load_private_key, load_public_keys, load_signed_card, signed
from schemas.engine_card import EngineCard, dump_card, parse_card
from tests.helpers.cards import card_content

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


def card() -> EngineCard:
    return parse_card(json.dumps(card_content()))


def written(folder: Path, text: str) -> Path:
    path = folder / "card.json"
    path.write_text(text)
    return path


def test_a_signed_card_is_taken_from_whom_is_trusted(tmp_path: Path) -> None:
    path = written(tmp_path, dump_card(signed(card(), KEY)))
    loaded = load_signed_card(path, [OTHER.public_key(), KEY.public_key()])
    assert loaded.model_copy(update={"signature": None}) == card()


def test_the_layout_of_the_file_and_keys_of_later_releases_do_not_matter(tmp_path: Path) -> None:
    content = json.loads(dump_card(signed(card(), KEY)))
    path = written(tmp_path, json.dumps(dict(reversed(content.items())), indent=7))
    assert load_signed_card(path, [KEY.public_key()]).signature is not None


def test_a_changed_card_is_refused(tmp_path: Path) -> None:
    content = json.loads(dump_card(signed(card(), KEY)))
    path = written(tmp_path, json.dumps(content | {"onnx_sha256": "1" * 64}))
    with pytest.raises(SignatureError, match=r"doesn't fit its content; it was changed"):
        load_signed_card(path, [KEY.public_key()])


def test_an_unsigned_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="isn't signed"):
        load_signed_card(written(tmp_path, dump_card(card())), [KEY.public_key()])


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, dump_card(signed(card(), OTHER)))
    with pytest.raises(SignatureError, match="trusted are "):
        load_signed_card(path, [KEY.public_key()])


def test_a_stranger_who_claims_a_trusted_key_is_refused(tmp_path: Path) -> None:
    ours, theirs = signed(card(), KEY).signature, signed(card(), OTHER).signature
    assert ours is not None
    assert theirs is not None
    forged = theirs.model_copy(update={"key": ours.key})
    path = written(tmp_path, dump_card(card().model_copy(update={"signature": forged})))
    with pytest.raises(SignatureError, match="doesn't fit its content"):
        load_signed_card(path, [KEY.public_key()])


def test_a_card_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="can't be read"):
        load_signed_card(tmp_path / "card.json", [KEY.public_key()])


def test_keys_come_from_pem_files(tmp_path: Path) -> None:
    secret, public = tmp_path / "key.pem", tmp_path / "key.pub"
    secret.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert load_private_key(secret).public_key() == KEY.public_key()
    assert load_public_keys([public]) == (KEY.public_key(),)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    for load in (load_private_key, lambda path: load_public_keys([path])):
        with pytest.raises(SignatureError, match="can't be read: No such file"):
            load(path)
    path.write_text("secret")
    for load in (load_private_key, lambda path: load_public_keys([path])):
        with pytest.raises(SignatureError, match="key that can be read"):
            load(path)
    curve = generate_private_key(SECP256R1())
    path.write_bytes(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SignatureError, match="expected an Ed25519 private key"):
        load_private_key(path)
    path.write_bytes(curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(SignatureError, match="expected an Ed25519 public key"):
        load_public_keys([path])

"""Ed25519 signatures of engine cards: a plan is code, so who loads one may want to know who vouches for it.

The signature stands in the card itself, so card and signature are replaced in one step. Signed are the card's other keys as
canonical JSON (keys sorted, no spaces), read from the file and not from the class: a card keeps its signature when a later
release knows more keys. The card holds the digests of all other files, so it vouches for them too.

    openssl genpkey -algorithm ed25519 -out publisher.pem          the publisher's, secret
    openssl pkey -in publisher.pem -pubout -out publisher.pub      for `engine.trusted_keys` of workers
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from schemas.engine_card import EngineCard, Signature, parse_card


class SignatureError(ValueError):
    """A card isn't signed by anyone trusted, or a key can't be used. The message says which file, got, expected, remedy."""


def signed(card: EngineCard, key: Ed25519PrivateKey) -> EngineCard:
    """The card with `key`'s signature in the place of any that it had."""
    content = card.model_dump(mode="json")
    signature = Signature(
        key=key_id(key.public_key()), ed25519=base64.b64encode(key.sign(_signed_bytes(content))).decode("ascii")
    )
    return card.model_copy(update={"signature": signature})


def load_signed_card(path: Path, trusted: Sequence[Ed25519PublicKey]) -> EngineCard:
    """The card in `path`, read once, whose signature one of `trusted` made.

    Raises `SignatureError`, `CardError`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SignatureError(f"{path}: can't be read: {error.strerror}; expected a signed engine card") from error
    card = parse_card(data, source=str(path))
    if card.signature is None:
        raise SignatureError(f"{path}: isn't signed; sign it with `engine-build sign`, or trust no keys in particular")
    known = {key_id(key): key for key in trusted}
    key = known.get(card.signature.key)
    if key is None:
        there = ", ".join(sorted(each[:16] for each in known)) or "none"
        raise SignatureError(
            f"{path}: signed with key {card.signature.key[:16]}…, trusted are {there}; trust that key or publish it anew"
        )
    try:
        key.verify(base64.b64decode(card.signature.ed25519), _signed_bytes(json.loads(data)))
    except InvalidSignature as error:
        raise SignatureError(
            f"{path}: its signature with key {card.signature.key[:16]}… doesn't fit its content; it was changed: publish it anew"
        ) from error
    return card


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 (hex) of the public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in a PEM file without a passphrase. Raises `SignatureError`."""
    key = _load(path, "private", lambda data: load_pem_private_key(data, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path}: got {type(key).__name__}, expected an Ed25519 private key in PEM")
    return key


def load_public_keys(paths: Sequence[Path]) -> tuple[Ed25519PublicKey, ...]:
    """The Ed25519 keys in PEM files, one each. Raises `SignatureError`."""
    keys = []
    for path in paths:
        key = _load(path, "public", load_pem_public_key)
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureError(f"{path}: got {type(key).__name__}, expected an Ed25519 public key in PEM")
        keys.append(key)
    return tuple(keys)


def _load(path: Path, kind: str, load: Any) -> object:  # noqa: ANN401 - one of two functions of `cryptography`
    try:
        key: object = load(path.read_bytes())
    except OSError as error:
        raise SignatureError(f"{path}: can't be read: {error.strerror}; expected an Ed25519 {kind} key") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{path}: holds no {kind} key that can be read: {error}; expected PEM") from error
    return key


def _signed_bytes(content: dict[str, Any]) -> bytes:
    rest = {name: value for name, value in content.items() if name != "signature"}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("utf-8")

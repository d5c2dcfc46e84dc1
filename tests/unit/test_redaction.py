import pytest

from worker.redaction import HIDDEN, is_secret, without_userinfo


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "basic.auth.user.info",
        "REGISTRY_PASSWORD",
        "api-key",
        "Authorization",
    ],
)
def test_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "sasl.username",
        "bootstrap.servers",
        "ssl.ca.location",
        "ssl.key.location",
        "password_file",
        "sasl.oauthbearer.token.endpoint.url",
        "key_fields",
        "transactional_id",
        "compassword",
    ],
)
def test_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_user_and_password_of_urls_are_hidden() -> None:
    text = "see http://me:hush@host:1/x, HTTPS://you@b and mail a@b"
    assert without_userinfo(text) == f"see http://{HIDDEN}@host:1/x, HTTPS://{HIDDEN}@b and mail a@b"
    assert without_userinfo("http://host/path@2") == "http://host/path@2"

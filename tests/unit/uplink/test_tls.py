"""Certificates from files: what is wrong with them is one line."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from agent.errors import UplinkError
from agent.uplink.tls import tls_context
from tests.support.certs import Authority


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


def problem(ca: Path | None, cert: Path | None = None, key: Path | None = None) -> str:
    with pytest.raises(UplinkError) as caught:
        tls_context(ca, cert, key)
    assert caught.value.reason == "tls"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_none_and_files_that_are_not_there(folder: Path):
    text = folder / "text.pem"
    text.write_text("no certificate")
    assert "no certificate and key in PEM form" in problem(text)
    assert f"({folder / 'none.pem'}): No such file" in problem(folder / "none.pem")


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(folder: Path):
    key = folder / "locked.key"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
        )
    )
    cert, _ = Authority(folder / "locked").issue("gateway")
    assert "the key has a password" in problem(None, cert, key)


def test_a_key_of_another_certificate(folder: Path):
    authority = Authority(folder / "other")
    cert, own_key = authority.issue("a")
    _, key = authority.issue("b")
    assert "the key belongs to another certificate" in problem(None, cert, key)
    tls_context(authority.ca, cert, own_key)

"""`hilgate opcua-cert`, run as a user runs it."""

import os
import stat
from pathlib import Path

import yaml
from cryptography import x509
from shell import hilgate

from protocols.opcua import certificates
from protocols.opcua.config import Security


async def test_it_makes_a_key_and_a_certificate_and_says_what_to_do_with_them(tmp_path: Path) -> None:
    done = await hilgate(
        "opcua-cert", "--out", str(tmp_path), "--host", "rig.example", "--host", "192.0.2.7", "--days", "30"
    )
    assert done.code == 0, done.err
    cert, key = tmp_path / "hilgate.pem", tmp_path / "hilgate-key.pem"
    (made,) = certificates.read_certificates(cert.read_bytes())
    assert certificates.read_key(key.read_bytes()).public_key() == made.public_key()
    assert x509.load_der_x509_certificate((tmp_path / "hilgate.der").read_bytes()) == made
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert certificates.application_uris(made) == ["urn:rig.example:hilgate"]
    assert list(certificates.hosts_of(made)) == ["rig.example", "192.0.2.7"]
    security = Security.model_validate(yaml.safe_load(done.out)["connection"]["security"])
    assert (security.cert, security.key) == (str(cert), str(key))
    assert "hilgate.der to the server's administrator" in done.err
    assert certificates.thumbprint(made) in done.err


async def test_it_overwrites_only_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "hilgate-key.pem").write_text("precious")
    refused = await hilgate("opcua-cert", "--out", str(tmp_path))
    assert refused.code == 2
    assert "hilgate-key.pem: there already; --force overwrites" in refused.err
    assert os.listdir(tmp_path) == ["hilgate-key.pem"]
    assert (tmp_path / "hilgate-key.pem").read_text() == "precious"
    done = await hilgate("opcua-cert", "--out", str(tmp_path), "--force")
    assert done.code == 0, done.err
    assert certificates.read_key((tmp_path / "hilgate-key.pem").read_bytes())


async def test_what_is_no_uri_is_refused(tmp_path: Path) -> None:
    refused = await hilgate("opcua-cert", "--out", str(tmp_path), "--uri", "hilgate")
    assert refused.code == 2
    assert "'hilgate' is no URI" in refused.err
    assert not os.listdir(tmp_path)

"""Certificates of OPC UA applications: made, read, and held against trust."""

import datetime
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.opcua import certificates
from protocols.opcua.certificates import Identity, self_signed

URI = "urn:rig.example:hilgate"
HOSTS = ["rig.example", "192.0.2.7", "2001:db8::7"]


@pytest.fixture(scope="module")
def ours() -> Identity:
    return self_signed("hilgate", URI, HOSTS, 10)


@pytest.fixture(scope="module")
def other() -> Identity:
    return self_signed("hilgate", URI, HOSTS, 10)


def issued(
    issuer: Identity | None, key: Identity, name: str, *, ca: bool, of: str | None = None
) -> x509.Certificate:
    """A certificate for `key`; of an issuer, or signed by itself."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(of or "urn:plc.example")]),
            critical=False,
        )
        .sign((issuer or key).key, hashes.SHA256())
    )


def test_an_application_certificate_says_what_the_standard_asks_for(ours: Identity) -> None:
    certificate = ours.certificate
    assert certificates.application_uris(certificate) == [URI]
    assert list(certificates.hosts_of(certificate)) == HOSTS
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.content_commitment
    assert usage.key_encipherment
    assert usage.data_encipherment
    assert usage.key_cert_sign  # since it is self-signed
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.CLIENT_AUTH in purposes
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=9) < left <= datetime.timedelta(days=10)
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize(
    ("name", "uri", "hosts", "days"),
    [
        ("h" * 65, URI, HOSTS, 1),
        ("hilgate", "urn:pläne", HOSTS, 1),
        ("hilgate", URI, ["plätze.example"], 1),
        ("hilgate", URI, HOSTS, 10**7),
    ],
)
def test_what_cannot_stand_in_a_certificate_is_refused(
    name: str, uri: str, hosts: Sequence[str], days: int
) -> None:
    with pytest.raises(ValueError, match=r"."):
        self_signed(name, uri, hosts, days)


def test_certificates_are_read_from_pem_from_der_and_from_chains(ours: Identity, other: Identity) -> None:
    one, two = ours.certificate, other.certificate
    assert certificates.read_certificates(certificates.pem(one)) == [one]
    assert certificates.read_certificates(certificates.der(one)) == [one]
    assert certificates.read_certificates(certificates.der(one) + certificates.der(two)) == [one, two]
    assert certificates.read_certificates(certificates.pem(one) + certificates.pem(two)) == [one, two]


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x84", b"no certificate", b"-----BEGIN CERTIFICATE-----"]
)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        certificates.read_certificates(data)


def test_a_key_in_a_folder_of_certificates_is_said_to_be_none() -> None:
    key = b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
    with pytest.raises(ValueError, match="holds no certificate that can be read"):
        certificates.read_certificates(key)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # that is 0 or negative: hostile too
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), cut=st.integers(0, 2000), at=st.integers(0, 2000))
def test_hostile_octets_are_read_or_refused(ours: Identity, data: bytes, cut: int, at: int) -> None:
    whole = certificates.der(ours.certificate)
    broken = whole[: min(at, len(whole))] + data + whole[min(at, len(whole)) + len(data) :]
    for octets in (data, b"\x30" + data, whole[:cut] + data, broken):
        try:
            for certificate in certificates.read_certificates(octets):
                certificates.hosts_of(certificate)
                certificates.is_strong(certificate, 2048)
                certificates.is_trusted([certificate], [ours.certificate])
        except ValueError:
            pass  # is what they promise


def test_a_key_of_an_unknown_algorithm_is_not_strong(ours: Identity) -> None:
    rsa = bytes.fromhex("06092a864886f70d010101")
    other = certificates.der(ours.certificate).replace(rsa, rsa[:2] + b"\x00" + rsa[3:])
    (certificate,) = certificates.read_certificates(other)
    assert not certificates.is_strong(certificate, 1)


def test_keys_are_read_from_pem_and_der(ours: Identity) -> None:
    der = ours.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data in (certificates.key_pem(ours.key), der):
        assert certificates.read_key(data).public_key() == ours.certificate.public_key()


def test_a_key_with_a_passphrase_or_of_another_kind_is_refused_in_words(ours: Identity) -> None:
    secret = ours.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ValueError, match="without a passphrase"):
        certificates.read_key(secret)
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="no RSA key"):
        certificates.read_key(curve)


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("rig.example", True),
        ("RIG.example.", True),
        ("192.0.2.7", True),
        ("2001:DB8:0::7", True),
        ("other.example", False),
        ("example", False),
        ("192.0.2.8", False),
    ],
)
def test_a_certificate_is_for_its_hosts_alone(ours: Identity, host: str, fits: bool) -> None:
    assert certificates.is_of_host(ours.certificate, host) == fits


def test_a_certificate_is_trusted_by_itself_and_not_by_another_of_the_same_names(
    ours: Identity, other: Identity
) -> None:
    assert certificates.is_trusted([ours.certificate], [other.certificate, ours.certificate])
    assert not certificates.is_trusted([ours.certificate], [other.certificate])
    assert not certificates.is_trusted([ours.certificate], [])


def test_a_certificate_is_trusted_by_its_authority_also_over_another(ours: Identity, other: Identity) -> None:
    root = Identity(issued(None, ours, "root", ca=True), ours.key)
    middle = Identity(issued(root, other, "middle", ca=True), other.key)
    leaf = self_signed("plc", "urn:plc.example", ["plc.example"], 1)
    plc = issued(middle, leaf, "plc", ca=False)
    assert certificates.is_trusted([plc], [middle.certificate])
    assert certificates.is_trusted([plc, middle.certificate], [root.certificate])
    assert not certificates.is_trusted([plc], [root.certificate])
    assert not certificates.is_trusted([plc, middle.certificate], [leaf.certificate])


def test_no_application_issues_certificates_for_others(ours: Identity, other: Identity) -> None:
    forged = issued(ours, other, "plc", ca=False)  # ours is trusted, and no authority
    assert not certificates.is_trusted([forged], [ours.certificate])


def test_a_short_key_is_not_strong() -> None:
    short = self_signed("plc", "urn:plc.example", ["plc.example"], 1, key_size=1024)
    assert not certificates.is_strong(short.certificate, 2048)
    assert certificates.is_strong(short.certificate, 1024)

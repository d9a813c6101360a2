"""Certificates of OPC UA applications and users (OPC 10000-6): made, read, held against trust. Pure."""

import datetime
import ipaddress
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PEM: Final = b"-----BEGIN "
_SEQUENCE: Final = 0x30
_EARLIER: Final = datetime.timedelta(hours=1)
"""A new certificate is valid already so long ago, for servers whose clocks are behind."""


class Identity(NamedTuple):
    """A certificate and the key that belongs to it."""

    certificate: x509.Certificate
    key: RSAPrivateKey


def default_uri(host: str) -> str:
    """The URI of this application on a host."""
    return f"urn:{host}:hilgate"


def self_signed(
    name: str, uri: str, hosts: Sequence[str], days: int, key_size: int = 2048, organization: str = "hilgate"
) -> Identity:
    """A new key and an application instance certificate for it (OPC 10000-6).

    Args:
        name: The application's name, at most 64 characters.
        uri: The application's URI.
        hosts: Host names or addresses where the application runs.
        days: How long it is valid.
        key_size: In bits; the policies in use take 2048 to 4096.
        organization: Who runs the application, at most 64 characters.

    Raises:
        ValueError: a name, the URI or the number of days cannot stand in a certificate.
    """
    key = generate_private_key(public_exponent=65537, key_size=key_size)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    try:
        end = now + datetime.timedelta(days=days)
    except OverflowError:
        raise ValueError(f"{days} days end beyond any date") from None
    public = key.public_key()
    subject_key = x509.SubjectKeyIdentifier.from_public_key(public)
    alternatives = [x509.UniformResourceIdentifier(uri), *(_general_name(host) for host in hosts)]
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # self-signed certificates have to have it, though they are no authorities
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(subject_key, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def der(certificate: x509.Certificate) -> bytes:
    """The certificate as OPC UA sends it."""
    return certificate.public_bytes(serialization.Encoding.DER)


def key_pem(key: RSAPrivateKey) -> bytes:
    """The key as text, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_certificates(data: bytes) -> list[x509.Certificate]:
    """The certificates of a file, at least one: in PEM, or in DER one after the other, as a chain is sent.

    Raises:
        ValueError: it holds none, or something else.
    """
    if _PEM in data:
        try:
            return x509.load_pem_x509_certificates(data)
        except ValueError as error:
            raise ValueError("holds no certificate that can be read") from error
    found = []
    while data:
        size = _der_size(data)
        found.append(x509.load_der_x509_certificate(data[:size]))
        data = data[size:]
    if not found:
        raise ValueError("holds no certificate")
    return found


def _der_size(data: bytes) -> int:
    """How many octets the first element takes (X.690, 8.1.3)."""
    if len(data) < 2 or data[0] != _SEQUENCE:
        raise ValueError("is no certificate in PEM or DER")
    if data[1] < 0x80:
        return 2 + data[1]
    octets = data[1] & 0x7F
    return 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")


def read_key(data: bytes) -> RSAPrivateKey:
    """The RSA key of a file in PEM or DER that is not encrypted.

    Raises:
        ValueError: it is something else.
    """
    load = serialization.load_pem_private_key if _PEM in data else serialization.load_der_private_key
    try:
        key = load(data, password=None)
    except TypeError:
        raise ValueError("is encrypted; give it without a passphrase") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("is no RSA key")
    return key


def thumbprint(certificate: x509.Certificate) -> str:
    """The SHA-256 of the certificate, as people compare it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":")


def sha1(certificate: x509.Certificate) -> str:
    """The thumbprint of OPC UA itself, which some servers show (OPC 10000-6)."""
    return certificate.fingerprint(hashes.SHA1()).hex()


def subject(certificate: x509.Certificate) -> str:
    """Whom the certificate is of, in a line."""
    return certificate.subject.rfc4514_string()


def application_uris(certificate: x509.Certificate) -> Sequence[str]:
    """The application's URI as its certificate says it: one, unless somebody made it wrong.

    Raises:
        ValueError: its extensions cannot be read.
    """
    names = _alternatives(certificate)
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else ()


def hosts_of(certificate: x509.Certificate) -> Sequence[str]:
    """The host names and addresses of a certificate.

    Raises:
        ValueError: its extensions cannot be read.
    """
    names = _alternatives(certificate)
    if names is None:
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    )


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except x509.DuplicateExtension as error:
        raise ValueError(f"has an extension twice: {error}") from error


def is_of_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether the certificate is for this host name or address.

    Raises:
        ValueError: its extensions cannot be read.
    """
    wanted = host.rstrip(".").lower()
    try:
        wanted = str(ipaddress.ip_address(wanted))
    except ValueError:
        pass  # a name
    return any(wanted == name.rstrip(".").lower() for name in hosts_of(certificate))


def is_trusted(chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]) -> bool:
    """Whether the first of `chain` is one of `trusted`, or was issued, over the rest of it, by one of them.

    Dates count for the issuers only, if at all: whoever asks checks the first's.
    """
    leaf, *others = chain
    if leaf in trusted:
        return True
    issuers = [certificate for certificate in trusted if _is_authority(certificate)]
    if not issuers:
        return False
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(issuers))
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=verification.ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, others)
    except verification.VerificationError:
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _authority(
    policy: verification.Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints | None
) -> None:
    """Raises ValueError for a certificate that must not issue others."""
    if constraints is None or not constraints.ca:
        raise ValueError("is no authority")


_CA_POLICY: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, _authority
)


def is_strong(certificate: x509.Certificate, least_bits: int) -> bool:
    """Whether the certificate has an RSA key of at least so many bits."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):  # it is broken, or of an algorithm that nobody knows
        return False
    return isinstance(key, RSAPublicKey) and key.key_size >= least_bits

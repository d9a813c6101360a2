"""TLS contexts, what is wrong with their files, and whether those have changed."""

import datetime
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from protocols import tls
from protocols.tls import Files, FileWatch, TlsCredentials, UnusableFile

AUTHORITY = trustme.CA()
OURS = AUTHORITY.issue_cert("agent.example")
OTHER = AUTHORITY.issue_cert("agent.example")
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def written(path: Path, *parts: trustme.Blob | bytes) -> Path:
    path.write_bytes(b"".join(part if isinstance(part, bytes) else part.bytes() for part in parts))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(
        written(tmp_path / "ca.pem", AUTHORITY.cert_pem),
        written(tmp_path / "cert.pem", *OURS.cert_chain_pems),
        written(tmp_path / "key.pem", OURS.private_key_pem),
    )


def encrypted(leaf: trustme.LeafCert) -> bytes:
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_a_client_checks_names_and_speaks_tls_1_2_at_least(files: Files) -> None:
    context = tls.client_context(files)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_client_without_files_trusts_the_systems_authorities() -> None:
    context = tls.client_context(Files())
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_verification_is_off_only_where_it_is_said(files: Files) -> None:
    context = tls.client_context(Files(files.ca, verify=False))
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("ca", "optional", "mode"),
    [(True, False, ssl.CERT_REQUIRED), (True, True, ssl.CERT_OPTIONAL), (False, False, ssl.CERT_NONE)],
)
def test_a_server_asks_callers_for_a_certificate_where_it_has_authorities(
    files: Files, ca: bool, optional: bool, mode: ssl.VerifyMode
) -> None:
    mine = Files(files.ca if ca else None, files.cert, files.key)
    context = tls.server_context(mine, optional=optional)
    assert context.verify_mode is mode
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_names_are_relative_to_the_folder(files: Files, tmp_path: Path) -> None:
    near = Files(Path("ca.pem"), Path("cert.pem"), Path("key.pem"))
    assert TlsCredentials(near, tmp_path).check() == TlsCredentials(files).check()
    assert TlsCredentials(near, tmp_path).paths() == TlsCredentials(files).paths()


UNUSABLE: dict[str, tuple[str, Callable[[], bytes | None], str]] = {
    "no authorities' file": ("ca", lambda: None, "^ca: .*ca.pem cannot be read: No such file"),
    "no authority": ("ca", lambda: b"nothing", "^ca: .*ca.pem holds no certificate in PEM"),
    "a key as authority": ("ca", OURS.private_key_pem.bytes, "^ca: .*ca.pem holds no certificate in PEM"),
    "half an authority": ("ca", lambda: AUTHORITY.cert_pem.bytes()[:300], "^ca: .* holds no certificate"),
    "no certificate's file": ("cert", lambda: None, "^cert: .*cert.pem cannot be read: No such file"),
    "an empty certificate": ("cert", lambda: b"", "^cert: .*cert.pem holds no certificate in PEM"),
    "no key's file": ("key", lambda: None, "^key: .*key.pem cannot be read: No such file"),
    "no key": ("key", lambda: b"-----BEGIN", "^key: .*key.pem holds no key in PEM"),
    "another's key": (
        "key",
        OTHER.private_key_pem.bytes,
        "^key: .* does not belong to the certificate in .*",
    ),
    "half a key": ("key", lambda: OURS.private_key_pem.bytes()[:80], "^cert and key: .* cannot be used"),
    "a key with a passphrase": ("key", lambda: encrypted(OURS), "^key: .*key.pem is encrypted"),
    "one that has ended": (
        "cert",
        lambda: AUTHORITY.issue_cert("a.example", not_after=NOW - DAY).cert_chain_pems[0].bytes(),
        f"^cert: .*cert.pem: was valid until {NOW - DAY:%Y-%m-%d}",
    ),
    "one that has not begun": (
        "cert",
        lambda: AUTHORITY.issue_cert("a.example", not_before=NOW + DAY).cert_chain_pems[0].bytes(),
        f"^cert: .*cert.pem: is valid only from {NOW + DAY:%Y-%m-%d}",
    ),
    "no certificate inside": (
        "cert",
        lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "^cert: .* holds a certificate that cannot be read: is no certificate",
    ),
}


@pytest.mark.parametrize(("name", "content", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_file_is_named_with_the_reason(
    files: Files, name: str, content: Callable[[], bytes | None], words: str
) -> None:
    path = getattr(files, name)
    data = content()
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    for make in (tls.client_context, tls.server_context, lambda them: TlsCredentials(them).check()):
        with pytest.raises(UnusableFile, match=words):
            make(files)


def test_a_file_with_a_key_and_its_chain_needs_no_other(tmp_path: Path) -> None:
    both = written(tmp_path / "both.pem", OURS.private_key_and_cert_chain_pem)
    assert tls.client_context(Files(cert=both))


def test_when_certificates_end(files: Files, tmp_path: Path) -> None:
    early = AUTHORITY.issue_cert("a.example", not_after=NOW + DAY)
    written(tmp_path / "cert.pem", *early.cert_chain_pems)
    written(tmp_path / "key.pem", early.private_key_pem)
    ends = TlsCredentials(files).check()
    assert ends["cert"] == int((NOW + DAY).timestamp())
    authority = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes())
    assert ends["ca"] == authority.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"\n", "has nothing in its first line"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_a_password_that_cannot_be_used(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableFile, match=f"^password_file: .*{words}"):
        TlsCredentials(None, secrets={"password_file": path}).check()


def test_a_password_is_the_first_line(tmp_path: Path) -> None:
    assert (
        tls.read_secret(written(tmp_path / "password", b"geheim\r\nnot this\n"), "password_file") == "geheim"
    )


# Reading certificates.


@given(st.binary(max_size=200))
def test_no_bytes_but_a_certificates_are_one(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the words are of many kinds
        tls.validity(data)


@given(st.data())
def test_a_damaged_certificate_has_a_validity_or_is_refused(data: st.DataObject) -> None:
    der = ssl.PEM_cert_to_DER_cert(OURS.cert_chain_pems[0].bytes().decode())
    place = data.draw(st.integers(0, len(der) - 1))
    damaged = der[:place] + data.draw(st.binary(max_size=3)) + der[place + 1 :]
    try:
        tls.validity(damaged)
    except ValueError:
        pass


@pytest.mark.parametrize("year", [1951, 1999, 2049, 2050, 2999])
def test_validity_is_what_another_library_reads(year: int, tmp_path: Path) -> None:
    end = datetime.datetime(year, 5, 17, 1, 2, 3, tzinfo=datetime.UTC)
    begin = datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC)
    leaf = AUTHORITY.issue_cert("a.example", not_before=begin, not_after=end)
    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    read = tls.validity(der)
    other = x509.load_der_x509_certificate(der)
    assert read.not_before == other.not_valid_before_utc.timestamp() == begin.timestamp()
    assert read.not_after == other.not_valid_after_utc.timestamp() == end.timestamp()


# Watching.


def test_a_change_counts_when_it_stays(tmp_path: Path) -> None:
    file = written(tmp_path / "cert.pem", b"one")
    watch = FileWatch([file])
    assert not watch.changed()
    file.write_bytes(b"tw")
    assert not watch.changed()
    file.write_bytes(b"two")
    assert not watch.changed()
    assert watch.changed()
    assert not watch.changed()


def test_a_file_that_is_away_for_a_moment_has_not_changed(tmp_path: Path) -> None:
    file = written(tmp_path / "cert.pem", b"one")
    watch = FileWatch([file])
    file.unlink()
    assert not watch.changed()
    written(file, b"one")
    assert not watch.changed()
    assert not watch.changed()


def test_a_file_that_stays_away_has_changed(tmp_path: Path) -> None:
    file = written(tmp_path / "cert.pem", b"one")
    watch = FileWatch([file])
    file.unlink()
    assert [watch.changed(), watch.changed(), watch.changed()] == [False, True, False]


def test_new_times_of_the_same_content_are_no_change(tmp_path: Path) -> None:
    file = written(tmp_path / "cert.pem", b"one")
    watch = FileWatch([file])
    os.utime(file, (1, 1))
    assert not any((watch.changed(), watch.changed()))


def test_a_folder_as_kubernetes_mounts_secrets(tmp_path: Path) -> None:
    """`tls.crt` leads over `..data` to a folder of a time, and `..data` is replaced."""
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "tls.crt", name.encode())
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    watches = [FileWatch([tmp_path / "tls.crt"]), FileWatch([tmp_path])]
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    for watch in watches:
        assert [watch.changed(), watch.changed(), watch.changed()] == [False, True, False]


def test_a_certificate_that_comes_into_a_folder(tmp_path: Path) -> None:
    watch = FileWatch([tmp_path])
    written(tmp_path / "server.der", b"one")
    assert [watch.changed(), watch.changed()] == [False, True]


def test_importing_it_needs_no_extra() -> None:
    code = "import sys, protocols.tls; assert not {'cryptography', 'trustme', 'asyncua'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)

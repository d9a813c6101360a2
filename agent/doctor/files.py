"""Which files settings and profile name, and what each is for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import BaseModel

from agent.doctor import host
from agent.doctor.case import Case

CREDENTIALS = Path("/etc/credstore")
"""Where systemd finds the service's credentials of the same names (systemd.exec(5), LoadCredential=)."""
Role = Literal["certificate", "key", "authority", "secret"]

_SETTINGS: dict[str, Role] = {
    "tls_ca": "authority",
    "tls_cert": "certificate",
    "tls_key": "key",
    "http_cert": "certificate",
    "http_key": "key",
    "http_client_ca": "authority",
    "ca": "authority",
    "username_file": "secret",
    "password_file": "secret",
    "http_token_file": "secret",
}
_CONNECTION: dict[str, Role] = {
    "ca": "authority",
    "trust": "authority",
    "cert": "certificate",
    "key": "key",
    "password_file": "secret",
}
_KEY_OF = {"tls_cert": "tls_key", "http_cert": "http_key", "cert": "key"}
_CERTIFICATES = (".pem", ".der", ".crt", ".cer")


class NamedFile(msgspec.Struct, frozen=True):
    """One file that the configuration names."""

    where: str
    """The setting, or the device and its field."""
    path: Path
    role: Role
    key: Path | None = None
    """Of a certificate: the file of its key, which may be the same."""


def hidden_from_service(path: Path) -> bool:
    """Whether this is root, and the service may not read the file; its credentials systemd hands to it."""
    return CREDENTIALS not in path.absolute().parents and not host.service_may(path)


def named_files(case: Case) -> Sequence[NamedFile]:
    """All files of settings and of the enabled devices' connections; of folders the certificates in them."""
    found: list[NamedFile] = []
    if case.settings is not None:
        found += _of(case.settings, _SETTINGS, "", Path())
    for name, device in case.devices.items():
        connection = getattr(device, "connection", None)
        if isinstance(connection, BaseModel):
            found += _of(connection, _CONNECTION, f"{name}.connection.", device.folder)
    return [part for file in found for part in _spread(file)]


def _of(model: BaseModel, roles: dict[str, Role], where: str, folder: Path) -> Iterator[NamedFile]:
    for field in type(model).model_fields:
        value = getattr(model, field)
        if isinstance(value, BaseModel):
            yield from _of(value, roles, f"{where}{field}.", folder)
        if (role := roles.get(field)) is None or not value:
            continue
        key = getattr(model, _KEY_OF.get(field, ""), None)
        for one in [value] if isinstance(value, str | Path) else value:
            path = folder / one
            own = (path if key is None else folder / key) if role == "certificate" else None
            yield NamedFile(f"{where}{field}", path, role, own)


def _spread(file: NamedFile) -> Iterator[NamedFile]:
    if not file.path.is_dir():
        yield file
        return
    for path in sorted(file.path.iterdir()):
        if path.suffix in _CERTIFICATES:
            yield NamedFile(file.where, path, file.role)

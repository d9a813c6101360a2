"""The files of an OPC UA device: certificates, keys and trust of its channel, and its user's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from protocols.base import DriverError
from protocols.tls import UNVERIFIED, UnusableFile

if TYPE_CHECKING:
    from protocols.opcua.config import OpcuaDevice


@dataclass(frozen=True)
class OpcuaCredentials:
    """Implements `protocols.tls.Credentials`."""

    device: "OpcuaDevice"

    @property
    def caveat(self) -> str:
        """See `Credentials.caveat`; with `policy: None` a server has no certificate that would count."""
        security = self.device.connection.security
        return "" if security.verify or security.policy == "None" else UNVERIFIED

    def paths(self) -> Sequence[Path]:
        """See `Credentials.paths`; a folder in `trust` is one of them."""
        security, user = self.device.connection.security, self.device.connection.user
        named = [security.cert, security.key, *(security.trust if security.verify else ())]
        if user is not None:
            named += [user.cert, user.key, user.password_file]
        return [self.device.folder / name for name in named if name is not None]

    def check(self) -> Mapping[str, float]:
        """See `Credentials.check`."""
        from protocols.opcua.security import read_files  # asyncua is an extra, and slow to import

        try:
            files = read_files(self.device)
        except DriverError as error:
            raise UnusableFile(str(error)) from error
        ends = {
            name: identity.certificate.not_valid_after_utc.timestamp()
            for name, identity in (("cert", files.own), ("user.cert", files.user))
            if identity is not None
        }
        if files.trusted:
            ends["trust"] = max(one.not_valid_after_utc.timestamp() for one in files.trusted)
        return ends

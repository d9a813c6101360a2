"""Apache ActiveMQ Artemis from its binary distribution."""

import re
import shutil
import string
import subprocess
from collections.abc import Sequence
from pathlib import Path

from brokers.process import PEERS, ROOT, Broker, User

_TEMPLATE = Path(__file__).with_name("broker.xml")
_DOCUMENT = ROOT / "docs" / "brokers.md"
_MODULE = "org.apache.activemq.artemis.spi.core.security.jaas"
# Who gives a wrong password is refused, and not taken for a guest.
_LOGIN = f"""activemq {{
  {_MODULE}.PropertiesLoginModule sufficient
    org.apache.activemq.jaas.properties.user="artemis-users.properties"
    org.apache.activemq.jaas.properties.role="artemis-roles.properties";
  {_MODULE}.GuestLoginModule sufficient
    credentialsInvalidate=true
    org.apache.activemq.jaas.guest.user="guest"
    org.apache.activemq.jaas.guest.role="amq";
}};
"""
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "JAVA_ARGS": "-Xms128M -Xmx512M -XX:+UseSerialGC"}


def _documented(element: str) -> str:
    """The settings of one kind that docs/brokers.md tells people to use."""
    block = re.search(rf"```xml\n(<{element} .*?)```", _DOCUMENT.read_text(), re.DOTALL)
    assert block, f"{_DOCUMENT} has no <{element}>"
    return block[1]


def _distribution() -> Path | None:
    return next(iter(sorted(PEERS.glob("apache-artemis-*"), reverse=True)), None)


class Artemis(Broker):
    """One Artemis instance; anonymous clients have all rights."""

    name = "artemis"
    flavour = "artemis"

    @classmethod
    def why_missing(cls) -> str | None:
        if shutil.which("java") is None:
            return "java is not installed; Debian has it in openjdk-17-jre-headless"
        return None if _distribution() else "not downloaded"

    @property
    def _instance(self) -> Path:
        return self.home / "instance"

    def command(self) -> tuple[Sequence[str | Path], dict[str, str]]:
        if not self._instance.exists():
            self._create()
        return [self._instance / "bin" / "artemis", "run"], _ENVIRONMENT

    def _create(self) -> None:
        distribution = _distribution()
        assert distribution is not None
        admin = self.users.admin
        options = ["--silent", "--allow-anonymous", "--no-web", "--no-autotune", "--nio", "--role", "amq"]
        account = ["--user", admin.name, "--password", admin.password]
        subprocess.run(
            [distribution / "bin" / "artemis", "create", self._instance, *options, *account],
            env=_ENVIRONMENT,
            check=True,
            capture_output=True,
        )
        chain = self.home / "broker.pem"
        chain.write_bytes(self.certificates.key.read_bytes() + self.certificates.chain.read_bytes())
        fields = {
            "port": self.port,
            "tls_port": self.tls_port,
            "chain": chain,
            "permissions": _documented("security-setting"),
            "addresses": _documented("address"),
        }
        configuration = string.Template(_TEMPLATE.read_text()).substitute(fields)
        settings = self._instance / "etc"
        (settings / "broker.xml").write_text(configuration)
        (settings / "login.config").write_text(_LOGIN)
        with (settings / "artemis-users.properties").open("a") as users:
            users.writelines(f"\n{user.name} = {user.password}" for user in self._least)
        with (settings / "artemis-roles.properties").open("a") as roles:
            roles.writelines(f"\n{user.name}s = {user.name}" for user in self._least)

    @property
    def _least(self) -> tuple[User, ...]:
        return (self.users.agent, self.users.client)

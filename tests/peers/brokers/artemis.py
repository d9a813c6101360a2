"""Apache ActiveMQ Artemis from its binary distribution."""

import shutil
import string
import subprocess
from collections.abc import Sequence
from pathlib import Path

from brokers.process import PEERS, Broker

_TEMPLATE = Path(__file__).with_name("broker.xml")
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "JAVA_ARGS": "-Xms128M -Xmx512M -XX:+UseSerialGC"}


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
        fields = {"port": self.port, "tls_port": self.tls_port, "chain": chain}
        configuration = string.Template(_TEMPLATE.read_text()).substitute(fields)
        (self._instance / "etc" / "broker.xml").write_text(configuration)

    def server_pid(self) -> int:
        return self.running_process().pid

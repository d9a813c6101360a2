"""RabbitMQ 3 and 4 of two Debian releases, unpacked by tests/tools/get-peers and run from there."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from brokers.process import PEERS, ROOT, Broker, child_of

_IN_ROOT = ROOT / "tests" / "tools" / "in-root"
_DOCUMENT = ROOT / "docs" / "brokers.md"
_BIN = Path("/usr/lib/rabbitmq/bin")


class RabbitMQ(Broker):
    """What both releases have in common."""

    chapter: ClassVar[str]
    """Its heading in docs/brokers.md."""
    plugins: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()
    _has_users = False

    @classmethod
    def why_missing(cls) -> str | None:
        root = PEERS / cls.name
        if not root.exists():
            return "not downloaded"
        attempt = subprocess.run(
            [_IN_ROOT, root, "/tmp", "/bin/true"], capture_output=True, text=True, check=False
        )
        return f"namespaces are not allowed here: {attempt.stderr.strip()}" if attempt.returncode else None

    @property
    def _environment(self) -> dict[str, str]:
        epmd_port, distribution_port = self.other_ports
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/data",
            "LANG": "C.UTF-8",
            # The start script then becomes the server instead of staying in between.
            "RUNNING_UNDER_SYSTEMD": "1",
            "RABBITMQ_NODENAME": f"{self.name}-{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": "/data/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/data/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": "/data/db",
            "RABBITMQ_LOG_BASE": "/data/log",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _in_root(self, *command: str | Path) -> list[str | Path]:
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        return [_IN_ROOT, PEERS / self.name, self.home, "/usr/bin/env", "-i", *variables, *command]

    def command(self) -> tuple[Sequence[str | Path], dict[str, str]]:
        tls = self.home / "tls"
        tls.mkdir(exist_ok=True)
        for name, source in (("ca", "authority"), ("chain", "chain"), ("key", "key")):
            (tls / f"{name}.pem").write_bytes(getattr(self.certificates, source).read_bytes())
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
            "ssl_options.cacertfile = /data/tls/ca.pem",
            "ssl_options.certfile = /data/tls/chain.pem",
            "ssl_options.keyfile = /data/tls/key.pem",
            f"default_user = {self.users.admin.name}",
            f"default_pass = {self.users.admin.password}",
            *(line.format(admin=self.users.admin.name) for line in self.settings),
        ]
        (self.home / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.home / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n")
        return self._in_root(_BIN / "rabbitmq-server"), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def server_pid(self) -> int:
        """The process in the namespaces that `in-root` made."""
        return child_of(super().server_pid())

    def ctl(self, *arguments: str) -> str:
        """Runs `rabbitmqctl` on this node and gives what it prints."""
        command = self._in_root(_BIN / "rabbitmqctl", "-q", "-n", self._environment["RABBITMQ_NODENAME"])
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        super().start()
        self.ctl("await_startup", "--timeout", "60")
        if not self._has_users:
            self._add_users()
            self._has_users = True

    def _add_users(self) -> None:
        """Adds the agent and the client with the rights that docs/brokers.md tells people to give."""
        for user in (self.users.agent, self.users.client):
            pattern = rf"^rabbitmqctl set_permissions {user.name} '(.*)' '(.*)' '(.*)'$"
            chapter = _DOCUMENT.read_text().split(f"\n## {self.chapter}\n")[1].split("\n## ")[0]
            rights = re.search(pattern, chapter, re.MULTILINE)
            assert rights, f"{_DOCUMENT} has no permissions for {user.name}"
            self.ctl("add_user", user.name, user.password)
            self.ctl("set_permissions", user.name, *rights.groups())

    def declare(self, queue: str, *topics: str, quorum: bool = False) -> None:
        """Makes a durable queue and binds it to topics: `*` stands for one word, `#` for any.

        A quorum queue is as docs/brokers.md has it, and outlives also a power cut right after this returns.
        Fails if one of another kind is there: whoever attached a link to it has made a classic one.
        """
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": -1} if quorum else {}
        bindings = [
            {"source": "amq.topic", "destination": queue, "destination_type": "queue", "routing_key": topic}
            for topic in topics
        ]
        definitions: dict[str, list[dict[str, Any]]] = {
            "queues": [{"name": queue, "durable": True, "auto_delete": False, "arguments": arguments}],
            "bindings": [binding | {"arguments": {}} for binding in bindings],
        }
        for item in (*definitions["queues"], *definitions["bindings"]):
            item["vhost"] = "/"
        (self.home / "definitions.json").write_text(json.dumps(definitions))
        self.ctl("import_definitions", "/data/definitions.json")
        if quorum:
            # An import leaves a queue that is there as it is, and says nothing.
            lookup = f'rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>))'
            self.write_down(f"{{ok, Queue}} = {lookup}", "rabbit_quorum_queue = amqqueue:get_type(Queue)")

    def write_down(self, *checks: str) -> None:
        """Has all queues and bindings written that were declared, which takes seconds else (docs/brokers.md).

        Args:
            checks: Erlang expressions that fail if something is not as it should be.
        """
        command = re.search(r"^rabbitmqctl eval '(.*)'$", _DOCUMENT.read_text(), re.MULTILINE)
        assert command, f"{_DOCUMENT} has no rabbitmqctl eval"
        self.ctl("eval", ", ".join([*checks, command[1]]))

    @contextlib.contextmanager
    def starved(self) -> Iterator[None]:
        """Inside, the memory alarm is on: publishers get no credit."""
        self.ctl("set_vm_memory_high_watermark", "0.0000001")
        try:
            yield
        finally:
            self.ctl("set_vm_memory_high_watermark", "0.6")


class RabbitMQ3(RabbitMQ):
    """RabbitMQ 3.10 of Debian 12 with its AMQP 1.0 plugin."""

    name = "rabbitmq3"
    flavour = "rabbitmq3"
    chapter = "RabbitMQ 3"
    plugins = ("rabbitmq_amqp1_0",)
    settings = ("amqp1_0.default_user = {admin}",)


class RabbitMQ4(RabbitMQ):
    """RabbitMQ 4.0 of Debian 13, which speaks AMQP 1.0 natively."""

    name = "rabbitmq4"
    flavour = "rabbitmq"
    chapter = "RabbitMQ 4"
    settings = ("anonymous_login_user = {admin}", "anonymous_login_pass = admin-secret")

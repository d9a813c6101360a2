"""Finds a free bench, leases it for an environment and keeps the lease, as an environment's controller does.

It is an AMQP 1.0 client alone (python-qpid-proton) and shares no code with hilgate.

    python find_bench.py amqp://127.0.0.1:5672 --holder dte-42 --labels site=muc,kind=hydraulic > bench.yaml
    kubectl apply -n dte-42 -f bench.yaml

Bench, lease token and addresses come as a Secret on standard output, what happens on standard error. It then
renews the lease until SIGTERM, and releases it. Exit codes: 0 released, 1 no bench to be had, 2 bench lost.
"""

import argparse
import contextlib
import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from proton import Link, Message, Timeout, symbol
from proton.reactor import LinkOption
from proton.utils import BlockingConnection, BlockingReceiver


class Topic(LinkOption):
    """Says that an address is a topic: some brokers make a queue of it otherwise."""

    def apply(self, link: Link) -> None:
        """Asks for it on the source."""
        link.source.capabilities.put_object(symbol("topic"))


class Benches:
    """What is known of all benches, by their last availability."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._receiver = connection.create_receiver("hil.availability", credit=100, options=Topic())
        self._last: dict[str, tuple[dict[str, Any], float]] = {}

    def listen(self, seconds: float) -> None:
        """Takes in what comes for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                message = self._receiver.receive(timeout=left)
            except Timeout:
                return
            self._receiver.accept()
            said = json.loads(bytes(message.body))
            known = self._last.get(said["bench"])
            # The highest (epoch, revision) is the truth, in whatever order messages come.
            if known is None or _order(said) > _order(known[0]):
                self._last[said["bench"]] = said, time.monotonic()

    def free(self, labels: dict[str, str]) -> Iterator[str]:
        """The benches with these labels that are there and that nobody has."""
        for bench, (said, _) in sorted(self._last.items()):
            fits = labels.items() <= said["labels"].items()
            if fits and said["state"] == "available" and said["enabled"] and not self.lost(bench):
                yield bench

    def lost(self, bench: str) -> str:
        """Why a bench cannot be counted on, such as three missing heartbeats; empty while it can."""
        said, at = self._last[bench]
        if said["state"] in ("stopping", "offline"):
            return f"it is {said['state']}"
        silent = time.monotonic() - at
        return f"nothing was heard of it for {silent:.0f} s" if silent > 3 * said["interval_s"] else ""


def _order(said: dict[str, Any]) -> tuple[int, int]:
    return said["epoch"], said["revision"]


class Commands:
    """Sends commands and waits for their results."""

    def __init__(self, connection: BlockingConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        # A link of its own for answers: with RabbitMQ, which makes none, take a queue of yours.
        self._replies: BlockingReceiver = connection.create_receiver(None, dynamic=True, credit=10)

    def ask(self, bench: str, **command: Any) -> dict[str, Any]:
        """The result; one of status `silent` when none came in time."""
        message_id, now = (
            str(uuid.uuid4()),
            time.time(),
        )  # random: it is what a token can be asked for again by
        sender = self._connection.create_sender(f"hil.{bench}.commands")
        sender.send(
            Message(
                id=message_id,
                reply_to=self._replies.link.remote_source.address,
                content_type="application/json",
                creation_time=now,
                expiry_time=now + self._timeout,  # not carried out when nobody waits for it any more
                inferred=True,  # bytes as a data section
                body=json.dumps(command).encode(),
            )
        )
        sender.close()
        end = time.monotonic() + self._timeout
        while (left := end - time.monotonic()) > 0:
            try:
                reply = self._replies.receive(timeout=left)
            except Timeout:
                break
            self._replies.accept()
            if reply.correlation_id == message_id:
                result: dict[str, Any] = json.loads(bytes(reply.body))
                return result
        return {
            "status": "silent",
            "code": "",
            "message": f"no answer within {self._timeout:g} s",
            "data": {},
        }


def reserve(
    benches: Benches, commands: Commands, chosen: argparse.Namespace, ending: list[int]
) -> tuple[str, dict[str, Any]] | None:
    """Leases the first bench that lets us; None when none did in time."""
    end = time.monotonic() + chosen.wait
    refused: set[str] = set()
    asked = {"op": "reserve", "holder": chosen.holder, "dte": chosen.holder, "ttl_s": chosen.ttl}
    while time.monotonic() < end and not ending:
        benches.listen(0.5)
        for bench in benches.free(chosen.labels):
            if bench in refused:
                continue
            result = commands.ask(bench, **asked, deadman_s=chosen.ttl / 2)
            if result["status"] == "ok":
                return bench, result["data"]
            # Somebody was faster (lease-held), or it could not be prepared: the next one.
            say(f"{bench}: {result['status']} {result['code']}: {result['message']}")
            refused.add(bench)
        if refused and not set(benches.free(chosen.labels)) - refused:
            benches.listen(chosen.retry)
            refused.clear()
    return None


def secret(bench: str, lease: str, holder: str) -> str:
    """What the environment's components need, as a Secret. JSON is YAML, too."""
    addresses = {
        "HIL_COMMANDS": f"hil.{bench}.commands",
        "HIL_EVENTS": f"hil.{bench}.events.*",
        "HIL_BENCH": bench,
        "HILGATE_LEASE": lease,
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "hil-bench", "labels": {"hilgate.io/holder": holder}},
            "type": "Opaque",
            "stringData": addresses,
        }
    )


def keep(benches: Benches, commands: Commands, bench: str, lease: str, ttl: float, ending: list[int]) -> str:
    """Renews the lease until a signal comes, or until the bench is lost: says why then."""
    due = time.monotonic() + ttl / 4
    while not ending:
        benches.listen(min(1.0, ttl / 8))
        if why := benches.lost(bench):
            return why
        if time.monotonic() >= due:
            result = commands.ask(bench, op="renew", lease=lease)
            if result["code"] in ("lease-expired", "not-leased"):
                return f"the lease is over: {result['message']}"
            if result["status"] != "ok":
                say(f"{bench}: renew: {result['status']}: {result['message']}")
            due = time.monotonic() + ttl / 4
    return ""


def say(text: str) -> None:
    """To standard error: standard output is the Secret's."""
    print(text, file=sys.stderr, flush=True)


def labels(text: str) -> dict[str, str]:
    """`site=muc,kind=hydraulic` as a mapping."""
    return dict(pair.split("=", 1) for pair in text.split(","))


def main() -> int:
    """Runs to the end of the lease."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("broker", help="amqp://host:port")
    parser.add_argument("--holder", required=True, help="the environment")
    parser.add_argument(
        "--labels", type=labels, default={}, help="that the bench must have: site=muc,kind=hydraulic"
    )
    parser.add_argument(
        "--ttl", type=float, default=60.0, help="how long a lease lasts that nobody renews, in s"
    )
    parser.add_argument("--wait", type=float, default=60.0, help="how long to look for a bench, in s")
    parser.add_argument("--retry", type=float, default=5.0, help="when to ask those again that refused, in s")
    chosen = parser.parse_args()

    ending: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ending.append(number))
    with contextlib.closing(BlockingConnection(chosen.broker, timeout=10)) as connection:
        benches, commands = Benches(connection), Commands(connection, timeout=10)
        found = reserve(benches, commands, chosen, ending)
        if found is None:
            say("no bench to be had")
            return 1
        bench, granted = found
        say(f"{bench} is ours until {granted['expires']}, as lease {granted['id']}")
        print(secret(bench, granted["lease"], chosen.holder), flush=True)
        if why := keep(benches, commands, bench, granted["lease"], chosen.ttl, ending):
            # The lease ends by itself, and the agent or the next one makes the bench safe: look for another.
            say(f"{bench} is lost: {why}")
            return 2
        result = commands.ask(bench, op="release", lease=granted["lease"])
        say(f"{bench}: release: {result['status']} {result['message']}".rstrip())
        return 0


if __name__ == "__main__":
    sys.exit(main())

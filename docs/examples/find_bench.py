"""Finds a free bench, leases it for an environment and keeps the lease, as an environment's controller does.

It is an AMQP 1.0 client alone (python-qpid-proton) and shares no code with hilgate.

    python find_bench.py amqp://127.0.0.1:5672 --holder dte-42 --labels site=muc |
        kubectl apply -n dte-42 -f -

Bench, lease token and addresses come as a Secret on standard output, which is closed after it; what happens
is said on standard error. It then renews the lease until SIGTERM, and releases it. Exit codes: 0 released,
1 no bench to be had, 2 bench lost, 3 broker lost.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from proton import Link, Message, ProtonException, Timeout, symbol
from proton.reactor import LinkOption
from proton.utils import BlockingConnection, BlockingReceiver

IDLE_S = 10.0
"""A broker that says nothing for so long is lost, also where the network swallows everything."""


class Topic(LinkOption):
    """Says that an address is a topic: some brokers make a queue of it otherwise."""

    def apply(self, link: Link) -> None:
        """Asks for it on the source."""
        link.source.capabilities.put_object(symbol("topic"))


@dataclass(frozen=True)
class Heard:
    """What a bench said last, and when by our clock: that, and when we heard of this state first."""

    said: dict[str, Any]
    at: float
    since: float


class Benches:
    """What is known of all benches, by their last availability."""

    def __init__(self, connection: BlockingConnection, patience: float) -> None:
        self._patience = patience
        self._receiver = connection.create_receiver("hil.availability", credit=100, options=Topic())
        self._last: dict[str, Heard] = {}

    def listen(self, seconds: float) -> None:
        """Takes in what comes for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                message = self._receiver.receive(timeout=left)
            except Timeout:
                return
            self._receiver.accept()
            said = body(message)
            if not said.keys() >= _NEEDED:
                say("what came on hil.availability is none")
                continue
            known = self._last.get(said["bench"])
            # The highest (epoch, revision) is the truth, in whatever order messages come.
            if known is None or _order(said) > _order(known.said):
                now = time.monotonic()
                stays = known is not None and known.said["state"] == said["state"]
                self._last[said["bench"]] = Heard(said, now, known.since if known and stays else now)

    def free(self, labels: dict[str, str], modes: set[str]) -> Iterator[str]:
        """The benches with these labels, real or simulated, that are there and that nobody has."""
        for bench, heard in sorted(self._last.items()):
            said = heard.said
            fits = labels.items() <= said["labels"].items() and said["mode"] in modes
            if fits and said["state"] == "available" and said["enabled"] and not self.lost(bench):
                yield bench

    def lost(self, bench: str) -> str:
        """Why a bench cannot be counted on, such as three missing heartbeats; empty while it can."""
        heard, now = self._last[bench], time.monotonic()
        state, reason = heard.said["state"], heard.said["reason"]
        if state in ("stopping", "offline"):
            return f"it is {state}"
        if state in ("fault", "maintenance") and now - heard.since > self._patience:
            return f"it has been in {state} for {now - heard.since:.0f} s: {reason}"
        silent = now - heard.at
        return f"nothing was heard of it for {silent:.0f} s" if silent > 3 * heard.said["interval_s"] else ""


_NEEDED = {"bench", "epoch", "revision", "state", "reason", "enabled", "interval_s", "labels", "mode"}


def body(message: Message) -> dict[str, Any]:
    """What an event holds, also where the agent is set to structured mode; nothing where it is none."""
    try:
        event = json.loads(bytes(message.body))
    except (ValueError, TypeError):
        return {}
    if isinstance(event, dict) and message.content_type == "application/cloudevents+json":
        event = event.get("data")
    return event if isinstance(event, dict) else {}


def _order(said: dict[str, Any]) -> tuple[int, int]:
    return said["epoch"], said["revision"]


class Commands:
    """Sends commands and waits for their results."""

    def __init__(self, connection: BlockingConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        # A link of its own for answers: with RabbitMQ, which makes none, take a queue of yours.
        self._replies: BlockingReceiver = connection.create_receiver(None, dynamic=True, credit=10)

    def ask(self, bench: str, tries: int = 1, **command: Any) -> dict[str, Any]:
        """The result; one of status `silent` when none came in time.

        What is tried again is the same command: it is carried out once, however often it comes, and each is
        answered, so that no answer that was late or lost leaves a lease that nobody has the token of.
        """
        message_id = str(uuid.uuid4())  # random: whoever knows it could ask for the token
        for _ in range(tries):
            self._send(bench, message_id, command)
            if (result := self._result(message_id)) is not None:
                return result
        waited = tries * self._timeout
        return {"status": "silent", "code": "", "message": f"no answer within {waited:g} s", "data": {}}

    def _send(self, bench: str, message_id: str, command: dict[str, Any]) -> None:
        now = time.time()
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

    def _result(self, message_id: str) -> dict[str, Any] | None:
        end = time.monotonic() + self._timeout
        while (left := end - time.monotonic()) > 0:
            try:
                reply = self._replies.receive(timeout=left)
            except Timeout:
                break
            self._replies.accept()
            if reply.correlation_id == message_id:
                return body(reply)
        return None


def reserve(
    benches: Benches, commands: Commands, chosen: argparse.Namespace, ending: list[int]
) -> tuple[str, dict[str, Any]] | None:
    """Leases the first bench that lets us; None when none did in time."""
    end = time.monotonic() + chosen.wait
    refused: set[str] = set()
    asked = {"op": "reserve", "holder": chosen.holder, "dte": chosen.holder, "ttl_s": chosen.ttl}
    wanted = chosen.labels, {chosen.mode} if chosen.mode else {"hil", "sil"}
    while time.monotonic() < end and not ending:
        benches.listen(0.5)
        for bench in benches.free(*wanted):
            if bench in refused or ending:
                continue
            # What prepares a bench for its lease may take longer than an answer usually does.
            result = commands.ask(bench, tries=3, **asked, deadman_s=chosen.ttl / 2)
            if result["status"] == "ok":
                return bench, result["data"]
            # Somebody was faster (lease-held), or it could not be prepared: the next one.
            say(f"{bench}: {result['status']} {result['code']}: {result['message']}")
            refused.add(bench)
        if refused and not set(benches.free(*wanted)) - refused:
            benches.listen(chosen.retry)
            refused.clear()
    return None


def secret(bench: str, lease: str, broker: str, holder: str) -> str:
    """What the environment's components need, as a Secret. JSON is YAML, too."""
    addresses = {
        "HILGATE_BROKER": re.sub("//.*@", "//", broker),  # who uses it has a login of its own
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


def hand_over(text: str) -> None:
    """Prints, and closes the pipe: whoever reads it need not wait for the lease's end.

    Raises:
        BrokenPipeError: nobody reads it.
    """
    number = sys.stdout.fileno()
    with sys.stdout:
        print(text)
    os.close(number)  # Python leaves that of standard output open


def keep(benches: Benches, commands: Commands, bench: str, lease: str, ttl: float, ending: list[int]) -> str:
    """Renews the lease until a signal comes, or until the bench is lost: the answer is why."""
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
    parser.add_argument("--mode", choices=("hil", "sil"), help="only real benches, or only simulated ones")
    parser.add_argument(
        "--ttl", type=float, default=60.0, help="how long a lease lasts that nobody renews, in s"
    )
    parser.add_argument("--wait", type=float, default=60.0, help="how long to look for a bench, in s")
    parser.add_argument(
        "--patience", type=float, default=30.0, help="how long the bench may be in fault or maintenance, in s"
    )
    parser.add_argument(
        "--answer", type=float, default=10.0, help="how long to wait for an answer before asking again, in s"
    )
    parser.add_argument("--retry", type=float, default=5.0, help="when to ask those again that refused, in s")
    chosen = parser.parse_args()

    ending: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ending.append(number))
    try:
        with contextlib.closing(
            BlockingConnection(chosen.broker, timeout=10, heartbeat=IDLE_S)
        ) as connection:
            benches, commands = Benches(connection, chosen.patience), Commands(connection, chosen.answer)
            return run(benches, commands, chosen, ending)
    except (ProtonException, OSError) as error:
        # Nobody renews the lease now: its dead-man switch makes the bench safe, and then it ends.
        say(f"the broker is lost: {error}")
        return 3


def run(benches: Benches, commands: Commands, chosen: argparse.Namespace, ending: list[int]) -> int:
    """From looking for a bench to its release; the exit code."""
    found = reserve(benches, commands, chosen, ending)
    if found is None:
        say("no bench to be had")
        return 1
    bench, granted = found
    say(f"{bench} is ours until {granted['expires']}, as lease {granted['id']}")
    try:
        hand_over(secret(bench, granted["lease"], chosen.broker, chosen.holder))
        why = keep(benches, commands, bench, granted["lease"], chosen.ttl, ending)
    except BrokenPipeError:
        why = "nobody takes the Secret"
    if why:
        say(f"{bench} is lost: {why}")
    # Also what is lost is given back: a bench in fault may serve others when it is put right.
    result = commands.ask(bench, op="release", lease=granted["lease"])
    say(f"{bench}: release: {result['status']} {result['message']}".rstrip())
    return 2 if why else 0


if __name__ == "__main__":
    sys.exit(main())

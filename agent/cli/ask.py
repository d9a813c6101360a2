"""One command and its result, over a connected client (wire.md section 4)."""

import asyncio
import json
import time
import uuid
from typing import Any

from agent.cli.exits import Exit, Failure
from protocols.amqp.client import Address, Client, Delivery, LinkRefused, Outcome
from protocols.amqp.codec import Message, encode
from protocols.amqp.types import CodecError

Result = dict[str, Any]


async def ask(
    client: Client,
    bench: str,
    body: Result,
    timeout: float,
    *,
    lease: str = "",
    bearer: str = "",
    user: str = "",
) -> Result:
    """Sends a command and waits for the result that echoes its identity; the command expires by then.

    Args:
        client: Connected, or about to be.
        bench: The bench's id.
        body: The command.
        timeout: Seconds to wait.
        lease: The token of a lease to write by, if any.
        bearer: A JWT that says who asks, if any.
        user: The name that the client has logged in with: brokers that vouch for a `user-id` check it.

    Raises:
        Failure: no answer in `timeout` seconds, the broker does not take the command, or what came
            back is no result.
    """
    identity = str(uuid.uuid4())
    answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def on_message(delivery: Delivery) -> None:
        delivery.accept()
        try:
            message = delivery.message()
            if message.correlation_id == identity and not answer.done():
                answer.set_result(_result(message.body))
        except (CodecError, ValueError) as error:
            answer.set_exception(Failure(f"{bench} answered what is no result: {error}"))

    try:
        async with asyncio.timeout(timeout):
            command = _command(body, identity, await client.open_replies(on_message), timeout)
            shown = {"lease": lease, "authorization": bearer and f"Bearer {bearer}"}
            command.properties = {name: secret for name, secret in shown.items() if secret}
            command.user_id = user.encode() or None
            _demand_accepted(await _send(client, bench, encode(command)))
            return await answer
    except LinkRefused as error:
        raise Failure(f"The broker refuses commands to {bench}: {error}") from None
    except TimeoutError:
        text = f"No answer from {bench} within {timeout:g} s; `hilgate watch` shows which benches are there"
        raise Failure(text, Exit.NO_ANSWER) from None


def _command(body: Result, identity: str, reply_to: str, timeout: float) -> Message:
    now_ms, ttl_ms = time.time_ns() // 1_000_000, max(1, round(timeout * 1000))
    return Message(
        body=json.dumps(body).encode(),
        content_type="application/json",
        durable=True,
        message_id=identity,
        reply_to=reply_to,
        creation_ms=now_ms,
        absolute_expiry_ms=now_ms + ttl_ms,
        ttl_ms=ttl_ms,
    )


async def _send(client: Client, bench: str, command: bytes) -> Outcome:
    sender = client.sender(Address(f"hil.{bench}.commands", "queue"))
    try:
        await sender.ready()
        return await sender.post(command)
    finally:
        sender.close()


def _demand_accepted(outcome: Outcome) -> None:
    if outcome.kind != "accepted":
        words = outcome.description or outcome.condition or str(outcome.kind)
        raise Failure(f"The broker did not take the command: {words}")


def _result(body: bytes) -> Result:
    """A result's body.

    Raises:
        ValueError: it is no JSON object.
    """
    result = json.loads(body)
    if not isinstance(result, dict):
        raise ValueError("its body is no JSON object")
    return result

"""The check `broker`: the way to the broker step by step: name, TCP, TLS, login, the bench's addresses."""

import asyncio
import contextlib
import shlex
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping

import msgspec

from agent.connection import client_options
from agent.doctor.case import Case, Look
from agent.doctor.certificates import judge_validity
from agent.doctor.finding import Finding, failed, not_checked, ok, warning
from agent.doctor.login import Addresses, Login, log_in
from agent.settings import Settings
from protocols import tls
from protocols.amqp.options import Options
from protocols.tls import UnusableFile, Validity

_STEPS = ("tcp", "tls", "login", "addresses")
_NEW_THERE = "tell whoever runs the broker: agents will not connect once it is over"


class Broken(Exception):
    """A step of the way failed: `finding` says how, and the steps behind it cannot be tried."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


class Secured(msgspec.Struct, frozen=True):
    """What TLS came to."""

    version: str
    cipher: str
    verified: bool
    server: Validity | None


def judge_unreached(options: Options, error: Exception) -> Finding:
    """Why no TCP connection came about."""
    host, port = options.host, options.port
    if isinstance(error, socket.gaierror | UnicodeError):
        words = getattr(error, "strerror", None) or str(error)
        return failed("tcp", f"the name {host} is not known: {words}", f"getent hosts {shlex.quote(host)}")
    if isinstance(error, ConnectionRefusedError):
        todo = f"is the broker running, and does it listen there? nc -vz {host} {port}"
        return failed("tcp", f"{host}:{port} refused the connection", todo)
    if isinstance(error, TimeoutError):
        todo = f"a firewall, or another network? nc -vz {host} {port}"
        return failed("tcp", f"{host}:{port} did not answer", todo)
    return failed("tcp", f"{host}:{port} cannot be reached: {error}", f"ip route get {shlex.quote(host)}")


def judge_insecure(options: Options, error: Exception) -> Finding:
    """Why TLS did not come about."""
    see = f"openssl s_client -connect {options.host}:{options.port} -servername {options.host}"
    if isinstance(error, ssl.SSLCertVerificationError):
        found = f"the broker's certificate is not accepted: {error.verify_message}"
        return failed("tls", found, _accept(options, error.verify_message, see))
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            return failed(
                "tls", f"no TLS is spoken there ({reason})", "amqp:// instead of amqps://, or another port"
            )
        return failed("tls", f"TLS failed: {reason}", f"does the broker ask for tls_cert? {see}")
    return failed("tls", f"the connection ended in the midst of TLS: {error}", f"is it a TLS port? {see}")


def _accept(options: Options, message: str, see: str) -> str:
    if "Hostname" in message or "IP address" in message:
        return f"name the broker as its certificate does, or have it issued for {options.host}: {see}"
    if "expired" in message or "not yet valid" in message:
        return f"have the broker's certificate renewed, unless this host's clock is wrong: {see}"
    return f"put the authority that issued it into tls_ca (and all between): {see} -showcerts"


def judge_secured(facts: Secured, now: float) -> Iterator[Finding]:
    """What is to be said of TLS that came about."""
    found = f"{facts.version}, {facts.cipher}"
    if facts.verified:
        yield ok("tls", f"{found}, the broker's certificate is accepted")
    else:
        todo = "give tls_ca and leave tls_verify at true"
        yield warning("tls", f"{found}, and anybody may be at the other end (tls_verify: false)", todo)
    if facts.server is not None:
        yield judge_validity("broker's certificate", facts.server, now, _NEW_THERE)


def judge_login(options: Options, login: Login) -> Finding:
    """What is to be said of SASL and the open frames."""
    ways = ", ".join(options.mechanisms)
    if login.refusal:
        return failed("login", login.refusal, _log_in(options, login.refusal))
    product = f"{login.product or 'a broker without a name'} {login.version}".rstrip()
    who = options.username or ("certificate" if ways == "EXTERNAL" else "anonymous")
    found = f"as {who} (SASL {ways}) in {login.seconds * 1e3:.0f} ms; {product}, flavour {login.flavour}"
    return ok("login", found)


def _log_in(options: Options, refusal: str) -> str:
    if "offers none of these ways" in refusal:
        if "ANONYMOUS" in options.mechanisms:
            return "give username and password_file, or tls_cert and tls_key"
        return "switch that way on in the broker"
    if "does not speak AMQP 1.0" in refusal:
        return "another port? RabbitMQ 3 needs: rabbitmq-plugins enable rabbitmq_amqp1_0"
    if "does not accept the credentials" in refusal:
        return "is the user there, with this password? docs/brokers.md makes one for each broker"
    return "the broker's log says more"


def judge_addresses(bench: str, login: Login, found: Addresses) -> Iterator[Finding]:
    """What is to be said of the bench's commands queue and of availability."""
    queue = f"hil.{bench}.commands"
    size = f", messages up to {login.max_message_size} bytes" if login.max_message_size else ""
    if not found.commands:
        yield ok(queue, "can be received from (no message was taken)")
    elif _is_missing(found.commands) and login.flavour in ("rabbitmq", "rabbitmq3"):
        words = "it is not there yet; the agent makes a classic queue of it when it starts"
        todo = "for one that outlives a killed broker: rabbitmqctl import_definitions FILE (docs/brokers.md)"
        yield warning(queue, words, todo)
    else:
        yield failed(queue, found.commands, permit(login.flavour, found.commands))
    if not found.availability:
        yield ok("hil.availability", f"can be sent to (nothing was sent){size}")
    else:
        yield failed("hil.availability", found.availability, permit(login.flavour, found.availability))


def _is_missing(refusal: str) -> bool:
    return "amqp:not-found" in refusal or "no queue" in refusal.lower() or "NOT_FOUND" in refusal


def permit(flavour: str, refusal: str) -> str:
    """What to do about an address that the broker refuses; the commands are those of docs/brokers.md."""
    match flavour:
        case "artemis":
            return "the <security-setting> of docs/brokers.md in broker.xml, for the agent's role"
        case "rabbitmq":
            return (
                "rabbitmqctl set_permissions hil-agent '^(hil|hilgate)\\.'"
                " '^(hil|hilgate)\\.|^amq\\.(topic|default)$' '^(hil|hilgate)\\.|^amq\\.topic$'"
            )
        case "rabbitmq3":
            return (
                "rabbitmqctl set_permissions hil-agent '^(hil|hilgate|amq)\\.'"
                " '^(hil|hilgate)\\.|^amq\\.' '^(hil|hilgate)\\.|^amq\\.'"
            )
    if _is_missing(refusal):
        return "make it on the broker; with flavour generic queue_prefix and topic_prefix go before the names"
    return "let the agent's user receive from and send to hil.# on the broker"


def parts(case: Case) -> Mapping[str, Look]:
    """One look along the whole way."""

    async def look() -> list[Finding]:
        settings = case.settings
        if settings is None:
            return [not_checked("", case.no_settings)]
        try:
            options = client_options(settings, role="doctor")
        except (OSError, ValueError) as error:
            return [failed("login", str(error), "docs/settings.md")]
        findings: list[Finding] = []
        try:
            async for finding in _way(settings, options, case.limit):
                findings.append(finding)  # noqa: PERF401  # what came before a broken step is kept
        except Broken as broken:
            findings.append(broken.finding)
            behind = _STEPS[_STEPS.index(broken.finding.subject) + 1 :]
            why = f"{broken.finding.subject} failed"
            findings += [not_checked(step, why) for step in behind if step != "tls" or options.secure]
        return findings

    return {"": look}


async def _way(settings: Settings, options: Options, limit: float) -> AsyncIterator[Finding]:
    """What is found along the way.

    Raises:
        Broken: it goes no further.
    """
    yield await _reach(options, limit)
    if options.secure:
        for finding in judge_secured(await _secure(options, limit), time.time()):
            yield finding
    try:
        async with asyncio.timeout(limit), log_in(settings, options) as login:
            finding = judge_login(options, login)
            if login.refusal:
                raise Broken(finding)
            yield finding
            found = await login.addresses(settings.bench)
            for finding in judge_addresses(settings.bench, login, found):
                yield finding
    except TimeoutError:
        todo = "the broker's log says more; with --timeout it gets more time"
        raise Broken(failed("login", f"the broker did not answer in {limit:g} s", todo)) from None


async def _reach(options: Options, limit: float) -> Finding:
    began = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(options.host, options.port)
    except (OSError, UnicodeError) as error:
        raise Broken(judge_unreached(options, error)) from error
    took = (time.monotonic() - began) * 1e3
    address = writer.get_extra_info("peername")[0]
    writer.close()
    return ok("tcp", f"{options.host} is {address}, port {options.port} answers in {took:.1f} ms")


async def _secure(options: Options, limit: float) -> Secured:
    try:
        context = options.tls_context()
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(options.host, options.port, ssl=context)
    except UnusableFile as error:
        raise Broken(failed("tls", str(error), "look at the rows of `certificates`")) from error
    except (OSError, TimeoutError) as error:
        raise Broken(judge_insecure(options, error)) from error
    made = writer.get_extra_info("ssl_object")
    writer.close()
    certificate = made.getpeercert(binary_form=True)
    with contextlib.suppress(ValueError):
        server = None if certificate is None else tls.validity(certificate)
        verified = made.context.verify_mode is ssl.CERT_REQUIRED
        return Secured(made.version(), made.cipher()[0], verified, server)
    raise Broken(failed("tls", "the broker's certificate cannot be read", "have it issued anew"))

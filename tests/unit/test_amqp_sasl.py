"""The server's side of SASL, spoken to by proton's client and by hostile bytes."""

import proton
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.amqp.sasl import SaslServer, SaslState

AMQP_HEADER = b"AMQP\0\1\0\0"


def negotiate(
    server: SaslServer, mechanism: str, user: str | None = None, password: str | None = None
) -> tuple[proton.Transport, bytes]:
    """proton's client against the server; gives the client's transport and what follows the negotiation."""
    transport, connection = proton.Transport(), proton.Connection()
    if user is not None and password is not None:
        connection.user, connection.password = user, password
    sasl = transport.sasl()
    sasl.allowed_mechs(mechanism)
    sasl.allow_insecure_mechs = True
    transport.bind(connection)
    connection.open()
    rest = b""
    while (pending := transport.pending()) > 0:
        said = transport.peek(pending) or b""
        transport.pop(pending)
        if server.state is not SaslState.GOING_ON:
            rest += said
            continue
        answer, more = server.feed(said)
        rest += more
        transport.push(answer)
    return transport, rest


def verify(user: str, password: str) -> bool:
    return (user, password) == ("pump", "säcret")


@pytest.mark.parametrize(
    ("mechanism", "user", "password", "state", "known"),
    [
        ("PLAIN", "pump", "säcret", SaslState.DONE, "pump"),
        ("PLAIN", "pump", "wrong", SaslState.FAILED, None),
        ("ANONYMOUS", None, None, SaslState.DONE, None),
    ],
)
def test_protons_client_is_answered(
    mechanism: str, user: str | None, password: str | None, state: SaslState, known: str | None
) -> None:
    server = SaslServer(verify, anonymous=True)
    _, rest = negotiate(server, mechanism, user, password)
    assert (server.state, server.user) == (state, known)
    assert rest.startswith(AMQP_HEADER) == (state is SaslState.DONE)


def test_only_what_is_allowed_is_offered() -> None:
    assert SaslServer(verify, anonymous=False).mechanisms == ("PLAIN",)
    assert SaslServer(None, anonymous=True).mechanisms == ("ANONYMOUS",)
    transport, _ = negotiate(SaslServer(verify, anonymous=False), "ANONYMOUS")
    assert "mech=none" in str(transport.condition)


def test_without_a_sasl_layer_only_the_anonymous_come_in() -> None:
    server = SaslServer(verify, anonymous=True)
    assert server.feed(AMQP_HEADER + b"rest") == (b"", AMQP_HEADER + b"rest")
    strict = SaslServer(verify, anonymous=False)
    assert strict.feed(AMQP_HEADER) == (b"AMQP\3\1\0\0", b"")
    assert strict.state is SaslState.FAILED


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0\0\7\2\1\0\0",  # shorter than its own header
        b"\xff\xff\xff\xff\2\1\0\0",  # four gigabytes
        b"\0\0\0\x0c\2\0\0\0\0S\x10\x45",  # an AMQP frame
        b"\0\0\0\x0c\4\1\0\0\0S\x41\x45",  # its data offset leads past its end
        b"\0\0\0\x0c\2\1\0\0\0S\x41\x45",  # a sasl-init without a mechanism
        b"\0\0\0\x0c\2\1\0\0\0S\x44\x45",  # an outcome, of a client
        b"\0\0\0\x11\2\1\0\0\0S\x41\xc0\4\1\xa3\1\xff",  # a mechanism that is no ASCII
        b"\0\0\0\x15\2\1\0\0\0S\x41\xc0\x08\1\xa3\5PLAIN",  # PLAIN without a response
        b"\0\0\0\x18\2\1\0\0\0S\x41\xc0\x0b\2\xa3\5PLAIN\xa0\1\0",  # and with one part of three
    ],
)
def test_bad_frames_fail_the_negotiation(frame: bytes) -> None:
    server = SaslServer(verify, anonymous=True)
    server.feed(b"AMQP\3\1\0\0")
    server.feed(frame)
    assert server.state is SaslState.FAILED


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_hostile_bytes_never_authenticate(chunks: list[bytes], after_header: bool) -> None:
    server = SaslServer(verify, anonymous=False)
    if after_header:
        server.feed(b"AMQP\3\1\0\0")
    for chunk in chunks:
        if server.state is SaslState.GOING_ON:
            server.feed(chunk)
    assert server.state is not SaslState.DONE


@given(st.integers(1, 60))
def test_frames_in_pieces_are_put_together(size: int) -> None:
    whole = SaslServer(verify, anonymous=True)
    transport, connection = proton.Transport(), proton.Connection()
    connection.user, connection.password = "pump", "säcret"
    sasl = transport.sasl()
    sasl.allowed_mechs("PLAIN")
    sasl.allow_insecure_mechs = True
    transport.bind(connection)
    while whole.state is SaslState.GOING_ON:
        pending = transport.pending()
        said = transport.peek(pending) or b""
        transport.pop(pending)
        for start in range(0, len(said), size):
            transport.push(whole.feed(said[start : start + size])[0])
    assert whole.user == "pump"

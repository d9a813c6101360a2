"""A client's options: what cannot work is refused when they are made, in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from protocols.amqp.options import Options
from protocols.tls import Files

CERT = Files(cert=Path("client.pem"), key=Path("client.key"))


def options(url: str, **more: Any) -> Options:
    return Options(url=url, container_id="test", **more)


@pytest.mark.parametrize(
    ("url", "more", "words"),
    [
        ("broker.example:5672", {}, "write the broker as"),
        ("http://broker.example", {}, "write the broker as"),
        ("amqp://", {}, "write the broker as"),
        ("amqp://broker.example:99999", {}, "port"),
        ("amqp://user:secret@broker.example", {}, "holds no user name"),
        ("amqp://broker.example", {"username": "u", "password": "p"}, "without TLS"),
        ("amqps://broker.example", {"sasl": ("PLAIN",)}, "needs a user name"),
        ("amqps://broker.example", {"sasl": ("EXTERNAL",)}, "EXTERNAL needs amqps:// and a certificate"),
        ("amqp://broker.example", {"sasl": ("EXTERNAL",), "tls": CERT}, "EXTERNAL needs amqps://"),
        ("amqps://broker.example", {"username": "u"}, "needs a user name and a password"),
    ],
)
def test_options_that_cannot_work_are_refused(url: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        options(url, **more)


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="holds no user name") as caught:
        options("amqp://user:secret@broker.example")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "secure"),
    [
        ("amqp://broker.example", "broker.example", 5672, False),
        ("amqps://broker.example", "broker.example", 5671, True),
        ("amqp://[::1]:1234", "::1", 1234, False),
    ],
)
def test_urls(url: str, host: str, port: int, secure: bool) -> None:
    made = options(url)
    assert (made.host, made.port, made.secure) == (host, port, secure)


def test_the_mechanism_follows_from_what_is_given() -> None:
    assert options("amqp://b.example").mechanisms == ("ANONYMOUS",)
    assert options("amqps://b.example", username="u", password="p").mechanisms == ("PLAIN",)
    assert options("amqps://b.example", tls=CERT).mechanisms == ("EXTERNAL",)
    assert options("amqp://b.example", tls=CERT).mechanisms == ("ANONYMOUS",)
    assert options("amqps://b.example", tls=CERT, sasl=("ANONYMOUS",)).mechanisms == ("ANONYMOUS",)


def test_a_password_leaves_only_over_tls_or_where_it_was_allowed() -> None:
    assert options("amqps://b.example", username="u", password="p").client_sasl().plain_allowed
    assert (
        options("amqp://b.example", username="u", password="p", allow_plain=True).client_sasl().plain_allowed
    )
    assert not options("amqp://b.example").client_sasl().plain_allowed


def test_a_missing_certificate_file_is_an_os_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        options("amqps://b.example", tls=Files(ca=Path("nowhere.pem"))).tls_context()

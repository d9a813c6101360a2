"""Where an OPC UA server is, and as whom it is spoken to."""

import pytest
from pydantic import ValidationError

from protocols.opcua.config import Connection, User


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("opc.tcp://plc.example", "opc.tcp://plc.example:4840"),
        ("opc.tcp://plc.example/line/1", "opc.tcp://plc.example:4840/line/1"),
        ("opc.tcp://[::1]", "opc.tcp://[::1]:4840"),
        ("opc.tcp://plc.example:", "opc.tcp://plc.example:4840"),
        ("opc.tcp://plc.example:48010/x", "opc.tcp://plc.example:48010/x"),
    ],
)
def test_a_url_without_a_port_means_the_registered_one(written: str, meant: str) -> None:
    assert Connection.model_validate({"url": written, "security": {"policy": "None"}}).url == meant


@pytest.mark.parametrize("url", ["http://plc.example", "opc.tcp://", "opc.tcp://plc.example:70000"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        Connection.model_validate({"url": url, "security": {"policy": "None"}})


def test_a_user_has_a_name() -> None:
    with pytest.raises(ValidationError, match="name"):
        User.model_validate({"name": "", "password_file": "secret"})

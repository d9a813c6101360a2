"""What a profile may say of a Modbus device, and where each mistake is shown."""

from typing import Any

import pytest
from pydantic import ValidationError

from protocols.modbus import PROTOCOL
from protocols.modbus.config import ModbusDevice


def device(points: dict[str, Any], **fields: Any) -> ModbusDevice:
    whole = {
        "protocol": "modbus",
        "connection": {"transport": "tcp", "host": "plc.example", "port": 502, "unit": 1},
        "address_base": 0,
        "points": points,
    }
    return ModbusDevice.model_validate(whole | fields)


def test_the_profile_of_the_documentation() -> None:
    made = device(
        {
            "speed": {"table": "input", "address": 0, "type": "float32", "order": "ABCD", "unit": "rpm"},
            "setpoint": {
                "table": "holding",
                "address": 10,
                "type": "uint16",
                "scale": 0.1,
                "access": "rw",
                "min": 0,
                "max": 3000,
                "safe": 0,
                "unit": "rpm",
            },
            "running": {"table": "coil", "address": 3, "access": "rw", "safe": False},
        },
        poll="100ms",
    )
    assert made.poll == 0.1
    assert [point.width for point in made.points.values()] == [2, 1, 1]
    assert made.points["running"].kind == "boolean"
    assert made.points["setpoint"].accept(1500) == 1500


@pytest.mark.parametrize(
    ("fields", "loc", "words"),
    [
        ({"table": "coil", "address": 0, "type": "uint16"}, "type", "only type is bool"),
        ({"table": "coil", "address": 0, "bit": 3}, "bit", "only registers have bits"),
        ({"table": "holding", "address": 0, "type": "bool"}, "type", "needs bit"),
        ({"table": "holding", "address": 0, "bit": 1, "type": "uint16"}, "type", "single bit"),
        ({"table": "holding", "address": 0, "bit": 16}, "bit", "less than or equal to 15"),
        ({"table": "holding", "address": 0, "bits": "7..4"}, "bits", "such as 4..7"),
        ({"table": "holding", "address": 0, "bits": "4..7", "type": "int32"}, "type", "uint16"),
        ({"table": "input", "address": 0, "access": "rw"}, "access", "can only be read"),
        ({"table": "input", "address": 0, "type": "string"}, "length", "need a length"),
        ({"table": "input", "address": 0, "length": 4}, "length", "no other type"),
        ({"table": "input", "address": 0, "type": "string", "length": 4, "order": "CDAB"}, "order", "BADC"),
        ({"table": "input", "address": 0, "scale": 0}, "scale", "size of scale"),
        (
            {"table": "input", "address": 0, "type": "string", "length": 4, "scale": 2},
            "scale",
            "only numbers",
        ),
        ({"table": "coil", "address": 0, "max": 1}, "max", "only numbers"),
        ({"table": "input", "address": 0, "type": "float32", "labels": {0: "off"}}, "labels", "integer type"),
        ({"table": "input", "address": 0, "labels": {0: "off", 1: "off"}}, "labels", "each of them once"),
        ({"table": "input", "address": 0, "labels": {}}, "labels", "at least one"),
        ({"table": "input", "address": 0, "labels": {70000: "off"}}, "labels.70000", "0 to 65535"),
        ({"table": "input", "address": 65536}, "address", "past the end"),
        ({"table": "input", "address": 65535, "type": "float32"}, "address", "at most 65534"),
        ({"table": "input", "address": 0, "colour": "red"}, "colour", "Extra inputs"),
    ],
)
def test_each_mistake_is_shown_at_its_field(fields: dict[str, Any], loc: str, words: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        device({"p": fields})
    (error,) = wrong.value.errors()
    assert ".".join(map(str, error["loc"])) == f"points.p.{loc}"
    assert words in error["msg"]


def test_all_mistakes_of_a_device_at_once() -> None:
    with pytest.raises(ValidationError) as wrong:
        device(
            {
                "a": {"table": "input", "address": 0, "access": "rw", "scale": 0},
                "b": {"table": "coil", "address": -1},
            },
            depth=0,
        )
    assert {".".join(map(str, error["loc"])) for error in wrong.value.errors()} == {
        "points.a.access",
        "points.a.scale",
        "points.b.address",
        "depth",
    }


def test_addresses_start_where_the_base_says() -> None:
    with pytest.raises(ValidationError, match="the first address is 1"):
        device({"p": {"table": "input", "address": 0}}, address_base=1)
    device({"p": {"table": "input", "address": 65536}}, address_base=1)


def test_the_base_must_be_said() -> None:
    with pytest.raises(ValidationError, match="address_base"):
        ModbusDevice.model_validate(
            {"protocol": "modbus", "connection": {"transport": "tcp", "host": "plc.example"}, "points": {}}
        )


def test_rtu_takes_one_request_at_a_time() -> None:
    with pytest.raises(ValidationError, match="one request at a time"):
        device({}, connection={"transport": "rtu", "port": "/dev/ttyUSB0"}, depth=2)


def test_a_point_wider_than_a_request() -> None:
    with pytest.raises(ValidationError, match="max_registers"):
        device({"p": {"table": "input", "address": 0, "type": "string", "length": 20}}, max_registers=8)


@pytest.mark.parametrize(
    ("connection", "wrong"),
    [
        ({"transport": "tls", "host": "plc.example", "key": "k.pem"}, "a key needs its cert"),
        ({"transport": "rtu", "port": "/dev/ttyUSB0", "unit": 0}, "unit"),
        ({"transport": "rtu-tcp", "host": "plc.example"}, "port"),
        ({"transport": "udp", "host": "plc.example"}, "transport"),
    ],
)
def test_wrong_connections(connection: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        device({}, connection=connection)


@pytest.mark.parametrize(
    "connection",
    [
        {"transport": "tls", "host": "plc.example", "ca": "ca.pem", "cert": "c.pem"},
        {
            "transport": "rtu",
            "port": "/dev/ttyUSB0",
            "baudrate": 9600,
            "parity": "none",
            "stopbits": 2,
            "unit": 17,
        },
        {"transport": "rtu-tcp", "host": "plc.example", "port": 4001},
    ],
)
def test_other_transports(connection: dict[str, Any]) -> None:
    assert device({}, connection=connection).connection.transport == connection["transport"]


def test_the_protocol_is_found_by_its_entry_point() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="hilgate.protocols", name="modbus")
    assert found.load() is PROTOCOL
    assert PROTOCOL.config() is ModbusDevice


def test_each_method_that_is_announced_exists() -> None:
    from protocols.modbus.calls import METHODS

    assert set(PROTOCOL.methods) == set(METHODS)

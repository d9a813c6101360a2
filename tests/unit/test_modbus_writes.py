"""Writes: neighbours in one request, in the order given, and masks for what is only part of a register."""

from typing import Any

import pytest

from protocols.base import Refused, Value
from protocols.modbus.config import ModbusDevice
from protocols.modbus.writes import Step, steps

POINTS: dict[str, Any] = {
    "a": {"table": "holding", "address": 10},
    "b": {"table": "holding", "address": 11, "type": "float32"},
    "c": {"table": "holding", "address": 13, "scale": 0.1},
    "far": {"table": "holding", "address": 20},
    "bit": {"table": "holding", "address": 30, "bit": 0},
    "field": {"table": "holding", "address": 30, "bits": "4..7"},
    "swapped": {"table": "holding", "address": 31, "bit": 0, "order": "BADC"},
    "coil0": {"table": "coil", "address": 0},
    "coil1": {"table": "coil", "address": 1},
}


def plan(values: dict[str, Value], **fields: Any) -> list[Step]:
    device = {
        "protocol": "modbus",
        "connection": {"transport": "tcp", "host": "plc.example"},
        "address_base": 0,
        "points": {name: fields | {"access": "rw"} for name, fields in POINTS.items()},
    }
    return steps(ModbusDevice.model_validate(device | fields), values)


def test_neighbours_go_together() -> None:
    (step,) = plan({"c": 1.5, "a": 7, "b": 1.0})
    assert step == Step("registers", 10, 4, b"\0\7\x3f\x80\0\0\0\x0f", ("a", "b", "c"))


def test_nothing_between_is_written() -> None:
    assert [step.points for step in plan({"a": 1, "far": 2})] == [("a",), ("far",)]


def test_steps_keep_the_order_given() -> None:
    assert [step.points for step in plan({"coil0": True, "far": 2, "a": 1})] == [("coil0",), ("far",), ("a",)]


def test_coils() -> None:
    assert plan({"coil1": True, "coil0": False}) == [Step("coils", 0, 2, b"\2", ("coil0", "coil1"))]


def test_fields_of_one_register_are_one_mask() -> None:
    (step,) = plan({"field": 5, "bit": True})
    assert (step.kind, step.start, step.data, step.mask) == ("mask", 30, b"\0\x51", 0xF1)


def test_a_mask_is_in_the_order_of_the_wire() -> None:
    (step,) = plan({"swapped": True})
    assert (step.data, step.mask) == (b"\1\0", 0x0100)


def test_limits_of_the_device_hold() -> None:
    assert [step.points for step in plan({"a": 1, "b": 1.0, "c": 1}, max_registers=2)] == [
        ("a",),
        ("b",),
        ("c",),
    ]
    assert [step.points for step in plan({"a": 1, "b": 1.0}, one_request_per_point=True)] == [("a",), ("b",)]


def test_a_value_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(Refused):
        plan({"a": 70000})

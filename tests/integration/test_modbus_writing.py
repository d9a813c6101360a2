"""Writes on a line: functions, fallbacks, and what was written when something fails."""

import asyncio
from typing import Any

import pytest
from scripted import (
    Peer,
    always_right,
    connected,
    recorded,
    tcp_device,
)

from protocols.base import DriverError
from protocols.modbus import pdu

WRITABLE: dict[str, Any] = {
    "one": {"table": "holding", "address": 1, "access": "rw"},
    "wide": {"table": "holding", "address": 2, "type": "float32", "access": "rw"},
    "scaled": {"table": "holding", "address": 8, "scale": 0.1, "access": "rw"},
    "bit": {"table": "holding", "address": 3, "bit": 0, "access": "rw"},
    "coil": {"table": "coil", "address": 5, "access": "rw"},
    "coil2": {"table": "coil", "address": 6, "access": "rw"},
}


async def test_functions_are_chosen_well() -> None:
    seen: list[bytes] = []
    async with tcp_device(recorded(seen)) as connection, connected(connection, points=WRITABLE) as driver:
        del seen[:]
        await driver.write({"scaled": 1.04})
        await driver.write({"one": 7, "wide": 1.0})
        await driver.write({"coil": True})
        await driver.write({"coil": True, "coil2": False})
        await driver.write({"bit": True})
    assert seen == [
        pdu.write_register(8, b"\0\x0a"),
        pdu.write_registers(1, b"\0\7\x3f\x80\0\0"),
        pdu.write_coil(5, True),
        pdu.write_coils(5, 2, b"\1"),
        pdu.mask_write(3, 0xFFFE, 1),
    ]


async def test_what_a_write_gives_back_is_what_the_register_holds() -> None:
    async with tcp_device(recorded([])) as connection, connected(connection, points=WRITABLE) as driver:
        assert (await driver.write({"scaled": 1500.04})).values == {"scaled": 1500.0}


async def test_functions_that_a_device_lacks_are_gone_round_and_remembered() -> None:
    seen: list[bytes] = []
    script = recorded(seen, lacking=(5, 6, 22))
    async with tcp_device(script) as connection, connected(connection, points=WRITABLE) as driver:
        del seen[:]
        for _ in range(2):
            await driver.write({"one": 7, "coil": True, "bit": True})
    functions = [request[0] for request in seen]
    assert functions == [6, 16, 5, 15, 22, 3, 16, 16, 15, 3, 16]
    assert seen[6] == pdu.write_registers(3, b"\0\3")  # register 3 held 3, and bit 0 of it was set already


@pytest.mark.parametrize(("mask_write", "functions"), [("no", [3, 6]), ("yes", [22])])
async def test_mask_write_can_be_settled(mask_write: str, functions: list[int]) -> None:
    seen: list[bytes] = []
    async with tcp_device(recorded(seen)) as connection:
        async with connected(connection, points=WRITABLE, mask_write=mask_write) as driver:
            del seen[:]
            await driver.write({"bit": False})
    assert [request[0] for request in seen] == functions


async def test_bits_of_one_register_written_at_once_do_not_undo_each_other() -> None:
    register = 0

    async def script(peer: Peer) -> None:
        nonlocal register
        while True:
            request = await peer.request()
            if request.pdu[0] == 3:
                body = pdu.read_answer(3, register.to_bytes(2))
            else:
                register = int.from_bytes(request.pdu[3:5])
                body = pdu.write_answer(request.pdu)
            peer.send(peer.frame(request, body))

    points = {f"b{n}": {"table": "holding", "address": 0, "bit": n, "access": "rw"} for n in range(16)}
    async with tcp_device(script) as connection:
        async with connected(connection, points=points, mask_write="no") as driver:
            await asyncio.gather(*(driver.write({f"b{n}": True}) for n in range(16)))
    assert register == 0xFFFF


async def test_another_devices_write_to_the_unit_waits_for_a_read_modify_write() -> None:
    seen: list[bytes] = []
    writing: list[asyncio.Task[Any]] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request.pdu)
            if request.pdu == pdu.read(3, 3, 1):
                writing.append(asyncio.create_task(second.write({"whole": 0x7000})))
                await asyncio.sleep(0)  # it has begun
                await asyncio.sleep(0)
            if request.pdu[0] == 3:
                peer.answer(request)
            else:
                peer.send(peer.frame(request, pdu.write_answer(request.pdu)))

    whole = {"whole": {"table": "holding", "address": 3, "access": "wo"}}
    shared: dict[object, object] = {}
    async with (
        tcp_device(script) as connection,
        connected(connection, shared, points=WRITABLE, mask_write="no", depth=2) as first,
        connected(connection, shared, points=whole, depth=2) as second,
    ):
        del seen[:]
        await first.write({"bit": False})
        await writing[0]
    assert seen == [pdu.read(3, 3, 1), pdu.write_register(3, b"\0\2"), pdu.write_register(3, b"\x70\0")]


async def test_a_write_that_fails_on_the_way_says_what_was_written() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        first = await peer.request()
        peer.send(peer.frame(first, pdu.write_answer(first.pdu)))
        second = await peer.request()
        peer.send(peer.frame(second, pdu.exception_answer(second.pdu[0], 4)))
        await always_right(peer)

    async with tcp_device(script) as connection, connected(connection, points=WRITABLE) as driver:
        with pytest.raises(DriverError, match="exception 4") as failed:
            await driver.write({"scaled": 2.0, "one": 7, "coil": True})
        assert failed.value.written == {"scaled": 2.0}
        assert failed.value.code == "device-error"

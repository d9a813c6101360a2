"""Lines with outstations behind them: shared, silent, cut, and a master that is called."""

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from dnp3_far_end import calls, joined, listening, silent
from dnp3_rig import DIRECT, INTEGRITY, READ, FarEnd, device, outstations
from py1815 import link
from waiting import until

from protocols.base import DriverError
from protocols.dnp3.channel import join, part
from protocols.dnp3.fragment import NotSent

SECOND = 11


# Shared lines.


async def test_outstations_share_one_connection_and_the_last_one_closes_it() -> None:
    far, other = FarEnd(), FarEnd(SECOND)
    shared: dict[Any, Any] = {}
    async with outstations(far, other) as place:
        async with joined(place.connection, shared) as first:
            async with joined(place.connection, shared, outstation=SECOND) as second:
                await asyncio.gather(first.channel.open(5), second.channel.open(5))
                replies = await asyncio.gather(first.ask(READ, INTEGRITY), second.ask(READ, INTEGRITY))
                assert all(reply.blocks for reply in replies)
                assert len(place.lines) == 1
            await first.ask(READ, INTEGRITY)
            with pytest.raises(NotSent, match="the device was closed"):
                await second.ask(READ)
            assert shared
        assert not shared


async def test_a_line_has_one_set_of_settings_and_each_outstation_once() -> None:
    connection = {"transport": "tcp", "host": "127.0.0.1", "port": 20001}
    shared: dict[Any, Any] = {}
    async with joined(connection, shared):
        with pytest.raises(DriverError, match="in use by another device with other settings"):
            join(device({**connection, "role": "listen"}, outstation=SECOND), shared)
        with pytest.raises(DriverError, match=r"outstation 10 of 127\.0\.0\.1:20001 is in use"):
            join(device(connection), shared)


async def test_what_is_asked_of_a_line_that_is_not_open_is_not_sent() -> None:
    async with joined({"transport": "tcp", "host": "127.0.0.1", "port": 20001}) as station:
        with pytest.raises(NotSent, match=r"127\.0\.0\.1:20001 is not connected"):
            await station.ask(DIRECT)
        assert await station.channel.lost() == "127.0.0.1:20001 is not connected"


async def test_frames_of_nobody_and_noise_count_for_all() -> None:
    far, other = FarEnd(), FarEnd(SECOND)
    shared: dict[Any, Any] = {}
    async with (
        outstations(far, other) as place,
        joined(place.connection, shared) as first,
        joined(place.connection, shared, outstation=SECOND) as second,
    ):
        await first.channel.open(5)
        await first.ask(READ, INTEGRITY)
        far.write(b"noise" + far.frames(b"\xc0\x82\0\0", source=99)[0])
        await first.ask(READ, INTEGRITY)
        assert first.dropped == second.dropped == {"octets between frames": 5, "unknown source": 1}


async def test_a_silent_outstation_rests_and_its_neighbour_keeps_the_line() -> None:
    far, dead = FarEnd(), FarEnd(SECOND)
    dead.twist = silent
    shared: dict[Any, Any] = {}
    async with (
        outstations(far, dead) as place,
        joined(place.connection, shared) as station,
        joined(place.connection, shared, outstation=SECOND, timeout="100ms") as other,
    ):
        await station.channel.open(5)
        await station.ask(READ, INTEGRITY)
        began = asyncio.get_running_loop().time()
        for _ in range(4):
            with pytest.raises(DriverError, match=r"outstation 11 .* did not answer in 100ms"):
                await other.ask(READ, INTEGRITY, report=True)
        assert asyncio.get_running_loop().time() - began >= 0.1 * (4 + 2 + 4), "it rested before the last two"
        await station.ask(READ, INTEGRITY)
        assert len(place.lines) == 1
        dead.twist = None
        assert (await other.ask(DIRECT, b"")).blocks == [], "a command does not wait"
        await other.ask(READ, INTEGRITY, report=True)


# Lost lines.


async def test_a_line_that_ends_fails_all_and_says_so() -> None:
    far = FarEnd()
    far.twist = silent
    async with outstations(far) as place, joined(place.connection) as station:
        await station.channel.open(5)
        asks = [asyncio.create_task(station.ask(DIRECT)) for _ in range(2)]
        lost = asyncio.create_task(station.channel.lost())
        await until(lambda: far.asked)
        place.lines[0].hang_up()
        first, second = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(first, DriverError)
        assert (first.code, isinstance(first, NotSent)) == ("disconnected", False)
        assert isinstance(second, NotSent), "it was still waiting for its turn"
        assert "the outstation closed the connection" in await lost
        far.twist = None
        await station.channel.open(5)
        await station.ask(READ, INTEGRITY)
        assert far.functions() == [DIRECT, READ]


async def test_a_connection_on_which_nothing_comes_is_given_up() -> None:
    far = FarEnd()
    far.twist = silent
    async with outstations(far) as place, joined(place.connection, timeout="50ms") as station:
        await station.channel.open(5)
        for _ in range(3):
            assert station.channel.is_open
            with pytest.raises(DriverError, match="did not answer in 50ms"):
                await station.ask(READ)
        assert await station.channel.lost() == (
            f"{station.channel.name}: the connection was given up: it does not answer any more"
        )


async def test_a_connection_on_which_something_comes_is_kept() -> None:
    far = FarEnd()
    far.twist = silent
    async with outstations(far) as place, joined(place.connection, timeout="50ms") as station:
        await station.channel.open(5)
        for _ in range(5):
            with pytest.raises(DriverError, match="did not answer in 50ms"):
                await station.ask(READ)
            await far.until_confirmed(far.report(b""), unsolicited=True)
        assert station.channel.is_open


async def test_a_link_that_says_nothing_is_lost() -> None:
    far = FarEnd()
    far.answers_link = False
    async with (
        outstations(far) as place,
        joined(place.connection, keep_alive="50ms", timeout="50ms") as station,
    ):
        await station.channel.open(5)
        assert "it does not answer any more" in await station.channel.lost()
        assert far.link_asked == 1


async def test_leaving_while_the_line_opens_leaves_nothing_open() -> None:
    async with outstations(FarEnd()) as place:
        shared: dict[Any, Any] = {}
        station = join(device(place.connection), shared)
        opening = asyncio.create_task(station.channel.open(5))
        await asyncio.sleep(0)
        await part(station, shared)
        await opening
        assert not station.channel.is_open


async def test_listening_that_is_cancelled_leaves_nothing_open() -> None:
    for steps in range(8):
        connection, shared = listening(), dict[Any, Any]()
        station = join(device(connection), shared)
        opening = asyncio.create_task(station.channel.open(60))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await part(station, shared)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", connection["port"])


async def test_who_sends_and_never_reads_loses_the_line_before_the_memory_is_full() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        place = {"transport": "tcp", "host": "127.0.0.1", "port": server.getsockname()[1]}
        far, loop = FarEnd(), asyncio.get_running_loop()
        control = link.control_byte(
            from_master=False, primary=True, function=link.PrimaryFunction.REQUEST_LINK_STATUS
        )
        flood = link.build(control, far.master, far.address) * 1000
        async with joined(place) as station:
            await station.channel.open(5)
            peer, _ = await loop.sock_accept(server)
            with peer, contextlib.suppress(ConnectionError):
                while station.channel.is_open:
                    await loop.sock_sendall(peer, flood)
            assert "does not read what is sent to it" in await station.channel.lost()


# A master that is called.


async def test_it_waits_to_be_called_and_goes_on_listening() -> None:
    connection = listening()
    async with joined(connection) as station:
        with pytest.raises(DriverError, match=r"the outstation has not called .* in 50ms") as nobody:
            await station.channel.open(0.05)
        assert nobody.value.code == "timeout"
        async with calls(FarEnd(), connection["port"]):
            await station.channel.open(5)
            await station.ask(READ, INTEGRITY)
        assert "the outstation closed the connection" in await station.channel.lost()
        with pytest.raises(DriverError, match="has not called"):
            await station.channel.open(0.05)
        async with calls(FarEnd(), connection["port"]):
            await station.channel.open(5)
            await station.ask(READ, INTEGRITY)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", connection["port"])


async def test_a_new_call_takes_the_place_of_the_old_connection() -> None:
    connection = listening()
    dead, far = FarEnd(), FarEnd()
    dead.twist = silent
    async with joined(connection) as station:
        with contextlib.suppress(DriverError):
            await station.channel.open(0.01)
        async with calls(dead, connection["port"]):
            await station.channel.open(5)
            under_way = asyncio.create_task(station.ask(DIRECT))
            await until(lambda: dead.asked)
            async with calls(far, connection["port"]):
                with pytest.raises(DriverError, match="the outstation has called again") as lost:
                    await under_way
                assert lost.value.code == "disconnected"
                await station.ask(READ, INTEGRITY)
        assert (dead.functions(), far.functions()) == ([DIRECT], [READ])


async def test_callers_that_may_not_are_hung_up_on_and_counted() -> None:
    connection = listening(accept_from=["127.0.0.1"])
    async with joined(connection) as station:
        with contextlib.suppress(DriverError):
            await station.channel.open(0.01)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", connection["port"], local_addr=("127.0.0.2", 0)
        )
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert station.dropped == {"caller not in accept_from": 1}
        assert not station.channel.is_open
        async with calls(FarEnd(), connection["port"]):
            await station.channel.open(5)
            await station.ask(READ, INTEGRITY)


async def test_an_address_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        connection = listening(port=taken.getsockname()[1])
        async with joined(connection) as station:
            with pytest.raises(DriverError, match="cannot be opened: Address already in use") as failed:
                await station.channel.open(5)
            assert failed.value.code == "disconnected"

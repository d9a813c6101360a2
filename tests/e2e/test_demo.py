"""`hilgate demo`, on a terminal and without one."""

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import socket
from itertools import pairwise

from shell import COMMAND, WAIT_S, environment, hilgate, running


async def test_the_demo_shows_its_points_and_ends_in_time() -> None:
    finished = await hilgate("demo", "hydraulic-rig", "--port", "0", "--for", "10s")
    assert (finished.code, finished.err) == (0, "")
    for word in ("pump-plc", "setpoint", "rpm", "available", "events/s", "good", "0 lost"):
        assert word in finished.out
    assert "\x1b" not in finished.out


async def test_json_prints_every_event_from_the_first_to_offline() -> None:
    finished = await hilgate("demo", "hydraulic-rig", "--port", "0", "--json", "--for", "8s")
    assert (finished.code, finished.err) == (0, "")
    events = finished.lines
    states = [event["data"]["state"] for event in events if event["type"] == "io.hilgate.availability.v1"]
    assert "available" in states
    assert states[-2:] == ["stopping", "offline"]
    for source in {event["source"] for event in events}:
        sequences = [int(event["sequence"]) for event in events if event["source"] == source]
        if "/devices/" in source:
            assert all(later == earlier + 1 for earlier, later in pairwise(sequences))
    assert any(event["type"] == "io.hilgate.samples.v1" for event in events)


async def test_the_printed_commands_work() -> None:
    async with running("demo", "hydraulic-rig", "--port", "0") as demo:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("╰"):
            lines.append(await demo.line())
        said = [shlex.split(line.strip("│ ")) for line in lines[1:-1]]
        (export,) = (words[1].split("=", 1) for words in said if words[0] == "export")
        commands = [words for words in said if words[0] != "export"]
        assert {words[1] for words in commands} == {"send", "watch"}
        for words in commands:
            more = ["--for", "1s"] if words[1] == "watch" else []
            finished = await hilgate(*words[1:], *more, **{export[0]: export[1]})
            assert (finished.code, finished.err) == (0, ""), words
        assert (await demo.end()).code == 0


async def test_a_taken_port_is_no_obstacle() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        finished = await hilgate("demo", "hydraulic-rig", "--port", port, "--for", "1s")
        assert finished.code == 3
        assert f"cannot listen on 127.0.0.1:{port}" in finished.err
    async with (
        running("demo", "hydraulic-rig", "--json") as first,
        running("demo", "hydraulic-rig", "--json") as second,
    ):
        for demo in (first, second):
            await demo.until(lambda event: event["type"] == "io.hilgate.samples.v1")
            assert (await demo.end()).code == 0


async def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "demo",
        "hydraulic-rig",
        "--port",
        "0",
        "--json",
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    os.close(write)
    try:
        with os.fdopen(read) as out:
            json.loads(await asyncio.to_thread(out.readline))
        async with asyncio.timeout(WAIT_S):
            _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_on_a_terminal_it_is_drawn_in_place_until_ctrl_c() -> None:
    terminal, side = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "demo",
        "hydraulic-rig",
        "--port",
        "0",
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        env=environment(TERM="xterm-256color", COLUMNS="110", LINES="50"),
    )
    os.close(side)
    try:
        shown = await asyncio.to_thread(_read_until, terminal, rb"events/s.*\x1b\[1A.*good")
        assert b"\x1b[?25l" in shown
        process.send_signal(signal.SIGINT)
        rest = await asyncio.to_thread(_read_until, terminal, None)
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == 0
        assert b"\x1b[?25h" in rest
        assert b"Traceback" not in shown + rest
    finally:
        os.close(terminal)
        if process.returncode is None:
            process.kill()
            await process.wait()


def _read_until(terminal: int, pattern: bytes | None) -> bytes:
    """What a terminal shows until the pattern is there, or until its program has gone."""
    shown = b""
    while pattern is None or re.search(pattern, shown, re.DOTALL) is None:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the last writer has gone
            return shown
        if not chunk:
            return shown
        shown += chunk
    return shown

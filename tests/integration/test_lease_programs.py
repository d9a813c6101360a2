"""Hooks that run programs: what they are told, how they end, and that nothing of them stays behind."""

import asyncio
import os
from pathlib import Path

import pytest
from waiting import until

from agent.lease.program import run
from protocols.base import DriverError

ENVIRONMENT = {"PATH": os.environ["PATH"]}


async def shell(script: str, folder: Path, timeout: float = 10.0, **environment: str) -> None:
    await run(["/bin/sh", "-c", script], ENVIRONMENT | environment, folder, timeout)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_program_gets_its_words_its_environment_and_its_folder(tmp_path: Path) -> None:
    await run(["/bin/sh", "-c", 'echo "$0 $1 $WHO $PWD" > out', "a b", "$HOME"], {"WHO": "ci"}, tmp_path, 10)
    assert (tmp_path / "out").read_text() == f"a b $HOME ci {tmp_path}\n"


async def test_a_program_that_fails_says_why_with_its_last_lines(tmp_path: Path) -> None:
    script = "seq 100000; echo psu1 is locked; echo call the lab >&2; exit 3"
    with pytest.raises(
        DriverError, match=r"/bin/sh ended with status 3: .*100000 \| psu1 is locked \| call the lab$"
    ) as caught:
        await shell(script, tmp_path)
    assert caught.value.code == "device-error"
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", ["/no/such/program", "bad\x00name", "/etc/passwd"])
async def test_a_program_that_cannot_be_started_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="could not be started"):
        await run([name], ENVIRONMENT, tmp_path, 10)


async def test_a_program_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 300 & echo $! > child; echo waiting; wait"
    with pytest.raises(DriverError, match=r"did not end within 0\.3 s and was killed: waiting") as caught:
        await shell(script, tmp_path, 0.3)
    assert caught.value.code == "timeout"
    child = int((tmp_path / "child").read_text())
    await until(lambda: not alive(child))


async def test_a_program_that_is_cancelled_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > child.new; mv child.new child; wait"
    task = asyncio.create_task(shell(script, tmp_path, 300))
    await until((tmp_path / "child").exists)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    child = int((tmp_path / "child").read_text())
    await until(lambda: not alive(child))


async def test_what_a_program_leaves_running_on_purpose_keeps_nobody_waiting(tmp_path: Path) -> None:
    await shell("sleep 300 & echo $! > child", tmp_path, 5)
    child = int((tmp_path / "child").read_text())
    assert alive(child)
    os.kill(child, 9)


async def test_no_file_is_left_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    await shell("true", tmp_path)
    await asyncio.sleep(0)
    before = count()
    for _ in range(5):
        await shell("echo x", tmp_path)
        with pytest.raises(DriverError):
            await run(["/no/such/program"], ENVIRONMENT, tmp_path, 10)
    await until(lambda: count() <= before)

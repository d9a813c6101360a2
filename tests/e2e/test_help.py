"""The command line itself: help, version, completion and mistakes."""

import pytest
from shell import hilgate

COMMANDS = ["demo", "run", "check", "schema", "broker", "send", "watch", "store", "audit", "safe-state"]
COMMANDS += ["replay", "convert", "signals", "doctor"]


async def test_version_and_overview() -> None:
    version = await hilgate("--version")
    assert (version.code, version.out.split()[0]) == (0, "hilgate")
    overview = await hilgate("--help")
    assert overview.code == 0
    for command in COMMANDS:
        assert f" {command} " in overview.out


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_teaches_itself(command: str) -> None:
    shown = await hilgate(command, "--help")
    assert shown.code == 0
    assert "Examples" in shown.out
    assert f"hilgate {command}" in shown.out.partition("Examples")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_for_a_shell(shell: str) -> None:
    shown = await hilgate("--show-completion", shell)
    assert shown.code == 0
    assert "_HILGATE_COMPLETE" in shown.out


async def test_the_shell_completes_operations() -> None:
    completed = await hilgate(
        COMP_WORDS="hilgate send rig-07 de", COMP_CWORD="3", _HILGATE_COMPLETE="complete_bash"
    )
    assert completed.out.split() == ["describe"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("sned", "Did you mean 'send'?"),
        ("send", "Missing argument 'BENCH'"),
        ("send rig-07 wriet pump a=1", "did you mean 'write'?"),
        ("send rig-07 write pump setpoint", "'setpoint' should be NAME=VALUE"),
        ("send Rig_07 ping", "option --bench: bench: should be up to 63 of a-z, 0-9 and -"),
        ("send rig-07 ping --timeout 5", "write a number with a unit, such as 100ms or 2s"),
        ("send rig-07 ping --broker http://127.0.0.1", "amqp://host:5672"),
        ("watch --for soon", "write a number with a unit"),
        ("broker --listen 5672", "should be HOST:PORT"),
        ("broker --username joe", "--username and --password-file go together"),
        ("run hydraulic-rig --bench rig-07", "give --broker, HILGATE_BROKER or `broker:`"),
        ("run hydraulic-rig --broker amqp://127.0.0.1 --bench rig-07 --log-level loud", "--log-level"),
        ("demo --port 99999", "--port"),
        ("browse http://plc.example --policy None", "hilgate: url: should be a URL such as opc.tcp://"),
        ("browse opc.tcp://plc.example --policy None --root x", "hilgate: --root should be a node id"),
    ],
)
async def test_a_wrong_command_line_is_a_sentence_and_exit_2(words: str, says: str) -> None:
    finished = await hilgate(*words.split())
    assert finished.code == 2
    assert says in finished.err
    assert "Traceback" not in finished.err
    assert finished.out == ""

"""How the command ends when something goes wrong that nobody foresaw."""

import sys

import pytest

import agent.cli
import agent.cli.app
from agent.cli.exits import Exit, Failure


def end(monkeypatch: pytest.MonkeyPatch, error: BaseException, *words: str) -> int:
    def app(**_: object) -> None:
        raise error

    monkeypatch.setattr(agent.cli.app, "app", app)
    monkeypatch.setattr(sys, "argv", ["hilgate", *words])
    return agent.cli.main()


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (Failure("No answer", Exit.NO_ANSWER), 4, "hilgate: No answer\n"),
        (
            PermissionError(13, "Permission denied", "/var/lib/x"),
            3,
            "hilgate: /var/lib/x: Permission denied\n",
        ),
        (ExceptionGroup("", [OSError(98, "Address already in use")]), 3, "hilgate: Address already in use\n"),
        (OSError("plc: install hilgate[sil]"), 3, "hilgate: plc: install hilgate[sil]\n"),
        (ModuleNotFoundError("no", name="aiohttp"), 3, "hilgate: this needs the package aiohttp"),
        (
            ExceptionGroup("", [ExceptionGroup("", [KeyError("x")])]),
            70,
            "hilgate: internal error: KeyError: 'x'",
        ),
    ],
)
def test_errors_are_sentences(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    sentence: str,
) -> None:
    assert end(monkeypatch, error, "ping") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(sentence)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("error", [Failure("No answer"), KeyError("x")])
def test_debug_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(type(error)):
        end(monkeypatch, error, "--debug", "ping")


def test_ctrl_c_is_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert end(monkeypatch, KeyboardInterrupt()) == 130

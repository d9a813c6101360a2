"""Profiles and settings for commands: what is wrong with them ends the command, all of it at once."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.exits import Exit, Failure
from agent.cli.options import DEFAULT_BROKER
from agent.problems import ConfigErrors
from agent.profile import Profile, load_profile
from agent.settings import Settings, load_settings

if TYPE_CHECKING:
    from agent.store.inspect import Inspector


def profile(name: str, environ: Mapping[str, str] = os.environ) -> Profile:
    """The profile in a file, or the shipped one of that name.

    Raises:
        Failure: with the rejected code, a line for each mistake.
    """
    try:
        return load_profile(name, environ)
    except ConfigErrors as errors:
        raise Failure(f"profile {name} is not valid:\n{errors}", Exit.REJECTED) from None


def settings(
    file: Path | None,
    given: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    *,
    files: bool = True,
) -> Settings:
    """Settings from a file, the environment and what the command line says; None there is not given.

    Raises:
        Failure: with the usage code, a line for each mistake.
    """
    try:
        return load_settings(file, environ, given, files=files)
    except ConfigErrors as errors:
        raise Failure(f"the settings are not valid:\n{errors}", Exit.USAGE) from None


def client_settings(file: Path | None, given: Mapping[str, Any]) -> Settings:
    """Settings of `send` and `watch`: as the agent's, but the broker is the local one if none is named.

    Raises:
        Failure: with the usage code, a line for each mistake.
    """
    local = {} if file else {"HILGATE_BROKER": DEFAULT_BROKER}
    return settings(file, given, {**local, **os.environ})


@contextlib.contextmanager
def inspector(file: Path | None, given: Path | None, *, writable: bool = False) -> "Iterator[Inspector]":
    """Opens an agent's store: what the command line says, else the environment, else the settings file.

    Raises:
        Failure: with the usage code, nobody says where it is, or there is none; else it cannot be read or
            written in the body.
        OSError: nobody allows it.
    """
    import sqlite3

    from agent.store.inspect import Inspector, NoStore

    directory = given or client_settings(file, {"bench": "any"}).store
    if directory is None:
        raise Failure("Which store? Give --store DIR, HILGATE_STORE or --settings FILE", Exit.USAGE)
    try:
        with Inspector(directory, writable=writable) as opened:
            yield opened
    except NoStore as error:
        raise Failure(str(error), Exit.USAGE) from None
    except sqlite3.Error as error:
        raise Failure(f"The store in {directory} fails: {error}") from error

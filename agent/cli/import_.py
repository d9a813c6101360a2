"""`hilgate import`: descriptions of devices that others made, as a profile."""

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.exits import Exit, Failure


def kubeedge(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="YAML files with Device and DeviceModel, any order.")
    ],
) -> None:
    """Print a profile of KubeEdge devices: Device and DeviceModel, v1beta1 and v1alpha2.

    What a profile cannot express is a comment in it with the reason, and a warning on standard error.
    """
    from agent.cli import output
    from agent.kubeedge.documents import devices_in
    from agent.kubeedge.mapping import Inexpressible
    from agent.kubeedge.profile import profile_lines
    from agent.plugins import protocols

    try:
        devices, left = devices_in({str(file): _text(file) for file in files})
        known = protocols()
        lines = list(
            profile_lines(
                files[0].stem,
                devices,
                left,
                lambda name: known[name].config(),
                lambda text: output.say(f"hilgate: {text}"),
            )
        )
    except (Inexpressible, ValueError) as error:
        raise Failure(str(error), Exit.REJECTED) from None
    for line in lines:
        typer.echo(line)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None

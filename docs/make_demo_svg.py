"""Takes the README's picture: runs the real demo in a terminal (tmux) and saves what it shows as demo.svg.

Run it from the top of a checkout: .venv/bin/python docs/make_demo_svg.py
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH, HEIGHT = 104, 52
BEFORE_S, AFTER_S = 16, 6
TARGET = Path(__file__).with_name("demo.svg")
COMMAND = Path(sys.executable).with_name("hilgate")
SESSION = "hilgate-demo-picture"


def tmux(*words: str) -> str:
    done = subprocess.run(["tmux", "-L", SESSION, *words], check=True, capture_output=True, text=True)
    return done.stdout


def screen() -> str:
    return tmux("capture-pane", "-p", "-e", "-t", SESSION)


def demo() -> str:
    """What a terminal shows of the demo a while after somebody raised the pump's speed."""
    size = ("-x", str(WIDTH), "-y", str(HEIGHT))
    # The directory of the command is put first on the PATH, so that the demo prints its plain name.
    command = f"PATH={COMMAND.parent}:$PATH COLORTERM=truecolor hilgate demo --for 60s"
    tmux("new-session", "-d", "-s", SESSION, *size, command)
    try:
        time.sleep(BEFORE_S)
        url = re.search(r"HILGATE_BROKER=(\S+)", screen())
        write = [str(COMMAND), "send", "demo", "write", "pump-plc", "setpoint=2200"]
        subprocess.run(write + (["--broker", url[1]] if url else []), check=True, stdout=subprocess.DEVNULL)
        time.sleep(AFTER_S)
        return screen()
    finally:
        tmux("kill-server")


def main() -> None:
    shown = demo().rstrip()
    if "available" not in shown:
        sys.exit(f"the demo did not come up; the terminal shows:\n{shown}")
    with Path("/dev/null").open("w") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        console.print(Text.from_ansi(shown), no_wrap=True)
        svg = console.export_svg(title="hilgate demo", unique_id="demo")
    # The picture needs no web fonts: a README shows it without loading anything.
    TARGET.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()

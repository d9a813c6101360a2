#!/usr/bin/env python3
"""Puts the image's file tree together: hilgate, its Python, the libraries both load, and nothing else.

`assemble.py ROOT`, run as root inside the build stage with the Python that the image is to have. There is no
shell, package manager or compiler in ROOT; what Debian packages the libraries came from stands in
var/lib/dpkg/status.d, where scanners of images look for it.
"""

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

OPT = Path("/opt/hilgate")
OWNER = 65532
STDLIB = Path(sysconfig.get_path("stdlib"))
NOT_STDLIB = "test tests idlelib tkinter turtledemo ensurepip lib2to3 pydoc_data site-packages dist-packages"
"""What of the standard library no program here uses: its tests, graphics, and the installer of installers."""
NOT_MODULES = (
    "_tkinter",
    "_curses",
    "_crypt",
    "nis.",
    "readline",
    "_dbm",
    "_gdbm",
    "_test",
    "_xxtest",
    "_ctypes_test",
    "xxlimited",
)
"""Extension modules that would bring terminal, graphics and database libraries along."""
SOURCES = ("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.cc", "*.cpp")
SCRIPTS = ("python*", "hilgate")
FILES = (
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/bin/tini-static",
)
"""Taken as they are, where the base has them: nsswitch.conf is how the libc finds names."""


class Root:
    """A file tree that grows."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.taken: set[Path] = set()
        top.mkdir()
        for name in ("bin", "sbin", "lib", "lib64"):
            if (link := Path("/") / name).is_symlink():
                self.place(link).symlink_to(os.readlink(link))
                self.place(link.resolve()).mkdir(parents=True, exist_ok=True)

    def place(self, path: Path) -> Path:
        """Where a path of this machine is in the tree."""
        return self.top / path.relative_to("/")

    def take(self, path: Path) -> None:
        """Copies a file or folder; a link with what it leads to."""
        path = path.parent.resolve() / path.name
        if path in self.taken or not os.path.lexists(path):
            return
        self.taken.add(path)
        target = self.place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
            self.take(path.parent / os.readlink(path))
        elif path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copy2(path, target)

    def text(self, path: str, content: str) -> None:
        """Writes a file."""
        target = self.top / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, "utf-8")


def take_python(root: Root) -> None:
    """Interpreter and standard library, without what nothing here imports."""
    root.take(Path(sys.executable))
    unwanted = shutil.ignore_patterns(*NOT_STDLIB.split(), "config-*", "__pycache__")

    def ignored(folder: str, names: list[str]) -> set[str]:
        return unwanted(folder, names) | {name for name in names if name.startswith(NOT_MODULES)}

    shutil.copytree(STDLIB, root.place(STDLIB), ignore=ignored)


def take_hilgate(root: Root) -> None:
    """The virtual environment: no scripts but ours, no sources of what is compiled, no stubs."""
    ignored = shutil.ignore_patterns("__pycache__", *SOURCES)
    shutil.copytree(OPT, root.place(OPT), symlinks=True, ignore=ignored)
    for script in (root.place(OPT) / "bin").iterdir():
        if not any(script.match(pattern) for pattern in SCRIPTS):
            script.unlink()
    shutil.rmtree(root.place(OPT) / "include", ignore_errors=True)


def take_libraries(root: Root) -> None:
    """What the dynamic linker loads for each program and module in the tree, and what libc opens later."""
    files = (path for path in root.top.rglob("*") if path.is_file() and not path.is_symlink())
    binaries = [path for path in files if is_elf(path)]
    needed: set[str] = set()
    for path in binaries:
        original = Path("/") / path.relative_to(root.top)
        said = subprocess.run(["ldd", original], capture_output=True, text=True, check=False).stdout
        if missing := re.findall(r"^\s*(\S+) => not found", said, re.MULTILINE):
            sys.exit(f"assemble: {original} needs {', '.join(missing)}")
        needed |= set(re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", said, re.MULTILINE))
    for library in sorted(needed):
        if not library.startswith(str(OPT)):
            root.take(Path(library))
    libc = next(Path(library) for library in needed if Path(library).name.startswith("libc.so"))
    root.take(libc.with_name("libgcc_s.so.1"))  # opened by name when a thread ends


def is_elf(path: Path) -> bool:
    """Tells whether a file is a program or a shared library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def note_packages(root: Root) -> None:
    """Leaves the control paragraphs and licenses of the Debian packages that files were taken from."""
    names = set()
    for path in sorted(root.taken | {STDLIB / "os.py"}):
        # Where /lib leads to /usr/lib, a package may know its file by either name.
        spellings = {str(path), str(path).removeprefix("/usr")}
        done = subprocess.run(["dpkg-query", "-S", *spellings], capture_output=True, text=True, check=False)
        names |= {line.split(":")[0] for line in done.stdout.splitlines() if not line.startswith("diversion")}
    if (root.top / "etc/ssl/certs/ca-certificates.crt").exists():
        names.add("ca-certificates")  # made at installation: it belongs to no package
    for name in names:
        status = subprocess.run(["dpkg-query", "-s", name], capture_output=True, text=True, check=True).stdout
        root.text(f"var/lib/dpkg/status.d/{name}", status)
        root.take(Path(f"/usr/share/doc/{name}/copyright"))


def finish(root: Root) -> None:
    """Users, mount points, byte code, and no right too many."""
    root.text("etc/passwd", f"root:x:0:0:root:/:/nonexistent\nhilgate:x:{OWNER}:{OWNER}::/:/nonexistent\n")
    root.text("etc/group", f"root:x:0:\ndialout:x:20:hilgate\nhilgate:x:{OWNER}:\n")
    for folder in ("tmp", "etc/hilgate", "run/secrets/hilgate", "var/lib/hilgate", "dev", "proc", "sys"):
        (root.top / folder).mkdir(parents=True, exist_ok=True)
    subprocess.run(["ldconfig", "-r", str(root.top)], check=True)
    shutil.rmtree(root.top / "var/cache", ignore_errors=True)
    # Never checked against the sources: those cannot change, and have other times after each COPY.
    for tree in (STDLIB, OPT):
        compileall.compile_dir(
            root.place(tree),
            quiet=2,
            stripdir=str(root.top),
            prependdir="/",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            workers=0,
        )
    for path in [root.top, *root.top.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o755)
    # A new volume takes its owner from here; group 0 is what a cluster's arbitrary uid is in.
    store = root.top / "var/lib/hilgate"
    os.chown(store, OWNER, 0)
    store.chmod(0o770)


def main() -> None:
    """Makes the tree."""
    root = Root(Path(sys.argv[1]))
    for path in FILES:
        root.take(Path(path))
    take_python(root)
    take_hilgate(root)
    take_libraries(root)
    note_packages(root)
    finish(root)


if __name__ == "__main__":
    main()

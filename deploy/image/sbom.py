#!/usr/bin/env python3
"""Writes a software bill of materials (CycloneDX 1.6, JSON) of what is installed; see docs/container.md.

`sbom.py --site FOLDER` lists every distribution in a site-packages folder; with `--lock FILE` only those that
the lock file names, and hilgate. `--dpkg FOLDER` adds Debian packages, one control paragraph a file, and
`--python` the interpreter itself. Standard library only: it runs where the image is built.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
NAME = "hilgate"
LICENSE_PREFIX = "License :: "
LONGEST_NAME = 80
"""A License field that is longer, or has several lines, is the text of a license and not its name."""


def normalised(name: str) -> str:
    """A distribution's name as in package URLs and in comparisons (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licenses(distribution: Distribution) -> list[dict[str, Any]]:
    """What a distribution says of its license: expression (PEP 639), else classifiers, else text."""
    about = distribution.metadata
    if expressions := about.get_all("License-Expression"):
        return [{"expression": expressions[0]}]
    named = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or ()
        if line.startswith(LICENSE_PREFIX) and not line.endswith("OSI Approved")
    ]
    field = "".join(about.get_all("License") or ()).strip()
    if not named and field and "\n" not in field and len(field) <= LONGEST_NAME:
        named = [field]
    return [{"license": {"name": name}} for name in named]


def of_python(distribution: Distribution) -> Component:
    """The component that a Python distribution is."""
    name, version = normalised(distribution.metadata["Name"]), distribution.version
    purl = f"pkg:pypi/{name}@{quote(version, safe='.')}"
    found: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if about := licenses(distribution):
        found["licenses"] = about
    return found


def of_debian(folder: Path) -> Iterator[Component]:
    """The components that Debian packages are, with the name of Debian's own statement on licenses."""
    for path in sorted(folder.iterdir()):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", path.read_text("utf-8"), re.MULTILINE))
        name, version = fields["Package"], fields["Version"]
        where = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={fields['Architecture']}"
        yield {"type": "library", "bom-ref": where, "name": name, "version": version, "purl": where}


def of_interpreter() -> Component:
    """CPython itself, which no package manager may know of."""
    version = platform.python_version()
    return {
        "type": "platform",
        "bom-ref": f"cpython@{version}",
        "name": "cpython",
        "version": version,
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }


def locked(path: Path) -> set[str]:
    """The normalised names that a lock file has, whatever their markers."""
    return {normalised(name) for name in re.findall(r"^([\w.-]+)==", path.read_text("utf-8"), re.MULTILINE)}


def bill(python: list[Component], others: list[Component], created: str) -> dict[str, Any]:
    """The whole document; `created` is a time in RFC 3339. The same parts give the same serial number."""
    (own,) = [part for part in python if part["name"] == NAME]
    parts = [part for part in python if part is not own] + others
    refs = sorted(part["bom-ref"] for part in parts)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, " ".join([own["bom-ref"], *refs])).urn,
        "version": 1,
        "metadata": {"timestamp": created, "component": own | {"type": "application"}},
        "components": sorted(parts, key=lambda part: str(part["bom-ref"])),
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": refs}],
    }


def now() -> str:
    """The time of SOURCE_DATE_EPOCH, or now."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    time = datetime.datetime.now(datetime.UTC)
    if seconds:
        time = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    return time.isoformat(timespec="seconds")


def main() -> int:
    """Writes the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    here = Path(sysconfig.get_path("purelib"))
    parser.add_argument("--site", type=Path, default=here, help="site-packages; this Python's by default")
    parser.add_argument("--lock", type=Path, help="only what this lock file names, and hilgate")
    parser.add_argument("--dpkg", type=Path, help="a folder of Debian control paragraphs")
    parser.add_argument("--python", action="store_true", help="add the interpreter")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    found = {part["name"]: part for part in map(of_python, distributions(path=[str(arguments.site)]))}
    if arguments.lock:
        wanted = locked(arguments.lock) | {NAME}
        found = {name: part for name, part in found.items() if name in wanted}
    if NAME not in found:
        sys.exit(f"sbom: {NAME} is not installed in {arguments.site}")
    others = [of_interpreter()] if arguments.python else []
    if arguments.dpkg:
        others += of_debian(arguments.dpkg)
    text = json.dumps(bill(list(found.values()), others, now()), indent=1, ensure_ascii=False)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text + "\n", "utf-8")
    print(f"{arguments.output}: {len(found) + len(others)} components")  # noqa: T201  # what it says to who called
    return 0


if __name__ == "__main__":
    sys.exit(main())

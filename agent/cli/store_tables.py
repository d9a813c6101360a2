"""Tables of what a store keeps. What came from a bus or a broker is shown without its control characters."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent import clock
from agent.cli import letters
from agent.cli.render import plain, span, table
from agent.store import AuditEntry
from agent.store.inspect import DeadLetter, Overview
from protocols.timestamps import rfc3339

_STATUS_STYLES = {"ok": "green", "rejected": "yellow", "failed": "red", "indeterminate": "bold red"}
_LONGEST = 100
"""Characters of a command's fields in a table; --json has them all."""


def overview(known: Overview) -> RenderableType:
    """Everything that a store keeps, by number and size."""
    head = Text.assemble(
        (str(plain(known.directory)), "bold"),
        f"  epoch {known.epoch}  schema {known.schema}  ",
        ("● an agent runs on it", "green") if known.in_use else ("○ no agent runs on it", "dim"),
    )
    return Group(head, _files(known.files), *_waiting(known), _kept(known), *_losses(known), *_leases(known))


def _files(files: Mapping[str, int]) -> Text:
    return Text("  ".join(f"{name} {decimal(size)}" for name, size in files.items()), "dim")


def _waiting(known: Overview) -> Iterable[RenderableType]:
    if not known.waiting:
        return [Padding(Text("nothing waits for the broker", "dim"), (1, 0, 0, 0))]
    made = table("waits for the broker", "lane", ">messages", ">bytes", ">oldest")
    for line in known.waiting:
        made.add_row(
            plain(line.address or "(replies)"),
            line.lane,
            f"{line.messages:,}",
            decimal(line.bytes),
            _age(line.oldest_ns),
        )
    return [made]


def _kept(known: Overview) -> Table:
    made = table("kept", ">number", ">bytes", ">oldest", "")
    for name, kept in known.kept.items():
        oldest = "" if kept.oldest_ns is None else _age(kept.oldest_ns)
        made.add_row(name, f"{kept.number:,}", decimal(kept.bytes), oldest, plain(kept.note))
    return made


def _losses(known: Overview) -> Iterable[RenderableType]:
    if not known.losses:
        return []
    made = table("lost and not yet said", "why", ">number", "sequences", "first", "last")
    for loss in known.losses:
        made.add_row(
            plain(loss.source),
            Text.assemble(plain(loss.reason), style="bold red"),
            f"{loss.count:,}",
            f"{loss.first}-{loss.last}",
            time(loss.first_time_ns),
            time(loss.last_time_ns),
        )
    return [made]


def _leases(known: Overview) -> Iterable[RenderableType]:
    if not known.leases:
        return []
    made = table("lease", "holder", "devices", "state")
    for lease in known.leases:
        devices = lease.get("devices")
        made.add_row(
            plain(lease.get("id", "")),
            plain(lease.get("holder", "")),
            plain(", ".join(map(str, devices)) if isinstance(devices, list) else "all"),
            plain(lease.get("state", "")),
        )
    return [made]


def dead_letters(found: Iterable[DeadLetter]) -> RenderableType:
    """Dead letters, a line each."""
    made = table(">id", "buried", "address", "type", ">sequence", ">bytes", "reason")
    for letter in found:
        about = letters.summary(letter)
        made.add_row(
            str(letter.id),
            time(letter.buried_ns),
            plain(about["address"]),
            plain(about["type"].removeprefix("io.hilgate.")),
            str(about["sequence"]),
            f"{about['bytes']:,}",
            Text.assemble(plain(letter.reason), style="red"),
        )
    return made if made.row_count else Text("no dead letters", "dim")


def dead_letter(letter: DeadLetter) -> RenderableType:
    """One dead letter whole."""
    message = letters.decoded(letter.data)
    about = {name: item for name, item in letters.summary(letter).items() if item != ""}
    return Group(
        _fields("dead letter", about),
        _fields("property", letters.properties(message)),
        _fields("application property", message.properties),
        _body(message.body, message.content_type),
    )


def _fields(head: str, fields: Mapping[str, Any]) -> Table:
    made = table(head, "")
    for name, item in fields.items():
        made.add_row(plain(name), plain(item))
    return made


def _body(body: bytes, content_type: str | None) -> Text:
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return Text.assemble(f"body: {len(body):,} bytes of ", plain(content_type or "an unknown type"))
    return Text("\n").join(plain(line) for line in text.splitlines())


def audit(entries: Sequence[AuditEntry]) -> RenderableType:
    """Audit entries, a line each."""
    if not entries:
        return Text("no such entries", "dim")
    made = table("time", "who", "lease", "op", "device", "what", "outcome")
    made.columns[0].no_wrap = made.columns[3].no_wrap = True
    for entry in entries:
        made.add_row(
            time(entry.time_ns),
            plain(entry.who or "(not said)"),
            Text.assemble(plain(entry.holder), (f" {plain(entry.lease)}" if entry.lease else "", "dim")),
            Text.assemble(plain(entry.op), style="bold"),
            plain(entry.device),
            plain(_short(entry.what)),
            _outcome(entry),
        )
    return made


def _outcome(entry: AuditEntry) -> Text:
    made = Text.assemble(plain(entry.status), style=_STATUS_STYLES.get(entry.status, "white"))
    if entry.code:
        return Text.assemble(made, " ", plain(entry.code), ": ", plain(_short(entry.message)))
    return made


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def time(time_ns: int) -> str:
    """A time for people: UTC with milliseconds."""
    return rfc3339(time_ns)[:23].replace("T", " ") + "Z"


def _age(time_ns: int) -> str:
    return f"{span((clock.now_ns() - time_ns) / 1e9)} ago"

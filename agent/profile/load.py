"""From a file to a `Profile`: read, fill in, validate by protocol, and say all that is wrong at once."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from agent.document import Entry, MappingNode, ScalarNode, plain
from agent.plugins import PluginError, protocols
from agent.problems import ConfigErrors, Problem, did_you_mean
from agent.profile.checks import check_device, check_interlocks
from agent.profile.hooks import check_hooks
from agent.profile.model import RESERVED, Header, Profile
from agent.profile.schema import device_schema
from agent.profile.shipped import find_profile
from agent.profile.sources import Sources, assemble
from agent.profile.templates import Expansion
from agent.profile.variables import Substitution
from agent.validation import MISSING, NAME_HINT, news, not_a_name, problems_of
from protocols.base import NAME_PATTERN, DeviceConfig, DeviceProtocol
from protocols.units import WRITTEN


def load_profile(
    path: Path | str,
    variables: Mapping[str, str] = os.environ,
    installed: Mapping[str, DeviceProtocol] | None = None,
) -> Profile:
    """Reads a profile from a file, or a shipped one by its name; `installed` defaults to all protocols.

    Raises:
        ConfigErrors: everything that is wrong with it.
    """
    file = find_profile(path)
    sources = assemble(file)
    loader = _Loader(sources, file, protocols() if installed is None else installed, variables)
    profile = loader.load()
    if profile is None or loader.problems:
        raise ConfigErrors(sorted(loader.problems, key=lambda problem: problem.file != str(file)))
    return profile


class _Loader:
    def __init__(
        self,
        sources: Sources,
        file: Path,
        installed: Mapping[str, DeviceProtocol],
        variables: Mapping[str, str],
    ) -> None:
        self._sources = sources
        self._file = file
        self._installed = installed
        self.problems = sources.problems
        self._substitution = Substitution(variables, self.problems)
        self._expansion = Expansion(sources.templates, self.problems)
        self._good: dict[str, DeviceConfig] = {}
        """Devices, and what is good of those that are not."""

    def load(self) -> Profile | None:
        """The profile, or None where something is wrong; what, is in `problems`."""
        header = self._header()
        trees = {
            name: tree for name, entry in self._sources.devices.items() if (tree := self._tree(name, entry))
        }
        devices = {name: device for name, tree in trees.items() if (device := self._device(name, tree))}
        self._conflicts(devices, trees)
        self.problems += check_interlocks(self._good, trees)
        if header is not None and (hooks := self._sources.header.entries.get("hooks")):
            self.problems += check_hooks(
                header.hooks, hooks.node, self._sources.devices, devices, self._installed
            )
        if not self._sources.devices and not self.problems:
            hint = "a bench has at least one device"
            self.problems.append(Problem.at(self._sources.header.place, "devices", MISSING, hint))
        if header is None or self.problems:
            return None
        return put_together(header, devices, self._file)

    def _conflicts(self, devices: Mapping[str, DeviceConfig], trees: Mapping[str, MappingNode]) -> None:
        """What is right device by device and cannot be on one bench."""
        for word in {device.protocol for device in devices.values()}:
            mine = {name: device for name, device in devices.items() if device.protocol == word}
            for name, why in self._installed[word].conflicts(mine).items():
                connection = trees[name].entries.get("connection")
                place = trees[name].place if connection is None else connection.place
                self.problems.append(Problem.at(place, f"devices.{name}.connection", why))

    def _header(self) -> Header | None:
        node = self._substitution.section(self._sources.header, "")
        self._sources.header = node
        try:
            return Header.model_validate(plain(node), context=WRITTEN)
        except ValidationError as error:
            if not (self.problems and not node.entries):  # what could not be read is not missing as well
                self.problems += news(
                    problems_of(error, node, schema=Header.model_json_schema()), self.problems
                )
            return None

    def _tree(self, name: str, entry: Entry) -> MappingNode | None:
        """The device as written, with nothing left to fill in."""
        field = f"devices.{name}"
        if not re.fullmatch(NAME_PATTERN, name):
            self.problems.append(Problem.at(entry.place, field, not_a_name(name), NAME_HINT))
        if name == RESERVED:
            message = "no device may be called so: it names the bench's own events"
            self.problems.append(Problem.at(entry.place, field, message))
        if not isinstance(entry.node, MappingNode):
            self.problems.append(Problem.at(entry.node.place, field, "should be a mapping"))
            return None
        return self._expansion.device(self._substitution.section(entry.node, field), field)

    def _device(self, name: str, tree: MappingNode) -> DeviceConfig | None:
        field = f"devices.{name}"
        model = self._model(tree, field)
        if model is None:
            return None
        content = plain(tree)
        try:
            device = model.model_validate(content, context={**WRITTEN, "folder": self._file.parent})
        except ValidationError as error:
            self.problems += news(problems_of(error, tree, field, device_schema(model)), self.problems)
            if (rest := _salvage(model, content, error)) is not None:
                self._check(rest.named(name, self._file.parent), tree)
            return None
        self._check(device.named(name, self._file.parent), tree)
        return device

    def _check(self, device: DeviceConfig, tree: MappingNode) -> None:
        self._good[device.name] = device
        self.problems += check_device(device, tree)

    def _model(self, tree: MappingNode, field: str) -> type[DeviceConfig] | None:
        entry = tree.entries.get("protocol")
        if entry is None:
            hint = f"one of {', '.join(self._installed)}"
            self.problems.append(Problem.at(tree.place, f"{field}.protocol", MISSING, hint))
            return None
        word = entry.node.value if isinstance(entry.node, ScalarNode) else None
        if not isinstance(word, str) or word not in self._installed:
            hint = did_you_mean(str(word), self._installed)
            message = "is not the name of an installed protocol"
            problem = Problem.at(entry.node.place, f"{field}.protocol", message, hint)
            self.problems += news([problem], self.problems)
            return None
        try:
            return self._installed[word].config()
        except (PluginError, ImportError) as error:
            self.problems.append(Problem.at(entry.node.place, f"{field}.protocol", str(error)))
            return None


def _salvage(
    model: type[DeviceConfig], content: Mapping[str, Any], error: ValidationError
) -> DeviceConfig | None:
    """What is good in a wrong device, so that the rest of its mistakes can be said in the same breath."""
    wrong = {loc[1] for details in error.errors() if (loc := details["loc"])[:1] == ("points",) and loc[1:]}

    def good(section: str) -> dict[str, Any]:
        values = content.get(section)
        return {k: v for k, v in values.items() if k not in wrong} if isinstance(values, dict) else {}

    annotation: Any = model.model_fields["points"].annotation
    rest = create_model("Rest", __base__=DeviceConfig, points=(annotation, ...))
    try:
        return rest.model_validate({"protocol": "", "points": good("points"), "sim": good("sim")})
    except ValidationError:
        return None


def put_together(header: Header, devices: Mapping[str, DeviceConfig], path: Path) -> Profile:
    """The profile of good parts."""
    said = {name: getattr(header, name) for name in header.model_fields_set}  # a default is not said
    content = {"digest": _digest(header, devices), "path": path, "devices": devices}
    return Profile.model_validate({**said, **content})


def _digest(header: Header, devices: Mapping[str, DeviceConfig]) -> str:
    """Of all that was said, however it was written; the order of devices counts, that of fields does not."""
    said = [header.model_dump(mode="json", exclude_unset=True)]
    said += [{name: device.model_dump(mode="json", exclude_unset=True)} for name, device in devices.items()]
    attached = [device.attachments() for device in devices.values()]
    said += [{name: hashlib.sha256(data).hexdigest()} for files in attached for name, data in files.items()]
    # Not by msgspec: it refuses integers over 64 bits, which a `sim` section may hold.
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"

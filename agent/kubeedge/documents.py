"""DeviceModel and Device of both versions in one shape (KubeEdge's api module, apis/devices). Pure."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

GROUP = "devices.kubeedge.io"
VERSIONS = (f"{GROUP}/v1beta1", f"{GROUP}/v1alpha2")
_CYCLE_S = {"v1beta1": 1e-3, "v1alpha2": 1e-9}
"""Units of collectCycle: v1beta1 says milliseconds, v1alpha2 is taken as Go's nanoseconds by its mappers."""


@dataclasses.dataclass
class Property:
    """A property: what its model says of it, and how its device is asked for it."""

    name: str
    type: str
    """int, float, double, string, boolean, bytes or stream."""
    writable: bool
    description: str = ""
    unit: str = ""
    minimum: Any = None
    maximum: Any = None
    visitor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cycle_s: float | None = None
    left: Sequence[str] = ()
    """What else is said of it, which nothing here expresses."""


@dataclasses.dataclass
class Device:
    """A device with the properties that its model and itself define."""

    name: str
    namespace: str
    protocol: str
    config: Mapping[str, Any]
    properties: list[Property]
    description: str = ""
    left: list[str] = dataclasses.field(default_factory=list)
    """Sentences on what could not be taken."""


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for gigabytes once they are written out."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node of the tree.

        Raises:
            yaml.YAMLError: it is an alias, or anything else is wrong.
        """
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*), which are not followed")
        return super().compose_node(parent, index)


def devices_in(texts: Mapping[str, str]) -> tuple[list[Device], list[str]]:
    """All devices of some files (name to content), and sentences on documents that are not taken.

    Raises:
        ValueError: a file is no YAML, or a document has not the shape of its kind.
    """
    models: dict[tuple[str, str], Mapping[str, Any]] = {}
    found: list[tuple[str, Mapping[str, Any]]] = []
    left = []
    for file, text in texts.items():
        try:
            documents = list(_flat(yaml.load_all(text, _Loader)))
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"{file} is no YAML: {error!s:.300}") from error
        for document in documents:
            version, kind = str(document.get("apiVersion")), str(document.get("kind"))
            if version not in VERSIONS or kind not in ("Device", "DeviceModel"):
                left.append(
                    f"{file}: neither a Device nor a DeviceModel of {' or '.join(VERSIONS)}, "
                    f"but kind {kind} of apiVersion {version}"
                )
            elif kind == "DeviceModel":
                models[_key(document)] = document
            else:
                found.append((file, document))
    devices = []
    for file, document in found:
        space, name = _key(document)
        wanted = str(_mapping(_mapping(document.get("spec")).get("deviceModelRef")).get("name"))
        model = models.get((space, wanted))
        if model is None:
            left.append(
                f"{file}: device {name}: its model {wanted} is not among the files of namespace {space}"
            )
        else:
            devices.append(_device(document, model))
    return devices, left


def _flat(documents: Iterator[Any]) -> Iterator[Mapping[str, Any]]:
    for document in documents:
        if isinstance(document, dict) and str(document.get("kind")).endswith("List"):
            yield from _flat(iter(_list(document.get("items"))))
        elif isinstance(document, dict):
            yield document
        elif document is not None:
            raise ValueError(f"a document is no map: {document!r:.60}")


def _mapping(said: Any) -> Mapping[str, Any]:
    return said if isinstance(said, dict) else {}


def _list(said: Any) -> list[Any]:
    return said if isinstance(said, list) else []


def _key(document: Mapping[str, Any]) -> tuple[str, str]:
    meta = _mapping(document.get("metadata"))
    return str(meta.get("namespace", "default")), str(meta.get("name"))


def _device(document: Mapping[str, Any], model: Mapping[str, Any]) -> Device:
    version = str(document["apiVersion"]).rpartition("/")[2]
    spec, of_model = _mapping(document.get("spec")), _mapping(model.get("spec"))
    space, name = _key(document)
    protocol, config = _protocol(spec, of_model)
    labels = _mapping(_mapping(document.get("metadata")).get("labels"))
    made = Device(name, space, protocol, config, [], str(labels.get("description", "")))
    asked = {str(_mapping(one).get("name", _mapping(one).get("propertyName"))): one for one in _asked(spec)}
    for one in map(_mapping, _list(of_model.get("properties"))):
        prop = _property(one)
        of_device = _mapping(asked.pop(prop.name, None))
        prop.visitor = _visitor(one, of_device)
        cycle = of_device.get("collectCycle")
        if isinstance(cycle, int) and not isinstance(cycle, bool) and cycle > 0:
            prop.cycle_s = cycle * _CYCLE_S[version]
        known = {"name", "propertyName", "visitors", "collectCycle", prop.visitor.get("kind")}
        prop.left = [key for key in of_device if key not in known]
        made.properties.append(prop)
    made.left += [f"property {one} is not in the model" for one in asked]
    known = {"deviceModelRef", "protocol", "properties", "propertyVisitors"}
    made.left += [f"spec.{key} has no counterpart" for key in spec if key not in known]
    if (status := _mapping(document.get("status"))).get("twins"):
        twins = ", ".join(str(_mapping(twin).get("propertyName")) for twin in _list(status["twins"]))
        made.left.append(f"status.twins is no configuration: desired values of {twins} are not written")
    return made


def _asked(spec: Mapping[str, Any]) -> list[Any]:
    return _list(spec.get("properties")) or _list(spec.get("propertyVisitors"))


def _protocol(spec: Mapping[str, Any], model: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The protocol's word in lower case, and its configuration as one map."""
    said = _mapping(spec.get("protocol"))
    if "protocolName" in said or "configData" in said or not said:  # v1beta1
        name = str(said.get("protocolName", model.get("protocol", "")))
        return name.lower(), {**_mapping(model.get("protocolConfigData")), **_mapping(said.get("configData"))}
    common = _mapping(said.get("common"))
    config: dict[str, Any] = {}
    for part in (common, _mapping(common.get("customizedValues"))):
        config |= {key: value for key, value in part.items() if key not in ("tcp", "com", "customizedValues")}
    for word in (key for key in said if key != "common"):
        own = _mapping(said[word])
        if word == "customizedProtocol":
            word, own = str(own.get("protocolName", "customized")), _mapping(own.get("configData"))
        for each in (common.get("tcp"), common.get("com"), own, own.get("tcp"), own.get("rtu")):
            config |= {key: value for key, value in _mapping(each).items() if key not in ("tcp", "rtu")}
        return word.lower(), config
    return str(model.get("protocol", "")).lower(), config


def _visitor(model: Mapping[str, Any], device: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the property is had, as one map; `kind` is the word that v1alpha2 says it under."""
    if "propertyName" not in device:  # v1beta1
        mine, theirs = _mapping(device.get("visitors")), _mapping(model.get("visitors"))
        return {**_mapping(theirs.get("configData")), **_mapping(mine.get("configData"))}
    for word in ("modbus", "opcua", "bluetooth", "customizedProtocol"):
        if isinstance(own := device.get(word), dict):
            config = _mapping(own.get("configData")) if word == "customizedProtocol" else own
            return {**_mapping(device.get("customizedValues")), **config, "kind": word}
    return {}


def _property(said: Mapping[str, Any]) -> Property:
    kind = said.get("type")
    details = said
    if isinstance(kind, dict):  # v1alpha2 has the type as a key, and the rest below it
        kind, details = next(((key, _mapping(value)) for key, value in kind.items()), ("", {}))
    return Property(
        str(said.get("name")),
        str(kind).lower(),
        details.get("accessMode") == "ReadWrite",
        str(said.get("description") or ""),
        str(details.get("unit") or ""),
        details.get("minimum"),
        details.get("maximum"),
    )

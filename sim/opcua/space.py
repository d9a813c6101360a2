"""The address space of a simulated server, made of a device's points and methods."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.common.structures104 import make_structure
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from protocols.base import Value
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.point import OpcuaPoint
from sim.opcua.services import bounds, standard
from sim.opcua.values import built_in, fields_of, node_id, qualified_name, zero
from sim.opcua.variable import Variable, is_simple

STANDARD_URI: Final = "http://opcfoundation.org/UA/"
_MOST: Final = 250
"""Nodes in a folder: adding one looks at all that are there."""
_UNITS_URI: Final = "http://www.opcfoundation.org/UA/units/un/cefact"
_WORD: Final = re.compile(r"[^A-Za-z0-9]+")

_READ, _WRITE, _HISTORY = 1, 2, 4
"""Bits of an access level (OPC 10000-3, AccessLevelType)."""


def namespaces(device: OpcuaDevice, application_uri: str) -> Sequence[str]:
    """URIs by their indexes, such that every `ns=` of the profile is one, and every `nsu=` has one."""
    texts = list(_texts(device))
    numbers = [int(found[1]) for text in texts if (found := re.match(r"(?:ns=(?=\d+;))?(\d+)[;:]", text))]
    uris = dict.fromkeys(found[1] for text in texts if (found := re.match(r"nsu=([^;]+);", text)))
    made = [STANDARD_URI, application_uri]
    made += [f"{application_uri}:ns{index}" for index in range(2, max(numbers, default=1) + 1)]
    return [*made, *(uri for uri in uris if uri not in made)]


def _texts(device: OpcuaDevice) -> Iterator[str]:
    """Everything in which a namespace may be said."""
    nodes = [point.node for point in device.points.values()]
    for method in device.methods.values():
        nodes += [method.object, method.method]
    for node in nodes:
        if isinstance(node, str):
            yield node
        else:
            yield from node


class Space:
    """Puts nodes into a server that has not started yet."""

    def __init__(self, server: Server, device: OpcuaDevice, uris: Sequence[str]) -> None:
        self.server = server
        self._device = device
        self._uris = {uri: index for index, uri in enumerate(uris)}
        self._own = ua.Int16(len(uris) - 1 if len(uris) > 2 else 1)
        self._numbers = itertools.count(1)
        self._in_folder = 0
        self._folder: ua.NodeId | None = None
        self._device_folder: ua.NodeId | None = None
        self.aspace = server.iserver.aspace

    # Nodes.

    def add(
        self,
        parent: ua.NodeId,
        name: ua.QualifiedName,
        attributes: Any,
        node_class: ua.NodeClass,
        type_definition: int = 0,
        node: ua.NodeId | None = None,
        reference: int = ObjectIds.HasComponent,
    ) -> ua.NodeId:
        """Adds a node below another; without `node` it gets an id of its own.

        Raises:
            ValueError: there is such a node already, or it cannot stand there.
        """
        item = ua.AddNodesItem()
        item.RequestedNewNodeId = node if node is not None else self.fresh(name.Name or "")
        item.BrowseName = name
        item.NodeClass = node_class
        item.ParentNodeId = parent
        item.ReferenceTypeId = standard(reference)
        item.TypeDefinition = standard(type_definition)
        if not attributes.DisplayName.Text:
            attributes.DisplayName = ua.LocalizedText(name.Name)
        item.NodeAttributes = attributes
        result = self.server.iserver.node_mgt_service.add_nodes([item])[0]
        if not result.StatusCode.is_good():
            raise ValueError(
                f"{self._device.name}: {item.RequestedNewNodeId.to_string()}: {result.StatusCode.name}"
            )
        added: ua.NodeId = result.AddedNodeId
        return added

    def fresh(self, name: str) -> ua.NodeId:
        """An id that no node has."""
        return ua.NodeId(ua.String(f"{self._device.name}.{next(self._numbers)}.{name}"), self._own)

    def property(self, parent: ua.NodeId, name: str, value: ua.Variant, data_type: int) -> None:
        """Adds a property of the standard's."""
        attributes = _variable(value, standard(data_type), 1 if isinstance(value.Value, list) else -1)
        self.add(
            parent,
            ua.QualifiedName(name),
            attributes,
            ua.NodeClass.Variable,
            ObjectIds.PropertyType,
            reference=ObjectIds.HasProperty,
        )

    def child(self, parent: ua.NodeId, name: ua.QualifiedName) -> ua.NodeId | None:
        """The node of this name below another."""
        for reference in self.aspace[parent].references:
            if reference.IsForward and reference.BrowseName == name:
                found: ua.NodeId = reference.NodeId
                return found
        return None

    def place(
        self, node: str | Sequence[str], name: str
    ) -> tuple[ua.NodeId, ua.QualifiedName, ua.NodeId | None]:
        """Where a node that a profile names is to stand, or stands: parent, browse name and id."""
        if isinstance(node, str):
            wanted = node_id(node, self._uris)
            shown = ua.QualifiedName(name, ua.UInt16(wanted.NamespaceIndex))
            return self._folder_for_one(), shown, wanted
        names = [qualified_name(text, self._uris) for text in node]
        parent = standard(ObjectIds.RootFolder)
        for part in names[:-1]:
            parent = self.child(parent, part) or self._add_object(parent, part)
        return parent, names[-1], self.child(parent, names[-1])

    def _add_object(
        self, parent: ua.NodeId, name: ua.QualifiedName, node: ua.NodeId | None = None
    ) -> ua.NodeId:
        return self.add(
            parent,
            name,
            ua.ObjectAttributes(),
            ua.NodeClass.Object,
            ObjectIds.FolderType,
            node,
            ObjectIds.Organizes,
        )

    def _folder_for_one(self) -> ua.NodeId:
        """The device's folder, or where that would get too full one in it."""
        if self._device_folder is None:
            name = ua.QualifiedName(self._device.name, ua.UInt16(self._own))
            self._device_folder = self._add_object(standard(ObjectIds.ObjectsFolder), name)
            self._folder = self._device_folder
        if self._in_folder == _MOST:
            self._in_folder = 0
            number = ua.QualifiedName(str(next(self._numbers)), ua.UInt16(self._own))
            self._folder = self._add_object(self._device_folder, number)
        self._in_folder += 1
        assert self._folder is not None
        return self._folder

    def object(self, node: str | Sequence[str], name: str) -> ua.NodeId:
        """The object that a profile names; made if there is none."""
        parent, shown, found = self.place(node, name)
        if found is not None and found in self.aspace:
            return found
        return self._add_object(parent, shown, found)

    def notifier(self, point: OpcuaPoint) -> ua.NodeId:
        """The object whose events are a point."""
        node = self.object(point.node, point.name)
        value = ua.DataValue(ua.Variant(1, ua.VariantType.Byte))
        self.aspace[node].attributes[AttributeIds.EventNotifier].value = value
        return node

    def condition(self, source: ua.NodeId, name: str) -> ua.NodeId:
        """Adds a condition of a variable: an object by which it is acknowledged."""
        shown = ua.QualifiedName(name, ua.UInt16(self._own))
        kind = ObjectIds.ExclusiveLevelAlarmType
        return self.add(
            source, shown, ua.ObjectAttributes(), ua.NodeClass.Object, kind, reference=ObjectIds.HasCondition
        )

    # Variables.

    def variables(self, starts: Mapping[str, Value]) -> Mapping[str, Variable]:
        """Adds the nodes of all points but events; gives by point what it stands on.

        Those that a server has anyway, such as its clock, are left as they are, and left out.
        """
        groups: dict[ua.NodeId, list[OpcuaPoint]] = {}
        places: dict[ua.NodeId, tuple[ua.NodeId, ua.QualifiedName]] = {}
        for point in sorted(self._device.points.values(), key=lambda point: len(point.node)):
            if point.events is not None:
                continue
            parent, shown, found = self.place(point.node, point.name)
            if found is not None and found in self.aspace and found not in groups:
                continue
            if found is None:  # of a path: found again once it is there
                found = next((node for node, place in places.items() if place == (parent, shown)), None)
            node = found or self.fresh(shown.Name or "")
            groups.setdefault(node, []).append(point)
            places.setdefault(node, (parent, shown))
        made = {}
        for node, points in groups.items():
            variable = self._variable(node, points, starts)
            self._add_variable(variable, *places[node])
            made.update({point.name: variable for point in points})
        return made

    def _variable(
        self, node: ua.NodeId, points: Sequence[OpcuaPoint], starts: Mapping[str, Value]
    ) -> Variable:
        # One that is the whole value says what the node is; parts of an array only how long it is at least.
        points = sorted(points, key=lambda point: point.index_range is not None)
        first = points[0]
        variable = Variable(node, built_in(first), points, zero(built_in(first)))
        if variable.kind == "ExtensionObject":
            variable.fields = fields_of(first, starts.get(first.name))
        parts = [bounds(point.index_range) for point in points if is_simple(point.index_range)]
        if first.type == "array" or parts:
            length = max((part[1] + 1 for part in parts if part is not None), default=0)
            variable.raw = [zero(variable.kind)] * length
        return variable

    def _add_variable(self, variable: Variable, parent: ua.NodeId, name: ua.QualifiedName) -> None:
        first = variable.points[0]
        data_type = data_type_of(variable.kind)
        if variable.kind == "ExtensionObject":
            data_type = self._add_structure(variable, name)
            variable.put(first, {})
        elif first.type == "enumeration" and variable.kind == "Int32":
            data_type = self._add_enumeration(first, name)
        limits = _limits(first)
        rank = 1 if isinstance(variable.raw, list) else -1
        attributes = _variable(variable.variant(), data_type, rank)
        access = variable.readable * (_READ | _HISTORY) | variable.writable * _WRITE
        attributes.AccessLevel = attributes.UserAccessLevel = ua.Byte(access)
        attributes.Historizing = variable.readable
        attributes.Description = ua.LocalizedText(first.description)
        kind = ObjectIds.AnalogItemType if limits else ObjectIds.BaseDataVariableType
        self.add(parent, name, attributes, ua.NodeClass.Variable, kind, variable.node_id)
        if limits:
            span = ua.Variant(ua.Range(*limits), ua.VariantType.ExtensionObject)
            self.property(variable.node_id, "EURange", span, ObjectIds.Range)
        if first.unit:
            text = ua.LocalizedText(first.unit)
            unit = ua.EUInformation(ua.String(_UNITS_URI), ua.Int32(-1), text, text)
            made = ua.Variant(unit, ua.VariantType.ExtensionObject)
            self.property(variable.node_id, "EngineeringUnits", made, ObjectIds.EUInformation)

    def _type_name(self, name: ua.QualifiedName) -> str:
        """A name for a type that no other of this process has."""
        words = _WORD.split(f"{self._device.name} {name.Name}")
        return "".join(word[:1].upper() + word[1:] for word in words) + "Type"

    def _add_type(self, parent: int, name: str, definition: Any) -> ua.NodeId:
        attributes = ua.DataTypeAttributes()
        attributes.IsAbstract = False
        shown = ua.QualifiedName(name, ua.UInt16(self._own))
        made = self.add(
            standard(parent), shown, attributes, ua.NodeClass.DataType, reference=ObjectIds.HasSubtype
        )
        value = ua.DataValue(ua.Variant(definition, ua.VariantType.ExtensionObject))
        self.server.iserver.aspace[made].attributes[AttributeIds.DataTypeDefinition].value = value
        return made

    def _add_enumeration(self, point: OpcuaPoint, name: ua.QualifiedName) -> ua.NodeId:
        definition = ua.EnumDefinition()
        labels = {int(raw): label for raw, label in (point.labels or {}).items()}
        for raw, label in sorted(labels.items()):
            text = ua.LocalizedText(label)
            definition.Fields.append(ua.EnumField(ua.Int64(raw), text, text, ua.String(label)))
        made = self._add_type(ObjectIds.Enumeration, self._type_name(name), definition)
        if sorted(labels) == list(range(len(labels))):
            texts = ua.Variant([ua.LocalizedText(labels[raw]) for raw in sorted(labels)])
            self.property(made, "EnumStrings", texts, ObjectIds.LocalizedText)
        else:
            values = [
                ua.EnumValueType(ua.Int64(raw), ua.LocalizedText(label), ua.LocalizedText(label))
                for raw, label in sorted(labels.items())
            ]
            made_of = ua.Variant(values, ua.VariantType.ExtensionObject)
            self.property(made, "EnumValues", made_of, ObjectIds.EnumValueType)
        return made

    def _add_structure(self, variable: Variable, name: ua.QualifiedName) -> ua.NodeId:
        shown = self._type_name(name)
        definition = ua.StructureDefinition()
        definition.BaseDataType = standard(ObjectIds.Structure)
        definition.StructureType = ua.StructureType.Structure
        for field, kind in variable.fields.items():
            made = ua.StructureField()
            made.Name = ua.String(field)
            made.DataType = data_type_of(kind)
            made.ValueRank = ua.Int32(-1)
            made.IsOptional = False
            made.Description = ua.LocalizedText("")
            definition.Fields.append(made)
        data_type = self._add_type(ObjectIds.Structure, shown, definition)
        definition.DefaultEncodingId = self.add(
            data_type,
            ua.QualifiedName("Default Binary"),
            ua.ObjectAttributes(),
            ua.NodeClass.Object,
            ObjectIds.DataTypeEncodingType,
            reference=ObjectIds.HasEncoding,
        )
        variable.structure = make_structure(data_type, shown, definition)[shown]
        ua.register_extension_object(shown, definition.DefaultEncodingId, variable.structure, data_type)
        return data_type


_NAMES: Final = {
    "ExtensionObject": "Structure",
    "Variant": "BaseDataType",
}
"""Data types that are called otherwise than the built-in types they are sent as."""


def data_type_of(kind: str) -> ua.NodeId:
    """The data type of a built-in type."""
    return standard(getattr(ObjectIds, _NAMES.get(kind, kind)))


def _variable(value: ua.Variant, data_type: ua.NodeId, rank: int) -> ua.VariableAttributes:
    attributes = ua.VariableAttributes()
    attributes.Value = value
    attributes.DataType = data_type
    attributes.ValueRank = ua.Int32(rank)
    attributes.ArrayDimensions = [ua.UInt32(0)] if rank == 1 else []
    attributes.AccessLevel = attributes.UserAccessLevel = ua.Byte(_READ)
    attributes.MinimumSamplingInterval = ua.Double(0)
    attributes.Historizing = False
    return attributes


def _limits(point: OpcuaPoint) -> tuple[ua.Double, ua.Double] | None:
    """The range of a point in its node's unit."""
    if point.min is None or point.max is None or point.type not in ("number", "integer"):
        return None
    low, high = sorted(float(point.raw(limit)) for limit in (point.min, point.max))
    return ua.Double(low), ua.Double(high)

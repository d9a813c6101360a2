"""What `hilgate browse` makes of an address space: a profile that is valid, whatever the server says."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.browse import profile, profile_lines
from agent.profile import load_profile
from protocols.base import DriverError
from protocols.opcua.browse import Browsed, Found, browse
from protocols.opcua.limits import Limits
from protocols.opcua.session import Session
from protocols.opcua.walk import Bounds

URI = "urn:plant.example:tanks"
CONNECTION: Mapping[str, Any] = {"url": "opc.tcp://plc.example:4840", "security": {"policy": "None"}}
A = AttributeIds


def node(name: str | int, space: int = 1) -> ua.NodeId:
    return ua.NodeId(name, ua.Int16(space if isinstance(name, str) else 0))  # type: ignore[arg-type]  # a plain int


class Space:
    """An address space that answers as a server does, with `most` references at once."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.attributes: dict[tuple[ua.NodeId, int], Any] = {}
        self.references: dict[ua.NodeId, list[ua.ReferenceDescription]] = {}
        self.browsed = 0
        self.uaclient = self

    def add(
        self,
        parent: ua.NodeId,
        name: str,
        kind: ua.NodeClass = ua.NodeClass.Variable,
        reference: int = 47,
        **attributes: Any,
    ) -> ua.NodeId:
        prefix = f"{parent.Identifier}." if isinstance(parent.Identifier, str) else ""
        made = node(prefix + name)
        self.link(parent, made, name, kind, reference)
        for attribute, value in attributes.items():
            self.attributes[made, AttributeIds[attribute]] = value
        return made

    def link(
        self, parent: ua.NodeId, target: ua.NodeId, name: str, kind: ua.NodeClass, reference: int = 47
    ) -> None:
        expanded = ua.ExpandedNodeId(target.Identifier, target.NamespaceIndex, target.NodeIdType)
        self.references.setdefault(parent, []).append(
            ua.ReferenceDescription(
                ReferenceTypeId=node(reference),
                NodeId=expanded,
                BrowseName=ua.QualifiedName(name, ua.Int16(1)),
                NodeClass=kind,
            )
        )

    def double(self, parent: ua.NodeId, name: str, **attributes: Any) -> ua.NodeId:
        usual = {"DataType": node(11), "ValueRank": -1, "UserAccessLevel": 1, "AccessLevel": 3}
        return self.add(parent, name, **{**usual, **attributes})

    # The services.

    async def browse(self, parameters: ua.BrowseParameters) -> list[ua.BrowseResult]:
        self.browsed += len(parameters.NodesToBrowse)
        return [self._part(one.NodeId, one.ReferenceTypeId, 0) for one in parameters.NodesToBrowse]

    async def browse_next(self, parameters: ua.BrowseNextParameters) -> list[ua.BrowseResult]:
        (point,) = parameters.ContinuationPoints
        name, kind, start = cast(bytes, point).decode().rsplit("|", 2)
        return [self._part(ua.NodeId.from_string(name), node(int(kind)), int(start))]

    def _part(self, one: ua.NodeId, kind: ua.NodeId, start: int) -> ua.BrowseResult:
        wanted = {33: (33, 35, 46, 47), 45: (45,), 46: (46,)}[cast(int, kind.Identifier)]
        all_of = [r for r in self.references.get(one, []) if r.ReferenceTypeId.Identifier in wanted]
        end = start + self.most
        point = (
            f"{one.to_string()}|{cast(int, kind.Identifier)}|{end}".encode() if end < len(all_of) else None
        )
        return ua.BrowseResult(ContinuationPoint=point, References=all_of[start:end])

    async def read(self, parameters: ua.ReadParameters) -> list[ua.DataValue]:
        return [self.value(one) for one in parameters.NodesToRead]

    def value(self, wanted: ua.ReadValueId) -> ua.DataValue:
        value = self.attributes.get((wanted.NodeId, wanted.AttributeId))
        if wanted.NodeId == node(2255):
            value = ["http://opcfoundation.org/UA/", URI]
        if value is None:
            code = ua.StatusCode(ua.UInt32(StatusCodes.BadAttributeIdInvalid))
            return ua.DataValue(StatusCode=code)
        if isinstance(value, ua.Variant):
            return ua.DataValue(value, StatusCode=None)
        if isinstance(value, int):
            return ua.DataValue(ua.Variant(value, ua.VariantType.Int32))
        return ua.DataValue(ua.Variant(value))


class FakeSession:
    """As much of a session as browsing takes."""

    def __init__(self, space: Space) -> None:
        self.services = space
        self.limits = Limits(browse=3)
        self.namespaces: Sequence[str] = ("http://opcfoundation.org/UA/", URI)

    def errors(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    async def read(self, wanted: Sequence[ua.ReadValueId]) -> list[ua.DataValue]:
        return [self.services.value(one) for one in wanted]

    async def resolve(self, nodes: Sequence[str]) -> list[ua.NodeId | ua.StatusCode]:
        bad = ua.StatusCode(ua.UInt32(StatusCodes.BadNodeIdUnknown))
        return [bad if "Nothing" in one else ua.NodeId.from_string(one) for one in nodes]


ALL = Bounds()


async def walked(space: Space, bounds: Bounds = ALL, root: str = "i=85") -> Browsed:
    return await browse(cast(Session, FakeSession(space)), root, bounds, lambda _: None)


def named(browsed: Browsed) -> dict[str, Any]:
    made = profile(CONNECTION, browsed.found)["devices"]["server"]
    return {**made["points"], **made.get("methods", {})}


OBJECTS = node(85)
OBJECT = ua.NodeClass.Object


async def test_an_analog_item_has_unit_range_and_description() -> None:
    space = Space()
    level = space.double(
        OBJECTS, "TankLevel", UserAccessLevel=7, Description=ua.LocalizedText("Level\nof the tank")
    )
    space.add(level, "EURange", reference=46, Value=ua.Range(0.0, 4.5))
    space.add(
        level, "EngineeringUnits", reference=46, Value=ua.EUInformation(DisplayName=ua.LocalizedText("m"))
    )
    browsed = await walked(space)
    assert named(browsed) == {
        "tank-level": {
            "node": f"nsu={URI};s=TankLevel",
            "unit": "m",
            "min": 0.0,
            "max": 4.5,
            "description": "Level of the tank",
        }
    }
    assert browsed.found[0].notes == ["may be written: access: rw", "has a history"]
    assert browsed.complete


async def test_what_the_user_may_not_write_has_no_remark_and_what_nobody_may_touch_no_point() -> None:
    space = Space()
    space.double(OBJECTS, "Speed", UserAccessLevel=1, AccessLevel=3)
    space.double(OBJECTS, "Hidden", UserAccessLevel=0)
    space.double(OBJECTS, "Command", UserAccessLevel=2)
    browsed = await walked(space)
    assert list(named(browsed)) == ["speed", "command"]
    assert named(browsed)["command"]["access"] == "wo"
    assert [list(one.notes) for one in browsed.found] == [[], []]


async def test_labels_come_from_the_node_or_its_type() -> None:
    space = Space()
    mode = space.double(OBJECTS, "Mode", DataType=node(7))
    space.add(mode, "EnumStrings", reference=46, Value=[ua.LocalizedText("Off"), ua.LocalizedText("On")])
    phase = node("Phase")
    space.double(OBJECTS, "Phase", DataType=phase)
    space.references.setdefault(phase, [])
    space.attributes[phase, A.DataTypeDefinition] = ua.EnumDefinition(
        Fields=[ua.EnumField(Value=3, Name="Idle"), ua.EnumField(Value=10, Name="Filling")]
    )
    original = space.browse

    async def with_parents(parameters: ua.BrowseParameters) -> list[ua.BrowseResult]:
        results = await original(parameters)
        for one, result in zip(parameters.NodesToBrowse, results, strict=True):
            if one.BrowseDirection == ua.BrowseDirection.Inverse and one.NodeId == phase:
                result.References = [
                    ua.ReferenceDescription(ReferenceTypeId=node(45), NodeId=ua.ExpandedNodeId(ua.Int32(29)))
                ]
        return results

    space.browse = with_parents  # type: ignore[method-assign]  # the one node of a type that has a parent
    found = named(await walked(space))
    assert found["mode"]["labels"] == {"0": "Off", "1": "On"}
    assert found["mode"]["data_type"] == "UInt32"
    assert found["phase"]["labels"] == {"3": "Idle", "10": "Filling"}
    assert "data_type" not in found["phase"]


async def test_the_value_says_what_the_type_leaves_open() -> None:
    space = Space()
    space.double(OBJECTS, "Any", DataType=node(24), Value=ua.Variant(7, ua.VariantType.UInt16))
    space.double(OBJECTS, "Row", ValueRank=-3, Value=ua.Variant([1.5], ua.VariantType.Double))
    space.double(OBJECTS, "Nothing", DataType=node(24))
    found = named(await walked(space))
    assert (found["any"]["type"], found["any"]["data_type"]) == ("integer", "UInt16")
    assert found["row"]["type"] == "array"
    assert "nothing" not in found


async def test_methods_have_their_arguments_and_notifiers_their_events() -> None:
    space = Space()
    tank = space.add(OBJECTS, "Tank", OBJECT, EventNotifier=1)
    mix = space.add(tank, "Mix", ua.NodeClass.Method)
    space.add(mix, "InputArguments", reference=46, Value=[ua.Argument(Name="speed", DataType=node(10))])
    space.link(OBJECTS, node(2253), "Server", OBJECT)
    space.attributes[node(2253), A.EventNotifier] = 1
    space.link(node(2253), node("Diagnostics"), "Diagnostics", OBJECT)
    space.double(node("Diagnostics"), "Count")
    assert named(await walked(space)) == {
        "tank-events": {"node": f"nsu={URI};s=Tank", "type": "object", "events": "alarms"},
        "server-events": {"node": "i=2253", "type": "object", "events": "alarms"},
        "mix": {
            "object": f"nsu={URI};s=Tank",
            "method": f"nsu={URI};s=Tank.Mix",
            "inputs": {"speed": "Float"},
        },
    }


async def test_a_loop_is_walked_once_and_bounds_hold() -> None:
    space = Space(most=2)
    one = space.add(OBJECTS, "One", OBJECT)
    two = space.add(one, "Two", OBJECT)
    space.link(two, one, "One", OBJECT)
    for n in range(9):
        space.double(two, f"Value{n}")
    whole = await walked(space)
    assert (len(whole.found), whole.complete) == (9, True)
    assert space.browsed < 40
    cut = await walked(space, Bounds(nodes=6))
    assert (len(cut.found), cut.nodes, cut.complete) == (3, 6, False)
    shallow = await walked(space, Bounds(depth=2))
    assert (len(shallow.found), shallow.complete) == (0, False)
    assert (await walked(space, Bounds(namespace="http://opcfoundation.org/UA/"))).found == []


async def test_what_the_server_does_not_have_is_said() -> None:
    with pytest.raises(DriverError, match=r"no ns=1;s=Nothing: BadNodeIdUnknown"):
        await walked(Space(), root="ns=1;s=Nothing")
    with pytest.raises(DriverError, match=r"no namespace urn:x; it has .*tanks"):
        await walked(Space(), Bounds(namespace="urn:x"))


TEXT = st.text(max_size=70)
FIELDS = st.fixed_dictionaries(
    {"node": TEXT.map(lambda text: f"nsu={URI};s=x{text}")},
    optional={"unit": TEXT, "description": TEXT, "min": st.floats(-1e20, 0), "max": st.floats(1, 1e300)},
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=3).map(tuple), FIELDS), max_size=6))
def test_whatever_names_and_texts_there_are_the_profile_is_valid_and_says_them(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[tuple[str, ...], dict[str, Any]]]
) -> None:
    points = [(path, fields) for path, fields in points if "\n" not in fields["node"]]
    found = [Found(path, {"type": "number", **fields}) for path, fields in points]
    file = tmp_path_factory.getbasetemp() / "browsed.yaml"
    written = "\n".join(profile_lines(CONNECTION, found)) + "\n"
    Path(file).write_text(written, "utf-8")
    device = load_profile(file, {}).devices["server"]
    for (_, fields), point in zip(points, device.points.values(), strict=True):
        assert {name: getattr(point, name) for name in fields} == fields


def test_equal_names_are_told_apart_by_their_paths() -> None:
    paths = [("Tank", "Level"), ("Pump", "Level"), ("Pump", "Level"), ("Ö",)]
    found = [Found(path, {"node": "i=1", "type": "number"}) for path in paths]
    names = list(profile(CONNECTION, found)["devices"]["server"]["points"])
    assert names == ["level", "pump-level", "level-2", "root"]

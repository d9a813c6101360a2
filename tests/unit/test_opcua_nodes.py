"""Node ids and browse paths as profiles write them."""

import pytest
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from hypothesis import given
from hypothesis import strategies as st

from protocols.opcua.nodes import resolved, target

SPACES = ("http://opcfoundation.org/UA/", "urn:server.example", "urn:plant.example")


@pytest.mark.parametrize(
    ("written", "node"),
    [
        ("i=2258", ua.NodeId(ua.Int32(2258))),
        ("ns=2;s=Speed", ua.NodeId(ua.String("Speed"), ua.Int16(2))),
        ("nsu=urn:plant.example;s=a;b=c", ua.NodeId(ua.String("a;b=c"), ua.Int16(2))),
        ("nsu=urn:server.example;i=7", ua.NodeId(ua.Int32(7), ua.Int16(1))),
    ],
)
def test_node_ids_have_the_servers_index(written: str, node: ua.NodeId) -> None:
    assert resolved(written, SPACES) == node


def test_a_namespace_that_the_server_has_not_is_no_node() -> None:
    unknown = resolved("nsu=urn:other.example;i=7", SPACES)
    assert isinstance(unknown, ua.StatusCode)
    assert unknown.value == StatusCodes.BadNodeIdUnknown


def test_browse_paths_name_their_namespaces() -> None:
    path = resolved(["Objects", "2:Plant", "nsu=urn:server.example;a:b"], SPACES)
    assert isinstance(path, ua.BrowsePath)
    names = [element.TargetName for element in path.RelativePath.Elements]
    assert [(name.NamespaceIndex, name.Name) for name in names] == [(0, "Objects"), (2, "Plant"), (1, "a:b")]
    missing = resolved(["Objects", "nsu=urn:other.example;x"], SPACES)
    assert isinstance(missing, ua.StatusCode)


@given(st.text(max_size=40), st.sampled_from(["", "ns=1;", "nsu=urn:plant.example;", "ns=99999;"]))
def test_no_text_makes_it_raise(text: str, space: str) -> None:
    for kind in ("i=", "s=", "g=", "b="):
        assert isinstance(resolved(space + kind + text, SPACES), ua.NodeId | ua.StatusCode)


def test_a_target_on_another_server_or_in_the_middle_of_the_path_is_none() -> None:
    node = ua.NodeId(ua.String("x"), ua.Int16(2))
    part = ua.BrowsePathResult(ua.StatusCode(), [ua.BrowsePathTarget(node, ua.UInt32(0))])
    whole = ua.BrowsePathResult(ua.StatusCode(), [ua.BrowsePathTarget(node, ua.UInt32(0xFFFFFFFF))])
    assert isinstance(target(part, SPACES), ua.StatusCode)
    assert target(whole, SPACES) == node

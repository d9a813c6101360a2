"""OPC UA values of every kind, and what servers may make of them."""

from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from hypothesis import strategies as st

_TEXTS = st.text(max_size=8) | st.sampled_from(["\udcff", "a\udc80b", "\x00", "ns=1"])
_BYTES = st.binary(max_size=6)
_INTEGERS = {
    "SByte": (-(1 << 7), (1 << 7) - 1),
    "Byte": (0, (1 << 8) - 1),
    "Int16": (-(1 << 15), (1 << 15) - 1),
    "UInt16": (0, (1 << 16) - 1),
    "Int32": (-(1 << 31), (1 << 31) - 1),
    "UInt32": (0, (1 << 32) - 1),
    "Int64": (-(1 << 63), (1 << 63) - 1),
    "UInt64": (0, (1 << 64) - 1),
}
_TIMES = st.datetimes(
    datetime(1601, 1, 1),
    datetime(9999, 12, 31, 23, 59, 58),
    timezones=st.just(UTC),
)
_NODES = st.builds(ua.NodeId, st.integers(0, (1 << 32) - 1) | _TEXTS | st.uuids() | _BYTES, st.integers(0, 4))

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "Boolean": st.booleans(),
    **{name: st.integers(*limits) for name, limits in _INTEGERS.items()},
    "Float": st.floats(width=32),
    "Double": st.floats(),
    "String": _TEXTS,
    "DateTime": _TIMES,
    "Guid": st.uuids(),
    "ByteString": _BYTES,
    "XmlElement": st.builds(ua.XmlElement, _TEXTS),
    "NodeId": _NODES,
    "ExpandedNodeId": _NODES,
    "StatusCode": st.builds(ua.StatusCode, st.integers(0, (1 << 32) - 1)),
    "QualifiedName": st.builds(ua.QualifiedName, _TEXTS, st.integers(0, 4)),
    "LocalizedText": st.builds(ua.LocalizedText, st.none() | _TEXTS, st.none() | _TEXTS),
}
"""Values of the built-in types that stand for themselves."""

_EXTENSIONS = st.builds(lambda node, body: ua.ExtensionObject(node, body), _NODES, st.none() | _BYTES)


def _variant(name: str) -> st.SearchStrategy[ua.Variant]:
    kind = ua.VariantType[name]
    one = SCALARS[name]
    arrays = st.lists(one, max_size=3).map(lambda values: ua.Variant(values, kind, is_array=True))
    null = st.just(ua.Variant(None, kind, is_array=True))
    return one.map(lambda value: ua.Variant(value, kind)) | arrays | null


def _wrapped(inner: st.SearchStrategy[ua.Variant]) -> st.SearchStrategy[ua.Variant]:
    listed = st.lists(inner, max_size=3)
    return st.one_of(
        listed.map(lambda values: ua.Variant(values, ua.VariantType.Variant, is_array=True)),
        inner.map(lambda value: ua.Variant(ua.DataValue(value), ua.VariantType.DataValue)),
        inner.map(lambda value: ua.Variant(ua.DiagnosticInfo(), ua.VariantType.DiagnosticInfo)),
    )


_PLAIN = st.one_of(
    st.just(ua.Variant()),
    *(_variant(name) for name in SCALARS),
    _EXTENSIONS.map(lambda value: ua.Variant(value, ua.VariantType.ExtensionObject)),
    st.builds(lambda low: ua.Variant(ua.Range(low, 1.0), ua.VariantType.ExtensionObject), st.floats()),
)


VARIANTS = st.recursive(_PLAIN, _wrapped, max_leaves=5)
"""Whatever a server may send."""

DATA_VALUES = st.builds(
    lambda value, status, source, server, pico: ua.DataValue(value, status, source, server, pico),
    VARIANTS,
    st.none() | st.builds(ua.StatusCode, st.just(0) | st.integers(0, (1 << 32) - 1)),
    st.none() | _TIMES,
    st.none() | _TIMES,
    st.none() | st.integers(0, 65535),
)


def deep(levels: int) -> ua.Variant:
    """A variant in a variant, and so on."""
    inner = ua.Variant(1, ua.VariantType.Int32)
    for _ in range(levels):
        inner = ua.Variant([inner], ua.VariantType.Variant)
    return inner

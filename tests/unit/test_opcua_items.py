"""What notifications become: samples by time, points in their order."""

from collections.abc import Sequence
from datetime import UTC, datetime

from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from protocols.opcua.codec import Codec
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.items import Readings, filter_of
from protocols.opcua.point import OpcuaPoint

START = datetime(2026, 1, 2, tzinfo=UTC)
DEVICE = OpcuaDevice.model_validate(
    {
        "protocol": "opcua",
        "connection": {"url": "opc.tcp://plc.example", "security": {"policy": "None"}},
        "points": {"a": {"node": "i=1"}, "b": {"node": "i=2"}, "c": {"node": "i=3"}},
    }
)


def _data(value: float, second: int) -> ua.DataValue:
    return ua.DataValue(
        ua.Variant(value), SourceTimestamp=ua.DateTime.fromtimestamp(START.timestamp() + second, UTC)
    )


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=40))
def test_every_change_is_in_a_sample_of_its_time_and_in_its_order(changes: Sequence[tuple[str, int]]) -> None:
    codecs = {name: Codec(point) for name, point in DEVICE.points.items()}
    numbered = [(name, float(place), second) for place, (name, second) in enumerate(changes)]
    samples = Readings(DEVICE).samples(
        [(name, codecs[name], _data(value, second)) for name, value, second in numbered], 0
    )
    for point in "abc":
        came = [(one.values[point], one.time_ns) for one in samples if point in one.values]
        start_ns = int(START.timestamp()) * 10**9
        assert came == [(v, start_ns + s * 10**9) for name, v, s in numbered if name == point]


def test_an_overflow_is_counted_once() -> None:
    readings = Readings(DEVICE)
    data = ua.DataValue(ua.Variant(1.0), ua.StatusCode(ua.UInt32(0x0480)))
    (sample,) = readings.samples([("a", Codec(DEVICE.points["a"]), data)], 5)
    assert (sample.values, sample.time_ns) == ({"a": 1.0}, 5)
    assert readings.taken_overflows() == 1
    assert readings.taken_overflows() == 0


def test_filters_say_deadband_and_trigger() -> None:
    assert filter_of(OpcuaPoint(node="i=1")) is None
    absolute = filter_of(OpcuaPoint(node="i=1", deadband=0.5))
    percent = filter_of(OpcuaPoint(node="i=1", deadband_percent=2, trigger="status-value-timestamp"))
    assert isinstance(absolute, ua.DataChangeFilter)
    assert isinstance(percent, ua.DataChangeFilter)
    assert (absolute.DeadbandType, absolute.DeadbandValue) == (ua.DeadbandType.Absolute, 0.5)
    assert (percent.DeadbandType, percent.DeadbandValue) == (ua.DeadbandType.Percent, 2)
    assert percent.Trigger == ua.DataChangeTrigger.StatusValueTimestamp

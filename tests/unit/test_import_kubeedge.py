"""KubeEdge's documents into profiles: what is expressed, and that nothing is dropped in silence."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kubeedge.documents import devices_in
from agent.kubeedge.mapping import Inexpressible
from agent.kubeedge.profile import profile_lines
from agent.plugins import protocols
from agent.profile import load_profile

FOLDER = Path(__file__).parent / "kubeedge"


def imported(*texts: str) -> tuple[dict[str, Any], str, list[str]]:
    """The profile as data and as text, and the warnings."""
    warnings: list[str] = []
    known = protocols()
    devices, left = devices_in({f"file{n}.yaml": text for n, text in enumerate(texts)})
    lines = profile_lines("some Plant", devices, left, lambda name: known[name].config(), warnings.append)
    text = "\n".join(lines) + "\n"
    return yaml.safe_load(text), text, warnings


def sample(*names: str) -> tuple[dict[str, Any], str, list[str]]:
    return imported(*((FOLDER / name).read_text("utf-8") for name in names))


def test_modbus_over_tcp_of_v1beta1() -> None:
    profile, _, _ = sample("v1beta1.yaml")
    assert profile["profile"] == "some-plant"
    oven = profile["devices"]["oven-1"]
    assert oven["connection"] == {"transport": "tcp", "host": "oven.bench.example", "unit": 3, "port": 1502}
    assert oven["address_base"] == 0
    assert oven["points"] == {
        "chamber-temperature": {
            "table": "holding",
            "address": 2,
            "type": "int16",
            "scale": 0.1,
            "access": "rw",
            "unit": "°C",
            "min": -40,
            "max": 180.5,
            "description": "Air in the chamber",
            "poll": "2000ms",
        },
        "door": {"table": "discrete", "address": 7},
        "cycles": {"table": "input", "address": 10, "type": "uint32", "order": "DCBA"},
        "pressure": {"table": "input", "address": 20, "type": "float32", "order": "CDAB", "unit": "mbar"},
    }


def test_mqtt_of_v1beta1() -> None:
    profile, _, _ = sample("v1beta1.yaml")
    meter = profile["devices"]["meter"]
    assert meter["connection"]["host"] == "broker.bench.example"
    assert meter["connection"]["port"] == 1884
    assert meter["points"]["power"] == {
        "topic": "meter/power",
        "type": "number",
        "path": "value",
        "unit": "kW",
    }
    assert "access" not in meter["points"]["relay"]


def test_opcua_and_serial_modbus_of_v1alpha2_with_models_in_another_file() -> None:
    profile, text, _ = sample("v1alpha2-devices.yaml", "v1alpha2-models.yaml")
    plc, pump = profile["devices"]["plc"], profile["devices"]["pump"]
    assert plc["connection"]["security"]["policy"] == "Basic256Sha256"
    assert plc["connection"]["user"]["password_file"] == "plc.password"
    assert "not-to-be-copied" not in text
    speed = plc["points"]["speed"]
    assert (speed["node"], speed["poll"], speed["max"]) == ("ns=2;i=1005", "500ms", 3000)
    assert pump["connection"] == {
        "transport": "rtu",
        "port": "/dev/ttyS1",
        "unit": 9,
        "baudrate": 9600,
        "stopbits": 1,
        "parity": "even",
    }
    assert pump["points"]["flow"]["type"] == "int16"
    assert pump["points"]["run"] == {"table": "coil", "address": 1, "access": "rw"}


@pytest.mark.parametrize("names", [("v1beta1.yaml",), ("v1alpha2-models.yaml", "v1alpha2-devices.yaml")])
def test_what_comes_out_is_a_valid_profile(names: tuple[str, ...], tmp_path: Path) -> None:
    _, text, _ = sample(*names)
    path = tmp_path / "made.yaml"
    path.write_text(text, "utf-8")
    assert len(load_profile(str(path)).devices) == 2


@pytest.mark.parametrize(
    "lost",
    [
        "neither a Device nor a DeviceModel of devices.kubeedge.io/v1beta1 or devices.kubeedge.io/v1alpha2, "
        "but kind ConfigMap of apiVersion v1",
        "its model nowhere",
        "property ghost is not in the model",
        "spec.nodeName",
        "vendorMode",
        "chamberTemperature: reportToCloud",
        "camera is left out",
        "spare is left out",
        "tag is left out: there is no protocol 'bluetooth'",
        "cycles: it is ReadWrite, and InputRegister can only be read",
        "relay: it is ReadWrite",
    ],
)
def test_what_is_not_taken_over_is_a_comment_and_a_warning(lost: str) -> None:
    _, text, warnings = sample("v1beta1.yaml")
    assert any(lost in warning for warning in warnings)
    assert any(lost in line for line in text.splitlines() if line.lstrip().startswith("#"))


def test_that_nothing_can_be_expressed_is_said() -> None:
    with pytest.raises(Inexpressible, match="no device"):
        imported("apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {name: x}")


@pytest.mark.parametrize("text", ["{", "- a", "just words"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (YAML|map)"):
        imported(text)


MODEL = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: m}}
spec: {{properties: [{{name: a, type: {type}, accessMode: ReadWrite}}]}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: d}}
spec:
  deviceModelRef: {{name: m}}
  protocol: {{protocolName: modbus, configData: {config}}}
  properties: [{{name: a, visitors: {{configData: {visitor}}}}}]
"""
_HOST = "{ip: plc.example, slaveID: 1}"


@pytest.mark.parametrize(
    ("kind", "visitor", "point"),
    [
        ("INT", "{register: HoldingRegister, offset: 0, limit: 4}", {"type": "uint64"}),
        ("DOUBLE", "{register: HoldingRegister, offset: 0, limit: 4}", {"type": "float64"}),
        ("FLOAT", "{register: HoldingRegister, offset: 0, limit: 1, scale: 0.5}", {"scale": 0.5}),
        ("STRING", "{register: HoldingRegister, offset: 0, limit: 4, isSwap: true}", {"length": 8}),
        ("BOOLEAN", "{register: HoldingRegister, offset: 0, limit: 1}", {"bit": 0}),
        ("INT", "{register: coilregister, offset: 3}", {"table": "coil"}),
        ("INT", "{register: HoldingRegister, offset: 0, limit: 3}", None),
        ("INT", "{register: HoldingRegister, offset: 99999999}", None),
        ("INT", "{register: CoilRegister, offset: 0, limit: 2}", None),
        ("INT", "{register: HoldingRegister}", None),
        ("STRING", "{register: HoldingRegister, offset: 0, limit: 2, isRegisterSwap: true}", None),
    ],
)
def test_registers(kind: str, visitor: str, point: dict[str, Any] | None) -> None:
    profile, _, warnings = imported(MODEL.format(type=kind, config=_HOST, visitor=visitor))
    made = profile["devices"]["d"]["points"]
    if point is None:
        assert not made
        assert any("a is left out" in warning for warning in warnings)
    else:
        assert point.items() <= made["a"].items()


@pytest.mark.parametrize(
    "config",
    ["{}", "{ip: plc.example, slaveID: many}", "{serialPort: /dev/ttyS0, dataBits: 7}", "{ip: x, port: 0}"],
)
def test_a_device_that_no_profile_can_have_is_left_out(config: str) -> None:
    with pytest.raises(Inexpressible):
        imported(MODEL.format(type="INT", config=config, visitor="{}"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    [
        "register",
        "offset",
        "limit",
        "scale",
        "isSwap",
        "dataType",
        "min",
        "nodeID",
        "topic",
        "url",
        "ip",
        "port",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    protocol=st.sampled_from(["modbus", "opcua", "mqtt", "other"]),
    config=st.dictionaries(_KEYS, _JSON, max_size=4),
    visitor=st.dictionaries(_KEYS, _JSON, max_size=5),
    prop=st.fixed_dictionaries({"name": st.text(max_size=9), "type": st.sampled_from(["INT", "FLOAT", "X"])}),
    more=st.dictionaries(st.sampled_from(["unit", "description", "minimum", "accessMode"]), _JSON),
)
def test_whatever_a_document_says_the_profile_is_valid_or_nothing(
    protocol: str, config: Any, visitor: Any, prop: dict[str, Any], more: Any
) -> None:
    head = {"apiVersion": "devices.kubeedge.io/v1beta1"}
    model = {**head, "kind": "DeviceModel", "metadata": {"name": "m"}, "spec": {"properties": [prop | more]}}
    spec = {
        "deviceModelRef": {"name": "m"},
        "protocol": {"protocolName": protocol, "configData": config},
        "properties": [{"name": prop["name"], "visitors": {"configData": visitor}}],
    }
    device = {**head, "kind": "Device", "metadata": {"name": "d"}, "spec": spec}
    try:
        profile, _, _ = imported(yaml.safe_dump_all([model, device]))
    except ValueError:
        return
    assert list(profile["devices"]) == ["d"]

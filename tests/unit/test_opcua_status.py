"""Each status code has a quality of its own, by name and not only by severity."""

import subprocess
import sys
from collections import Counter

import pytest
from asyncua.ua.status_codes import StatusCodes, code_to_name_doc
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.base import Quality
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.status import QUALITIES, Judge, name_of, overflowed, words

_LOW, _HIGH, _CONSTANT = 0x0500, 0x0600, 0x0700


def test_every_name_that_is_not_good_stands_in_one_row() -> None:
    rows = Counter(name for names in QUALITIES.values() for name in names)
    assert set(rows) == {name for name, _ in code_to_name_doc.values() if not name.startswith("Good")}
    assert set(rows.values()) == {1}


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, (name, _) in code_to_name_doc.items()])
def test_a_code_has_the_quality_of_its_row(code: int, name: str) -> None:
    rows = [quality for quality, names in QUALITIES.items() if name in names]
    assert Judge().quality(code) == (rows[0] if rows else None)


@pytest.mark.parametrize(
    ("name", "quality"),
    [
        ("BadNodeIdUnknown", Quality.BAD_CONFIG),
        ("BadIndexRangeNoData", Quality.BAD_CONFIG),
        ("BadNoCommunication", Quality.DISCONNECTED),
        ("BadTimeout", Quality.TIMEOUT),
        ("UncertainEngineeringUnitsExceeded", Quality.OUT_OF_RANGE),
        ("BadOutOfRange", Quality.OUT_OF_RANGE),
        ("UncertainLastUsableValue", Quality.STALE),
        ("UncertainInitialValue", Quality.STALE),
        ("UncertainSubstituteValue", Quality.STALE),
        ("BadSensorFailure", Quality.DEVICE_ERROR),
        ("UncertainSubNormal", Quality.DEVICE_ERROR),
        ("GoodClamped", None),
        ("GoodLocalOverride", None),
    ],
)
def test_what_codes_mean(name: str, quality: Quality | None) -> None:
    assert Judge().quality(getattr(StatusCodes, name)) == quality


@pytest.mark.parametrize(
    ("code", "quality"),
    [
        (StatusCodes.UncertainSensorNotAccurate | _LOW, Quality.OUT_OF_RANGE),
        (StatusCodes.UncertainSensorNotAccurate | _HIGH, Quality.OUT_OF_RANGE),
        (StatusCodes.UncertainSensorNotAccurate | _CONSTANT, Quality.DEVICE_ERROR),
        (StatusCodes.UncertainSensorNotAccurate | 0x0100, Quality.DEVICE_ERROR),  # no limit: InfoType is 0
        (StatusCodes.UncertainLastUsableValue | _HIGH, Quality.STALE),
        (StatusCodes.BadSensorFailure | _HIGH, Quality.DEVICE_ERROR),
        (StatusCodes.Good | _HIGH, None),
        (StatusCodes.BadNodeIdUnknown | 0xC000, Quality.BAD_CONFIG),  # structure and semantics changed
        (0x4FFF_0000, Quality.DEVICE_ERROR),
        (0xC000_0000, Quality.DEVICE_ERROR),
        (0x3FFF_0000, None),
    ],
)
def test_limits_and_codes_without_a_name(code: int, quality: Quality | None) -> None:
    assert Judge().quality(code) == quality


@given(st.integers(0, 0xFFFF_FFFF))
def test_any_code_is_good_exactly_by_its_severity(code: int) -> None:
    assert (Judge().quality(code) is None) == (code >> 30 == 0)
    assert name_of(code)
    assert words(code)


def test_a_tolerated_code_is_good_with_whatever_limit() -> None:
    judge = Judge(["UncertainSensorNotAccurate"])
    assert judge.quality(StatusCodes.UncertainSensorNotAccurate) is None
    assert judge.quality(StatusCodes.UncertainSensorNotAccurate | _HIGH) is None
    assert judge.quality(StatusCodes.UncertainSubNormal) is Quality.DEVICE_ERROR


@pytest.mark.parametrize(
    ("code", "told"),
    [(0x0480, True), (0x4000_0480, True), (0x0080, False), (0x0400, False), (0x0880, False)],
)
def test_the_overflow_bit_counts_only_with_info_of_a_value(code: int, told: bool) -> None:
    assert overflowed(code) is told


def test_words_name_the_code_and_say_what_it_means() -> None:
    assert words(0x8034_0000) == (
        "BadNodeIdUnknown: The node id refers to a node that does not exist in the server address space"
    )
    assert words(0x8FFF_0000) == "status code 0x8FFF0000"


def _device(**changes: object) -> OpcuaDevice:
    connection = {"url": "opc.tcp://plc.example:4840", "security": {"policy": "None"}}
    return OpcuaDevice.model_validate({"protocol": "opcua", "connection": connection, "points": {}} | changes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("UncertainSubnormal", "did you mean UncertainSubNormal?"),
        ("Xyzzy", "Xyzzy is not the name of a status code"),
        ("GoodClamped", "GoodClamped is good anyway"),
    ],
)
def test_a_profile_tolerates_only_names_of_codes(name: str, text: str) -> None:
    with pytest.raises(ValidationError, match=text.replace("?", r"\?")) as caught:
        _device(tolerate=["UncertainSubNormal", name])
    assert [one["loc"] for one in caught.value.errors()] == [("tolerate", 1)]


def test_profiles_are_checked_without_the_library() -> None:
    program = "import sys, protocols.opcua.config; sys.exit('asyncua' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)

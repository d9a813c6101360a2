"""What op reserve takes: hostile until parsed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_bench import config

from agent.lease.parse import token_of, wish
from protocols.base import Refused

DEVICES = {
    "pump": config("pump", {"speed": {}}),
    "valve": config("valve", {"spool": {}}),
    "old": config("old", {"key": {}}).model_copy(update={"enabled": False}),
}
LONGEST = 3600.0


def test_all_fields() -> None:
    asked = {
        "op": "reserve",
        "holder": "ci-7",
        "ttl_s": 60,
        "devices": ["valve", "pump", "valve"],
        "dte": "dte-42",
        "priority": -3,
        "deadman_s": 2.5,
    }
    found = wish(asked, DEVICES, LONGEST)
    assert msgspec.structs.asdict(found) == {
        "holder": "ci-7",
        "ttl": 60.0,
        "devices": ("pump", "valve"),
        "dte": "dte-42",
        "priority": -3,
        "deadman": 2.5,
    }
    bare = wish({"holder": "ci", "ttl_s": 1.5}, DEVICES, LONGEST)
    assert (bare.devices, bare.dte, bare.priority, bare.deadman) == (None, "", 0, None)


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"holder": None}, "malformed", "$.holder"),
        ({"holder": ""}, "malformed", "$.holder"),
        ({"holder": "x" * 129}, "malformed", "$.holder"),
        ({"holder": "a\x00b"}, "malformed", "control characters"),
        ({"dte": "a\nb"}, "malformed", "control characters"),
        ({"dte": 7}, "malformed", "$.dte"),
        ({"ttl_s": 0}, "malformed", "$.ttl_s"),
        ({"ttl_s": -1}, "malformed", "$.ttl_s"),
        ({"ttl_s": True}, "malformed", "$.ttl_s"),
        ({"ttl_s": "60"}, "malformed", "$.ttl_s"),
        ({"ttl_s": 3600.1}, "out-of-range", "leases for 3600 s at most"),
        ({"ttl_s": 10**400}, "malformed", "ttl_s"),
        ({"devices": []}, "malformed", "$.devices"),
        ({"devices": "pump"}, "malformed", "$.devices"),
        ({"devices": [7]}, "malformed", "$.devices[0]"),
        ({"devices": ["pmup"]}, "unknown-device", "did you mean 'pump'?"),
        ({"devices": ["x" * 100_000]}, "unknown-device", "no device"),
        ({"devices": ["old"]}, "disabled", "old is disabled in the profile"),
        ({"priority": 1.5}, "malformed", "$.priority"),
        ({"priority": 1001}, "malformed", "$.priority"),
        ({"priority": -1001}, "malformed", "$.priority"),
        ({"deadman_s": 0}, "malformed", "$.deadman_s"),
        ({"deadman_s": 61}, "out-of-range", "longer than ttl_s"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(Refused) as caught:
        wish({"holder": "ci", "ttl_s": 60} | fields, DEVICES, LONGEST)
    assert caught.value.code == code
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("fields", [{}, {"lease": ""}, {"lease": 7}, {"lease": None}])
def test_renew_and_release_need_a_token(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="needs the field 'lease'"):
        token_of({"op": "renew"} | fields)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
JSON = SCALARS | st.lists(SCALARS | st.sampled_from(list(DEVICES)), max_size=3)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("holder", "ttl_s", "devices", "dte", "priority", "deadman_s"), JSON),
    )
)
def test_whatever_comes_is_a_wish_or_refused(fields: dict[str, Any]) -> None:
    try:
        found = wish(fields, DEVICES, LONGEST)
    except Refused as refused:
        assert refused.code in ("malformed", "out-of-range", "unknown-device", "disabled")
    else:
        assert 0 < found.ttl <= LONGEST

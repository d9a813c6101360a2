"""Counters and checksums: known vectors, other implementations, and what each covers."""

import random
from typing import Any

import pytest
from cantools.autosar.end_to_end import compute_profile2_crc
from crccheck.crc import Crc8SaeJ1850  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from protocols.can.config import Checksum, Counter
from protocols.can.config import Message as Settings
from protocols.can.signals.database import Message, Signal
from protocols.can.signals.protect import last_count, protect

INTEL = {"crc": Signal("crc", 0, 8, True), "count": Signal("count", 8, 4, True)}
MOTOROLA = {"crc": Signal("crc", 7, 8, False), "count": Signal("count", 11, 4, False)}


def _message(signals: dict[str, Signal], length: int = 8) -> Message:
    return Message("m", 1, length, False, None, signals)


def _protect(payload: bytes, settings: Settings, count: int = 0, signals: dict[str, Signal] = INTEL) -> bytes:
    return protect(payload, _message(signals, len(payload)), settings, count)


def _checked(profile: str, **fields: Any) -> Settings:
    return Settings(checksum=Checksum(signal="crc", profile=profile, **fields))


def _e2e(profile: str, **fields: Any) -> Settings:
    return Settings(
        counter=Counter(signal="count"), checksum=Checksum(signal="crc", profile=profile, **fields)
    )


def test_without_settings_nothing_changes() -> None:
    assert _protect(b"\1\2\3", Settings(), 7) == b"\1\2\3"


@pytest.mark.parametrize(
    ("profile", "rest", "checksum"),
    [
        ("sum8", "010203", 0x06),
        ("sum8", "ff02ff", 0x00),
        ("xor8", "010204", 0x07),
        ("xor8", "ffff55", 0x55),
        # Check value of CRC-8/SAE-J1850 in the CRC catalogue, over the digits 1 to 9.
        ("crc8-j1850", "313233343536373839", 0x4B),
        # SAE J1850, and AUTOSAR CRC library (SWS CRC), table of CRC-8: over four bytes 0.
        ("crc8-j1850", "00000000", 0x59),
        ("crc8-j1850", "f20183", 0x37),
        ("crc8-j1850", "0faa0055", 0x79),
        ("crc8-j1850", "00ff5511", 0xB8),
        ("crc8-j1850", "332255aabbccddeeff", 0xCB),
        ("crc8-j1850", "926b55", 0x8C),
        ("crc8-j1850", "ffffffff", 0x74),
    ],
)
@pytest.mark.parametrize("signals", [INTEL, MOTOROLA])
def test_checksums(profile: str, rest: str, checksum: int, signals: dict[str, Signal]) -> None:
    data = bytes.fromhex(rest)
    assert _protect(b"\x77" + data, _checked(profile), 0, signals) == bytes([checksum]) + data


def test_a_checksum_leaves_its_own_byte_out_wherever_it_is() -> None:
    settings = _checked("crc8-j1850")
    for at in range(10):
        signals = {"crc": Signal("crc", 8 * at + 7, 8, False)}
        payload = bytearray(b"123456789")
        payload.insert(at, 0xEE)
        payload_out = _protect(bytes(payload), settings, 0, signals)
        assert payload_out[at] == 0x4B
        assert payload_out[:at] + payload_out[at + 1 :] == b"123456789"


def test_the_counter_goes_round() -> None:
    counts = {"count": Signal("count", 4, 3, True)}
    for first, last, expected in (
        (0, None, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]),
        (6, None, [6, 7, 0, 1, 2, 3, 4, 5, 6, 7]),
        (1, 3, [1, 2, 3, 0, 1, 2, 3, 0, 1, 2]),
    ):
        settings = Settings(counter=Counter(signal="count", first=first, last=last))
        found = [_protect(b"\x8f", settings, count, counts)[0] for count in range(10)]
        assert found == [0x8F | value << 4 for value in expected]
        assert last_count(_message(counts), settings) == (7 if last is None else last)


def test_without_a_counter_there_is_one_count() -> None:
    assert last_count(_message({}), Settings()) == 0


def test_the_checksum_covers_the_counter() -> None:
    settings = Settings(counter=Counter(signal="count"), checksum=Checksum(signal="crc", profile="sum8"))
    assert [_protect(b"\0\0\1", settings, count).hex() for count in (0, 1, 15, 16)] == [
        "010001",
        "020101",
        "100f01",
        "010001",
    ]


# Made with another implementation: autosar-e2e 1.0.0, e2e_p01_protect with DATAID_BOTH and e2e_p02_protect.
P01 = [
    (0x123, "0000000000000000", "cc00000000000000"),
    (0x123, "000e112233445566", "dc0e112233445566"),
    (0xABCD, "00f5ffffffffffff", "8df5ffffffffffff"),
    (0, "0000", "0000"),
]
P02 = [
    ("0000000000000000", "8f00000000000000"),
    ("000f010203040506", "470f010203040506"),
    ("00a7", "a8a7"),
]


@pytest.mark.parametrize(("data_id", "payload", "protected"), P01)
@pytest.mark.parametrize("signals", [INTEL, MOTOROLA])
def test_e2e_profile_1(data_id: int, payload: str, protected: str, signals: dict[str, Signal]) -> None:
    data = bytes.fromhex(payload)
    out = _protect(data, _e2e("e2e-p01", data_id=data_id), data[1] & 15, signals)
    assert out.hex() == protected


def test_e2e_profile_1_counts_to_14() -> None:
    settings = _e2e("e2e-p01", data_id=1)
    found = [_protect(bytes(8), settings, count)[1] for count in range(17)]
    assert found == [*range(15), 0, 1]
    assert last_count(_message(INTEL), settings) == 14


@given(st.binary(min_size=2, max_size=64), st.integers(0, 0xFFFF), st.integers(0, 14))
def test_e2e_profile_1_is_the_j1850_crc_with_other_ends(payload: bytes, data_id: int, count: int) -> None:
    """AUTOSAR PRS E2E, profile 1: start and final value are those of the library, undone by 0xFF."""
    out = _protect(payload, _e2e("e2e-p01", data_id=data_id), count)
    assert out[1] == payload[1] & 0xF0 | count
    # A CRC is linear: without start and final value it is that of the data with the all-zero data's undone.
    covered = data_id.to_bytes(2, "little") + out[1:]
    assert out[0] == Crc8SaeJ1850.calc(covered) ^ Crc8SaeJ1850.calc(bytes(len(covered)))


@pytest.mark.parametrize(("payload", "protected"), P02)
def test_e2e_profile_2(payload: str, protected: str) -> None:
    data = bytes.fromhex(payload)
    out = _protect(data, _e2e("e2e-p02", data_ids=tuple(range(0x10, 0x20))), data[1] & 15)
    assert out.hex() == protected


def test_e2e_profile_2_is_that_of_cantools() -> None:
    randomly = random.Random(1)
    for count in range(40):
        data_ids = randomly.randbytes(16)
        out = _protect(randomly.randbytes(8), _e2e("e2e-p02", data_ids=tuple(data_ids)), count)
        assert out[1] & 15 == count % 16
        assert out[0] == compute_profile2_crc(out, data_ids[count % 16])

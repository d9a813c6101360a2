"""A client, secured as its profile says, and servers that are what they should be, or are not."""

import datetime
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from asyncua.client.client import Client
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from protocols.base import DriverError
from protocols.opcua import certificates
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.security import secure
from sim.opcua.devices import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {"cert": "hilgate.pem", "key": "hilgate.key", "trust": ["trusted"]}
PASSWORD = {"name": "joe", "password_file": "joe.password"}
TIMEOUT_S = 30.0


def profile(security: Mapping[str, Any] | None = None, user: Mapping[str, Any] | None = None) -> OpcuaDevice:
    given = {} if (security or {}).get("policy") == "None" else FILES
    raw = {
        "protocol": "opcua",
        "connect_timeout": TIMEOUT_S,
        "connection": {
            "url": "opc.tcp://plc.example:4840",
            "security": {**given, **(security or {})},
            "user": user,
        },
        "points": {"speed": {"node": "ns=2;s=Speed", "access": "rw"}},
    }
    return OpcuaDevice.model_validate(raw).named("cell")


async def connected(device: OpcuaDevice) -> Client:
    client = Client(device.connection.url, timeout=TIMEOUT_S)
    await secure(client, device)
    await client.connect()
    return client


async def speed(device: OpcuaDevice) -> Any:
    client = await connected(device)
    try:
        return await client.get_node("ns=2;s=Speed").read_value()
    finally:
        await client.disconnect()


def but(device: OpcuaDevice, part: str, **changes: Any) -> OpcuaDevice:
    """The device with a part of its connection changed; as `OpcuaDevice` does not check it again."""
    old = getattr(device.connection, part)
    connection = device.connection.model_copy(update={part: old.model_copy(update=changes)})
    return device.model_copy(update={"connection": connection})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    """A server that wants Basic256Sha256, SignAndEncrypt, and joe's password."""
    async with serving(profile(user=PASSWORD)) as made:
        yield made


@pytest.mark.parametrize(
    ("security", "user"),
    [
        ({"policy": "None"}, None),
        ({"policy": "None"}, PASSWORD | {"allow_insecure": True}),
        ({"mode": "Sign"}, None),
        ({"policy": "Aes128_Sha256_RsaOaep"}, {"cert": "joe.pem", "key": "joe.key"}),
        ({"policy": "Aes256_Sha256_RsaPss", "mode": "Sign"}, PASSWORD | {"allow_insecure": True}),
        ({"policy": "Basic256", "allow_insecure": True}, None),
        ({"policy": "Basic128Rsa15", "allow_insecure": True}, None),
        ({"verify": False}, None),
    ],
    ids=str,
)
async def test_each_policy_mode_and_user_is_had(security: dict[str, Any], user: dict[str, Any]) -> None:
    async with serving(profile(security, user)) as served:
        assert await speed(served.device) == 0


async def test_a_password_and_a_trusted_certificate_are_let_in(served: Served) -> None:
    assert await speed(served.device) == 0


async def test_a_wrong_password_is_not(served: Served, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")
    with pytest.raises(UaStatusCodeError, match="BadUserAccessDenied"):
        await speed(but(served.device, "user", password_file=str(tmp_path / "password")))


async def test_an_anonymous_user_is_told_what_the_server_offers(served: Served) -> None:
    connection = served.device.connection.model_copy(update={"user": None})
    with pytest.raises(DriverError, match=r"for anonymous users; it offers .* for users with a password"):
        await speed(served.device.model_copy(update={"connection": connection}))


async def test_nobody_becomes_anonymous_by_an_empty_name(served: Served) -> None:
    with pytest.raises(UaError, match="would be activated by anonymous users"):
        await speed(but(served.device, "user", name=""))


async def test_another_policy_is_not_fallen_back_to(served: Served) -> None:
    with pytest.raises(DriverError, match="does not offer Aes128_Sha256_RsaOaep with SignAndEncrypt"):
        await speed(but(served.device, "security", policy="Aes128_Sha256_RsaOaep"))


async def test_who_is_not_trusted_is_named_with_what_to_do(served: Served, tmp_path: Path) -> None:
    certificate = served.server.iserver.certificate
    with pytest.raises(DriverError) as caught:
        await speed(but(served.device, "security", trust=(str(tmp_path),)))
    assert caught.value.code == "disconnected"
    assert certificates.thumbprint(certificate) in str(caught.value)
    assert f"put the certificate, or its authority's, into {tmp_path}" in str(caught.value)


async def test_a_certificate_that_is_put_into_the_folder_is_trusted_from_then_on(
    served: Served, tmp_path: Path
) -> None:
    device = but(served.device, "security", trust=(str(tmp_path),))
    (tmp_path / "README").write_text("no certificate")
    with pytest.raises(DriverError, match="is not trusted"):
        await speed(device)
    (tmp_path / "plc.crt").write_bytes(certificates.pem(served.server.iserver.certificate))
    assert await speed(device) == 0


async def test_a_host_that_is_not_in_the_certificate_is_an_error(served: Served) -> None:
    port = served.device.connection.url.rpartition(":")[2]
    moved = served.device.connection.model_copy(update={"url": f"opc.tcp://127.1:{port}"})
    device = served.device.model_copy(update={"connection": moved})
    with pytest.raises(DriverError, match=r"is for localhost, .*, and not for 127\.1; use such a name"):
        await speed(device)
    assert await speed(but(device, "security", verify=False)) == 0


@pytest.mark.parametrize(("days", "words"), [(1, "was valid until"), (-4000, "is valid only from")])
async def test_a_certificate_out_of_its_dates_is_an_error(
    served: Served, monkeypatch: pytest.MonkeyPatch, days: int, words: str
) -> None:
    end: datetime.datetime = served.server.iserver.certificate.not_valid_after_utc

    class Later:
        @staticmethod
        def now(tz: datetime.tzinfo) -> datetime.datetime:
            return end + datetime.timedelta(days=days)

    faked = SimpleNamespace(datetime=Later, UTC=datetime.UTC)
    monkeypatch.setattr("protocols.opcua.security.datetime", faked)
    with pytest.raises(DriverError, match=words):
        await speed(served.device)


async def test_another_application_behind_a_trusted_certificate_is_an_error() -> None:
    async with serving(profile()) as served:
        for endpoint in served.server.iserver.endpoints:
            endpoint.Server.ApplicationUri = "urn:other.example"
        with pytest.raises(DriverError, match=r"the server says it is urn:other\.example"):
            await speed(served.device)


@pytest.mark.parametrize(
    ("field", "content", "words"),
    [
        ("cert", None, "No such file"),
        ("cert", b"nonsense", "no certificate in PEM or DER"),
        ("key", b"nonsense", "cannot be used"),
        ("key", "another", "does not belong to"),
        ("trust", b"", "holds no certificate"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(
    served: Served, tmp_path: Path, field: str, content: bytes | str | None, words: str
) -> None:
    file = tmp_path / "file.pem"
    if content == "another":
        made = certificates.self_signed("hilgate", "urn:rig.example", ["rig.example"], 1)
        file.write_bytes(certificates.key_pem(made.key))
    elif isinstance(content, bytes):
        file.write_bytes(content)
    given = (str(file),) if field == "trust" else str(file)
    with pytest.raises(DriverError, match=words) as caught:
        await speed(but(served.device, "security", **{field: given}))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(("content", "words"), [(b"", "no password"), (b"\xff\n", "no text in UTF-8")])
async def test_a_password_file_that_holds_none_is_named(
    served: Served, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(DriverError, match=words):
        await speed(but(served.device, "user", password_file=str(tmp_path / "password")))

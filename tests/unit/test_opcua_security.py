"""What of a server's offers is taken, and what is said where nothing is."""

from collections.abc import Sequence
from typing import Any

import pytest
from asyncua import ua

from protocols.base import DriverError
from protocols.opcua.config import Connection
from protocols.opcua.security import choose

URI = "http://opcfoundation.org/UA/SecurityPolicy#"
ANONYMOUS, NAME, CERTIFICATE = (
    ua.UserTokenType.Anonymous,
    ua.UserTokenType.UserName,
    ua.UserTokenType.Certificate,
)
FILES = {"cert": "hilgate.pem", "key": "hilgate.key", "trust": ["trusted"]}
PASSWORD = {"name": "joe", "password_file": "joe.password"}


def token(kind: ua.UserTokenType, policy: str | None = None, name: str = "token") -> ua.UserTokenPolicy:
    uri = ua.String(URI + policy) if policy is not None else None
    return ua.UserTokenPolicy(ua.String(name), kind, SecurityPolicyUri=uri)


def endpoint(policy: str, mode: str, *tokens: ua.UserTokenPolicy) -> ua.EndpointDescription:
    made = ua.EndpointDescription()
    made.SecurityPolicyUri = ua.String(URI + policy)
    made.SecurityMode = ua.MessageSecurityMode[mode]
    made.UserIdentityTokens = list(tokens)
    return made


def connection(user: dict[str, Any] | None = None, **security: Any) -> Connection:
    files = {} if security.get("policy") == "None" else FILES
    raw = {"url": "opc.tcp://plc.example:4840", "security": files | security, "user": user}
    return Connection.model_validate(raw)


EVERYTHING: Sequence[ua.EndpointDescription] = [
    endpoint(policy, mode, token(ANONYMOUS, "None", f"{policy} {mode}"))
    for policy in ("Basic256", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
    for mode in ("Sign", "SignAndEncrypt")
] + [endpoint("None", "None_", token(ANONYMOUS, "None", "None"))]


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
def test_the_endpoint_is_exactly_the_wanted_one(policy: str, mode: str) -> None:
    chosen = choose(EVERYTHING, connection(policy=policy, mode=mode))
    assert chosen.token.PolicyId == f"{policy} {mode}"
    assert chosen.endpoint.SecurityPolicyUri == URI + policy


def test_policy_none_takes_none() -> None:
    assert choose(EVERYTHING, connection(policy="None")).token.PolicyId == "None"


@pytest.mark.parametrize(
    "offered",
    [
        [endpoint("None", "None_", token(ANONYMOUS))],
        [endpoint("Basic256Sha256", "Sign", token(ANONYMOUS))],
        [endpoint("Aes128_Sha256_RsaOaep", "SignAndEncrypt", token(ANONYMOUS))],
        [endpoint("Basic256Sha256", "SignAndEncrypt", token(NAME))],
        [endpoint("Basic256Sha256", "SignAndEncrypt")],
        [],
    ],
)
def test_nothing_is_fallen_back_to(offered: Sequence[ua.EndpointDescription]) -> None:
    with pytest.raises(DriverError, match="does not offer Basic256Sha256 with SignAndEncrypt for anonymous"):
        choose(offered, connection())


def test_what_is_offered_instead_is_listed() -> None:
    offered = [
        endpoint("None", "None_", token(ANONYMOUS), token(NAME)),
        endpoint("Basic256Sha256", "Sign", token(CERTIFICATE)),
    ]
    with pytest.raises(DriverError) as caught:
        choose(offered, connection())
    assert caught.value.code == "disconnected"
    assert str(caught.value).endswith(
        "it offers None for anonymous users, users with a password; "
        "Basic256Sha256 with Sign for users with a certificate"
    )


def test_a_token_without_a_policy_has_the_endpoints() -> None:
    offered = [endpoint("Basic256Sha256", "SignAndEncrypt", token(NAME))]
    assert choose(offered, connection(PASSWORD)).token.SecurityPolicyUri == URI + "Basic256Sha256"


def test_a_password_may_be_plain_where_the_channel_encrypts_it() -> None:
    offered = [endpoint("Basic256Sha256", "SignAndEncrypt", token(NAME, "None"))]
    assert choose(offered, connection(PASSWORD)).token.SecurityPolicyUri == URI + "None"


def test_a_password_is_encrypted_where_it_can_be() -> None:
    tokens = [token(NAME, "None", "plain"), token(NAME, "Basic256Sha256", "encrypted")]
    for policy, mode in (("None", "None_"), ("Basic256Sha256", "Sign")):
        offered = [endpoint(policy, mode, *tokens)]
        wanted = {"policy": policy} | ({"mode": mode} if policy != "None" else {})
        chosen = choose(offered, connection(PASSWORD | {"allow_insecure": True}, **wanted))
        assert chosen.token.PolicyId == "encrypted"


@pytest.mark.parametrize("policy", ["None", "Basic128Rsa15", "Basic256", "Unheard"])
def test_a_password_is_never_sent_over_a_channel_that_does_not_encrypt_nor_by_what_is_broken(
    policy: str,
) -> None:
    offered = [endpoint("Basic256Sha256", "Sign", token(NAME, policy))]
    with pytest.raises(DriverError, match="for users with a password"):
        choose(offered, connection(PASSWORD, mode="Sign"))


def test_a_password_goes_plain_where_the_profile_says_that_it_may() -> None:
    offered = [endpoint("None", "None_", token(NAME))]
    chosen = choose(offered, connection(PASSWORD | {"allow_insecure": True}, policy="None"))
    assert chosen.token.SecurityPolicyUri == URI + "None"


def test_a_users_certificate_needs_a_policy_to_sign_with() -> None:
    user = {"cert": "joe.pem", "key": "joe.key"}
    with pytest.raises(DriverError, match="for users with a certificate"):
        choose([endpoint("None", "None_", token(CERTIFICATE))], connection(user, policy="None"))
    offered = [endpoint("None", "None_", token(CERTIFICATE, "Basic256Sha256"))]
    chosen = choose(offered, connection(user, policy="None"))
    assert chosen.token.SecurityPolicyUri == URI + "Basic256Sha256"


def test_broken_policies_are_taken_only_where_the_profile_says_so() -> None:
    chosen = choose(EVERYTHING, connection(policy="Basic256", allow_insecure=True))
    assert chosen.endpoint.SecurityPolicyUri == URI + "Basic256"

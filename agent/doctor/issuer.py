"""A row of the check `settings`: the keys that tokens are checked with are there, and some can be used."""

from collections.abc import Mapping

from agent.authorization.config import Jwt
from agent.authorization.keys import BadKeys, KeySet, read_keys
from agent.authorization.source import Keys, NoKeys
from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, ok


def judge(source: str, keys: KeySet, trouble: str) -> Finding:
    """What is to be said of a source of keys; others of a set are often for other uses."""
    subject = f"authorization.jwt.jwks ({source})"
    if trouble:
        return failed(subject, trouble, "put the issuer's keys there: without them every token is refused")
    unused = f"; not used: {len(keys.skipped)}" if keys.skipped else ""
    return ok(subject, f"{len(keys.keys)} of the issuer's keys can be used{unused}")


def parts(case: Case) -> Mapping[str, Look]:
    """One look at the source, if tokens are taken."""
    authorization = None if case.settings is None else case.settings.authorization
    jwt = None if authorization is None else authorization.jwt
    if jwt is None:
        return {}

    async def look() -> list[Finding]:
        return [judge(jwt.jwks, *await _gather(jwt))]

    return {"authorization.jwt.jwks": look}


async def _gather(jwt: Jwt) -> tuple[KeySet, str]:
    try:
        return read_keys(await Keys(jwt, lambda _: None).read(), jwt.algorithms), ""
    except (NoKeys, BadKeys) as error:
        return KeySet(), str(error)

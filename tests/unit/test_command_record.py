"""What the audit says of who sent a command."""

import issuer
import msgspec
import pytest

from agent.commands.record import audited, begun
from agent.commands.result import result


@pytest.mark.parametrize(
    ("user", "subject", "who"),
    [
        ("anne", "", "anne"),
        ("", "", ""),
        ("anne", "alice", "alice via anne"),
        ("", "alice", "alice via no user-id"),
        ("alice via anne", "", "'alice via anne'"),
    ],
)
def test_a_user_id_is_not_taken_for_the_subject_of_a_token(user: str, subject: str, who: str) -> None:
    command = msgspec.structs.replace(issuer.command("ping", user=user), subject=subject)
    assert audited(begun(command, "", ""), result("ping", 1, "ok")).who == who

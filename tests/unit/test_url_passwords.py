"""A password that stands in a URL is refused and not repeated, however the URL is broken."""

from collections.abc import Callable

import pytest

from agent.authorization.config import _source
from agent.settings import _broker
from protocols.amqp.options import Options
from protocols.opcua.config import _endpoint


@pytest.mark.parametrize(
    ("scheme", "take"),
    [
        ("amqps", lambda url: Options(url=url, container_id="test")),
        ("amqps", _broker),
        ("opc.tcp", _endpoint),
        ("https", _source),
    ],
)
@pytest.mark.parametrize(
    "url",
    [
        "{}://user:s3cret@there.example",
        "{}://user:s3cret/x@there.example",
        "{}://user:s3cret#x@there.example",
        "{}://user:s3cret?x@there.example",
        "{}://s3cret@there.example",
        "x{}://user:s3cret@there.example",
    ],
)
def test_it_is_not_repeated(scheme: str, take: Callable[[str], object], url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|credentials|should be|user name") as caught:
        take(url.format(scheme))
    assert "s3cret" not in str(caught.value)

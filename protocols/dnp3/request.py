"""A request under way at an outstation, and what has come of its response."""

import asyncio

from protocols.dnp3.fragment import Block, Fragment, Reply
from protocols.dnp3.objects import REFUSALS, Iin


class Request:
    """A request under way, and what has come of its response."""

    def __init__(self, octets: bytes, sequence: int, retries: int, report: bool) -> None:
        self.done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.octets = octets
        self.expected = sequence  # of the next fragment
        self.sent_ns = 0
        self.retries = retries
        self.report = report
        self.begun = False
        self.crossed = False  # see Fragment
        self.storing = False  # a fragment of the response, before it is confirmed
        self.size = 0
        self.iin = Iin(0)
        self.blocks: list[Block] = []
        self.problem = ""

    def add(self, fragment: Fragment, size: int) -> None:
        """Takes a fragment of the response."""
        self.begun = True
        self.size += size
        # A refusal stands in the fragment that it is about, which need not be the last.
        self.iin = self.iin & REFUSALS | fragment.iin
        self.blocks += fragment.decoded.blocks
        self.problem = self.problem or fragment.decoded.problem

    def reply(self, time_ns: int) -> Reply:
        """The whole response, once its last fragment has come."""
        return Reply(self.iin, self.blocks, time_ns, self.problem, self.sent_ns)

"""Lines of bytes: commands made, answers taken apart as they come in. Pure; what comes in is hostile."""

from collections.abc import Callable
from typing import NamedTuple

from protocols.base import Refused
from protocols.text.blocks import BlockError, head
from protocols.text.checksums import ChecksumError
from protocols.text.config import TextDevice
from protocols.text.point import is_line

_ENDS = b"\r\n"
_MOST_LINES = 1000
"""Lines of one answer before a prompt, and lines that are not the answer, after which it is given up."""


class Garbled(Exception):
    """Bytes that cannot be the answer; the text is one sentence."""


class Framing:
    """How one device's commands and answers are lines."""

    def __init__(self, device: TextDevice) -> None:
        self.encoding = device.encoding
        self.terminator = device.terminator.encode()
        self.write_terminator = (device.write_terminator or device.terminator).encode()
        self.prompt = None if device.prompt is None else device.prompt.encode(device.encoding)
        self.echo = device.echo
        self.max_line = device.max_line
        self._checksum = device.checksum
        self._prefix = device.prefix
        self._answer_prefix = device.answer_prefix
        on = None if device.checksum is None else device.checksum.on
        self._sums_commands = on in ("both", "commands")
        self.sums_answers = on in ("both", "answers")
        raw = device.checksum is not None and device.checksum.format == "raw" and self.sums_answers
        self._slack = device.checksum.width if raw and device.checksum is not None else 0

    def command(self, text: str, block: bytes | None = None) -> bytes:
        """The bytes of a command; a block takes the place of the text's NUL.

        Raises:
            Refused: `out-of-range`: the text is not one line of the device's encoding.
        """
        body = self._prefix + text
        try:
            encoded = body.encode(self.encoding)
        except UnicodeEncodeError:
            raise Refused("out-of-range", f"{body!r:.80} cannot be sent as {self.encoding}") from None
        if not is_line(body if block is None else body.replace("\0", "", 1)) or not text:
            raise Refused("out-of-range", f"{body!r:.80} is not one line without control characters")
        if block is not None:
            encoded = encoded.replace(b"\0", block, 1)
        if self._sums_commands and self._checksum is not None:
            encoded = self._checksum.add(encoded)
        return encoded + self.write_terminator

    def cut(self, buffer: bytearray) -> bytes | None:
        """Takes the first whole line off the buffer, without its terminator; None while there is none.

        Raises:
            Garbled: the line is too long, whether or not it has an end.
        """
        end = buffer.find(self.terminator)
        if self._slack:
            end = self._summed_end(buffer, end)
        if end > self.max_line or (end < 0 and len(buffer) > self.max_line + len(self.terminator)):
            start = bytes(buffer[:40])
            buffer.clear()
            raise Garbled(f"a line is longer than max_line, {self.max_line} bytes: {start!r}...")
        if end < 0:
            return None
        line = bytes(buffer[:end])
        del buffer[: end + len(self.terminator)]
        return line

    def _summed_end(self, buffer: bytearray, first: int) -> int:
        """Where the line ends whose raw checksum may hold the terminator: where its checksum is right."""
        assert self._checksum is not None
        end = first
        while 0 <= end <= first + self._slack:
            try:
                self._checksum.strip(bytes(buffer[:end]))
            except ChecksumError:
                end = buffer.find(self.terminator, end + 1)
            else:
                return end
        # None is right: once all that may belong to it is there, it is the line's fault.
        return first if len(buffer) > first + self._slack + len(self.terminator) and first >= 0 else -1

    def text(self, line: bytes) -> str:
        """What a line says.

        Raises:
            Garbled: its checksum is wrong, or it is not of the encoding.
        """
        try:
            if self.sums_answers and self._checksum is not None:
                line = self._checksum.strip(line.strip(_ENDS) if not self._slack else line)
            return line.decode(self.encoding).strip()
        except ChecksumError as error:
            raise Garbled(str(error)) from None
        except UnicodeDecodeError:
            raise Garbled(f"{line[:40]!r} is not {self.encoding}") from None

    def own(self, text: str) -> str | None:
        """The line without the device's answer prefix; None: it is not the device's."""
        prefix = self._answer_prefix
        return text[len(prefix) :].strip() if text.startswith(prefix) else None


class Want(NamedTuple):
    """What a command is to be answered with."""

    line: bool = False
    """A line, or with a prompt all lines before it."""
    block: int | None = None
    """A binary block of at most so many bytes."""
    accept: Callable[[str], bool] = lambda text: True
    """Which line it is; others before it are put aside."""
    unasked: Callable[[str], bool] = lambda text: False
    """Which lines are reports that come unasked, and not the answer; they are put aside."""


NOTHING = Want()
LINE = Want(line=True)


class Reply:
    """The answer to one command, taken out of the bytes as they come.

    `aside` has the lines that were not of it. `open_ended` is true while the answer is whole if, and only if,
    no more bytes follow: so is a block of indefinite length.
    """

    def __init__(self, framing: Framing, sent: bytes, want: Want) -> None:
        self._framing = framing
        self._want = want
        self._echo = sent[: -len(framing.write_terminator)] if framing.echo else b""
        self._echoing = framing.echo
        self._answering = want.line or want.block is not None
        self._prompting = framing.prompt is not None
        self._after_echo = False
        self._after_block = False
        self._lines: list[str] = []
        self.block: bytes | None = None
        self.aside: list[str] = []
        self.open_ended = False

    @property
    def text(self) -> str:
        """The answer's text; its lines stay lines."""
        return "\n".join(self._lines)

    @property
    def empty(self) -> bool:
        """Nothing was expected, so that a device that is gone is not told from one that is there."""
        return not self._lines and self.block is None

    @property
    def complete(self) -> bool:
        """Nothing more is expected."""
        return not (self._echoing or self._answering or self._prompting or self._after_block)

    def take(self, buffer: bytearray) -> bool:
        """Takes what belongs to the answer off the buffer, and says whether it is complete.

        Raises:
            Garbled: what came cannot be the answer.
        """
        if self._echoing and not self._take_echo(buffer):
            return False
        if self._after_echo:
            del buffer[: len(buffer) - len(buffer.lstrip(_ENDS))]
            if not buffer:
                return self.complete
            self._after_echo = False
        if self._want.block is not None and self._answering and not self._take_block(buffer):
            return False
        if self._after_block and not self._take_end(buffer):
            return False
        while not self.complete:
            if self._prompting and self._take_prompt(buffer):
                break
            line = self._framing.cut(buffer)
            if line is None:
                return False
            self._take_line(line)
        return True

    def _take_echo(self, buffer: bytearray) -> bool:
        got = bytes(buffer[: len(self._echo)])
        if not self._echo.startswith(got):
            raise Garbled(f"the echo is not what was sent: {self._echo[:60]!r} came back as {got[:60]!r}")
        if len(got) < len(self._echo):
            return False
        del buffer[: len(self._echo)]
        self._echoing, self._after_echo = False, True
        return True

    def _take_prompt(self, buffer: bytearray) -> bool:
        prompt = self._framing.prompt
        assert prompt is not None
        if not buffer.startswith(prompt):
            return False
        if self._answering and not self._lines:
            raise Garbled("it is ready for the next command and has not answered this one")
        del buffer[: len(prompt)]
        self._prompting = self._answering = False
        return True

    def _take_line(self, line: bytes) -> None:
        text = self._framing.text(line)
        own = self._framing.own(text)
        if not text and (self._prompting or not self._answering):
            return
        if own is None or self._want.unasked(own) or not self._answering or not self._want.accept(own):
            self.aside.append(text)
            if len(self.aside) > _MOST_LINES:
                raise Garbled(f"over {_MOST_LINES} lines came, and none was the answer")
            return
        self._lines.append(own)
        if self._framing.prompt is None:
            self._answering = False
        elif len(self._lines) > _MOST_LINES:
            raise Garbled(f"the answer has over {_MOST_LINES} lines and no prompt")

    def _take_block(self, buffer: bytearray) -> bool:
        most = self._want.block
        assert most is not None
        self.open_ended = False
        while buffer and not buffer.startswith(b"#"):
            line = self._framing.cut(buffer)
            if line is None:
                return False
            self._stray(line)
        try:
            found = head(buffer, most)
        except BlockError as error:
            raise Garbled(str(error)) from None
        if found is None:
            return False
        if found.length is None:
            if len(buffer) > found.start + most + len(self._framing.terminator):
                raise Garbled(f"a block of indefinite length is over the {most} bytes that are taken")
            self.open_ended = buffer.endswith(self._framing.terminator) and len(buffer) > found.start
            self.block = bytes(buffer[found.start : len(buffer) - len(self._framing.terminator)])
            return False
        if len(buffer) < found.start + found.length:
            return False
        self.block = bytes(buffer[found.start : found.start + found.length])
        del buffer[: found.start + found.length]
        self._answering, self._after_block = False, True
        return True

    def _stray(self, line: bytes) -> None:
        """Puts a line before a block aside, if it is a report or another device's."""
        text = self._framing.text(line)
        own = self._framing.own(text)
        if own is not None and text and not self._want.unasked(own):
            raise Garbled(f"a block was asked for, and {text[:80]!r} came")
        self.aside.append(text)

    def _take_end(self, buffer: bytearray) -> bool:
        """The terminator of a block of definite length."""
        end = self._framing.terminator
        if not buffer.startswith(end):
            if not end.startswith(bytes(buffer[: len(end)])):
                raise Garbled(f"a block is followed by {bytes(buffer[:20])!r} and not by its terminator")
            return False
        del buffer[: len(end)]
        self._after_block = False
        return True

    def end(self, buffer: bytearray) -> None:
        """Ends an answer that is `open_ended`."""
        buffer.clear()
        self._answering = False
        self.open_ended = False

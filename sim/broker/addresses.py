"""Names of the broker's addresses: queue or topic, and which topics a subscription's pattern covers."""

import enum
from typing import Final

import msgspec

MAX_NAME: Final = 512
"""Longest address in characters; more is a mistake or an attack."""


class Kind(enum.StrEnum):
    """How an address hands out its messages. The values are the capabilities that clients ask for."""

    QUEUE = "queue"
    """Each message to one consumer; kept while there is none."""
    TOPIC = "topic"
    """A copy to every subscription; dropped where there is none."""


class Refusal(Exception):
    """The broker says no. `condition` is the AMQP error condition, the text is for people."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.condition = condition
        self.description = description


def check_name(name: str) -> None:
    """Refuses what cannot be an address: nothing, too long, or with control characters.

    Raises:
        Refusal: `amqp:invalid-field`.
    """
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Refusal(
            "amqp:invalid-field", f"an address has 1 to {MAX_NAME} printable characters, not {name!r:.60}"
        )


def is_pattern(name: str) -> bool:
    """Whether a word of the name is one of the wildcards `*` and `#`."""
    return any(word in ("*", "#") for word in name.split("."))


def fixed_kind(name: str) -> Kind | None:
    """The kind that wire.md section 1 gives an address, whatever a client asks for; None: any kind."""
    match name.split("."):
        case ["hil", "availability"] | ["hil", _, "results"] | ["hil", _, "events", _]:
            return Kind.TOPIC
        case ["hil", _, "commands"]:
            return Kind.QUEUE
    return None


class Pattern(msgspec.Struct, frozen=True):
    """What a subscription covers: words between dots; `*` is one word, `#` any number, also none."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Takes a pattern, or the plain name of one topic."""
        return cls(tuple(text.split(".")))

    def matches(self, name: str) -> bool:
        """Whether the pattern covers this topic. Costs at most the product of both lengths."""
        pattern, words = self.words, name.split(".")
        at = word = 0
        hash_at, hash_word = -1, 0
        while word < len(words):
            if at < len(pattern) and pattern[at] == "#":
                # Try it as no word at first; a mismatch later comes back here and gives it one word more.
                hash_at, hash_word = at, word
                at += 1
            elif at < len(pattern) and pattern[at] in ("*", words[word]):
                at += 1
                word += 1
            elif hash_at >= 0:
                hash_word += 1
                at, word = hash_at + 1, hash_word
            else:
                return False
        return all(rest == "#" for rest in pattern[at:])

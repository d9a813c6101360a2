"""Frames as a bus can carry them, for property tests."""

from hypothesis import strategies as st

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FD_LENGTHS, FDF, LOCAL, OWN, REMOTE, Frame

START_NS = 1_790_000_000_000_000_000
STANDARD = st.integers(0, 0x7FF)
EXTENDED_IDS = st.integers(0, 0x1FFF_FFFF).map(lambda can_id: can_id | EXTENDED)
IDENTIFIERS = st.one_of(STANDARD, EXTENDED_IDS)
DIRECTIONS = st.sampled_from([0, OWN, LOCAL])
STAMPS = st.integers(START_NS, START_NS + 3_600_000_000_000)

CLASSICAL = st.builds(Frame, STAMPS, IDENTIFIERS, st.binary(max_size=8), DIRECTIONS)
REMOTES = st.builds(
    Frame, STAMPS, IDENTIFIERS.map(lambda can_id: can_id | REMOTE), st.integers(0, 8).map(bytes), DIRECTIONS
)
FD = st.builds(
    lambda time_ns, can_id, length, seed, more, direction: Frame(
        time_ns, can_id, (seed * 64)[:length], FDF | more | direction
    ),
    STAMPS,
    IDENTIFIERS,
    st.sampled_from(FD_LENGTHS),
    st.binary(min_size=1, max_size=3),
    st.sampled_from([0, BRS, ESI, BRS | ESI]),
    DIRECTIONS,
)
ERRORS = st.builds(
    Frame,
    STAMPS,
    st.integers(1, 0x1FF).map(lambda classes: classes | ERROR),
    st.binary(min_size=8, max_size=8),
    st.just(0),
)
FRAMES = st.one_of(CLASSICAL, REMOTES, FD, ERRORS)
RECORDINGS = st.lists(FRAMES, max_size=60).map(lambda frames: sorted(frames, key=lambda frame: frame.time_ns))


def seen(frame: Frame) -> Frame:
    """A frame as files have it: they do not tell who of this machine sent it."""
    sent = OWN if frame.flags & (OWN | LOCAL) else 0
    return frame._replace(flags=frame.flags & ~(OWN | LOCAL) | sent)

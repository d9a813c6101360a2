"""Which echo belongs to which frame that was sent."""

import asyncio

import pytest

from protocols.base import DriverError
from protocols.can.buses.echoes import Echoes
from protocols.can.frame import BRS, ESI, FDF, OWN, Frame


def echo(frame: Frame, time_ns: int = 1) -> Frame:
    return frame._replace(time_ns=time_ns, flags=frame.flags | OWN)


ONE, OTHER = Frame(0, 0x123, b"one"), Frame(0, 0x123, b"other")


async def test_equal_frames_are_matched_in_order() -> None:
    echoes = Echoes()
    first, second = echoes.expect(ONE), echoes.expect(ONE)
    echoes.take(echo(ONE, 1))
    assert (first.done(), second.done()) == (True, False)
    echoes.take(echo(ONE, 2))
    assert (first.result().time_ns, second.result().time_ns) == (1, 2)


async def test_a_controller_that_sends_by_priority_may_change_the_order_of_others() -> None:
    echoes = Echoes()
    one, other = echoes.expect(ONE), echoes.expect(OTHER)
    echoes.take(echo(OTHER))
    assert (one.done(), other.done()) == (False, True)


async def test_flags_that_the_controller_sets_make_no_other_frame_but_fd_does() -> None:
    echoes = Echoes()
    classical, fd = echoes.expect(ONE), echoes.expect(ONE._replace(flags=FDF | BRS))
    echoes.take(echo(ONE._replace(flags=FDF | ESI)))
    assert (classical.done(), fd.done()) == (False, True)


async def test_an_echo_that_nobody_waits_for_is_no_error() -> None:
    Echoes().take(echo(ONE))


async def test_a_late_echo_is_not_taken_for_that_of_a_frame_sent_after() -> None:
    echoes = Echoes()
    given_up, second = echoes.expect(ONE), echoes.expect(ONE)
    given_up.cancel()
    echoes.take(echo(ONE, 1))
    assert not second.done()
    echoes.take(echo(ONE, 2))
    assert second.result().time_ns == 2


async def test_once_echoes_may_be_lost_nobody_waits_behind_one_given_up() -> None:
    echoes = Echoes()
    given_up, second, lonely = echoes.expect(ONE), echoes.expect(ONE), echoes.expect(OTHER)
    given_up.cancel()
    lonely.cancel()
    echoes.forget_given_up()
    echoes.take(echo(ONE))
    assert second.done()


async def test_one_that_was_given_up_after_a_loss_is_forgotten_too() -> None:
    echoes = Echoes()
    given_up, second = echoes.expect(ONE), echoes.expect(ONE)
    echoes.forget_given_up()
    given_up.cancel()
    echoes.drop(ONE, given_up)
    echoes.drop(ONE, given_up)
    echoes.take(echo(ONE))
    assert second.done()


async def test_all_who_wait_are_told_of_the_end() -> None:
    echoes = Echoes()
    waiting = [echoes.expect(ONE), echoes.expect(ONE), echoes.expect(OTHER)]
    waiting[1].cancel()
    echoes.fail(DriverError("disconnected", "gone"))
    for future in (waiting[0], waiting[2]):
        with pytest.raises(DriverError, match="gone") as caught:
            await future
        assert caught.value.code == "disconnected"
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]

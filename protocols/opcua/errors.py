"""What asyncua raises, as errors of the driver that say what is wrong."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from protocols.base import DriverError
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.status import words


class Unsound(UaError):
    """A connection was given up for what the server sent."""


UNDECODABLE: Final = (
    UaError,
    AssertionError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)
"""What asyncua's decoders raise on bytes that are no answer."""
_GONE: Final = frozenset(
    {
        StatusCodes.BadSessionIdInvalid,
        StatusCodes.BadSessionClosed,
        StatusCodes.BadSessionNotActivated,
        StatusCodes.BadSecureChannelIdInvalid,
        StatusCodes.BadSecureChannelClosed,
        StatusCodes.BadSecureChannelTokenUnknown,
        StatusCodes.BadConnectionClosed,
        StatusCodes.BadServerHalted,
        StatusCodes.BadShutdown,
    }
)
"""Codes of a service with which there is no session any more."""
_LATE: Final = frozenset({StatusCodes.BadTimeout, StatusCodes.BadRequestTimeout})


@contextmanager
def of_connecting(device: OpcuaDevice) -> Iterator[None]:
    """Says what is wrong when a session cannot be made: `disconnected`, or `timeout`."""
    url = device.connection.url
    try:
        yield
    except DriverError:
        raise
    except socket.gaierror as error:
        raise DriverError("disconnected", f"{url}: host not found: {error.strerror}") from error
    except ConnectionRefusedError as error:
        raise DriverError("disconnected", f"{url} refused the connection: no server there") from error
    except TimeoutError as error:
        raise DriverError("timeout", f"{url} did not answer within {device.timeout:g} s") from error
    except ConnectionError as error:
        text = f"{url} closed the connection when it was asked for a session: is it an OPC UA server?"
        raise DriverError("disconnected", text) from error
    except OSError as error:
        raise DriverError("disconnected", f"{url}: {error.strerror or error}") from error
    except UaStatusCodeError as error:
        raise DriverError("disconnected", f"{url} gives no session: {words(error.code)}") from error
    except Unsound as error:
        raise DriverError("disconnected", f"{url} {error}: is it an OPC UA server?") from error
    except UNDECODABLE as error:
        raise DriverError("disconnected", f"{url} gives no session: {_text(error)}") from error


@contextmanager
def of_service(
    device: OpcuaDevice, what: str, lose: Callable[[str], None], lost: Callable[[], str]
) -> Iterator[None]:
    """Says what is wrong when a service fails: `timeout`, `disconnected` or `device-error`.

    `lose` is told when the server has the session no more; `lost` says why the link was lost, if it was.
    """
    url = device.connection.url
    try:
        yield
    except TimeoutError as error:
        text = f"{url} did not answer within {device.timeout:g} s: {what}"
        raise DriverError("timeout", text) from error
    except OSError as error:
        text = lost() or f"{url} closed the connection"
        raise DriverError("disconnected", f"{text}: {what}") from error
    except Unsound as error:
        raise DriverError("disconnected", f"{url} {error}: {what}") from error
    except UaStatusCodeError as error:
        text = f"{url} refused to {what}: {words(error.code)}"
        if error.code in _GONE:
            lose(text)
            raise DriverError("disconnected", text) from error
        raise DriverError("timeout" if error.code in _LATE else "device-error", text) from error
    except UNDECODABLE as error:
        text = f"{url} gave an answer that makes no sense to {what}: {_text(error)}"
        raise DriverError("device-error", text) from error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200].rstrip(" :")

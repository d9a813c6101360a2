"""Why there is no connection, in sentences for people."""

import ssl

from protocols.amqp.options import Options
from protocols.amqp.performatives import Condition
from protocols.tls import UnusableFile


def explain_error(options: Options, error: Exception) -> str:
    """Of an error while TLS files were read, or the socket or TLS was set up."""
    url = options.url
    if isinstance(error, UnusableFile):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"broker {url} did not answer within {options.connect_timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return f"broker {url} refused the connection: is it running?"
    if isinstance(error, ConnectionError):
        return f"broker {url} closed the connection as it was made"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of broker {url} is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS with broker {url} failed: {error.reason or error}"
    return (
        f"broker {url} cannot be reached: {error.strerror or error if isinstance(error, OSError) else error}"
    )


def explain_condition(options: Options, condition: Condition | None) -> str:
    """Why a connection ended before the broker's open frame."""
    url, mechanisms = options.url, ", ".join(options.mechanisms)
    if condition is None:
        return f"broker {url} closed the connection at once"
    if condition.name == "amqp:unauthorized-access":
        who = f"user {options.username}" if options.username is not None else "an anonymous user"
        if "mech=none" in condition.description:
            return f"broker {url} offers none of these ways to authenticate: {mechanisms}"
        return f"broker {url} does not accept the credentials of {who} (SASL {mechanisms})"
    if condition.name == "amqp:connection:framing-error":
        return f"{url} does not speak AMQP 1.0: {condition.description}"
    return f"broker {url} refused the connection: {condition}"

"""What an outstation's refusals mean, in words, and the way out. Pure."""

from typing import Final

from protocols.base import DriverError
from protocols.dnp3.fragment import Reply
from protocols.dnp3.objects import Iin

SUCCESS: Final = 0

_STATUS: Final = {
    1: "the select had expired when the operate came (TIMEOUT)",
    2: "no select was in force when the operate came (NO_SELECT)",
    3: "the outstation finds the control wrongly formed (FORMAT_ERROR): "
    "compare operation, count and times with its device profile",
    4: "the point does not support this control (NOT_SUPPORTED): "
    "compare index, operation and output with the outstation's point list",
    5: "the operation is under way already, or the point is in that state already (ALREADY_ACTIVE)",
    6: "the outstation reports a hardware error (HARDWARE_ERROR)",
    7: "the outstation is in local control (LOCAL): its local/remote switch has to stand on remote",
    8: "too many operations, in this request or at once (TOO_MANY_OPS): write fewer points, or wait",
    9: "this master may not operate it (NOT_AUTHORIZED)",
    10: "a local automation holds the point (AUTOMATION_INHIBIT)",
    11: "the outstation has no capacity for it now (PROCESSING_LIMITED): wait and write again",
    12: "the value is out of the point's range (OUT_OF_RANGE)",
    13: "the device behind the outstation is in local control (DOWNSTREAM_LOCAL)",
    14: "the operation was complete already (ALREADY_COMPLETE)",
    15: "the operation is blocked (BLOCKED)",
    16: "the operation was cancelled (CANCELLED)",
    17: "another master operates the point (BLOCKED_OTHER_MASTER)",
    18: "the device behind the outstation failed (DOWNSTREAM_FAIL)",
    126: "the point does not take part (NON_PARTICIPATING)",
    127: "the outstation does not say why (UNDEFINED)",
}
"""Status codes of controls other than SUCCESS (IEEE 1815-2012, annex A, group 12 variation 1)."""

_INDICATIONS: Final = {
    Iin.FUNCTION_NOT_SUPPORTED: "it does not support this function",
    Iin.OBJECT_UNKNOWN: "it has no such objects: compare group, variation and indices with its point list",
    Iin.PARAMETER_ERROR: "it does not take these parameters: compare indices and counts with its point list",
    Iin.ALREADY_EXECUTING: "it is still busy with the same request: wait and try again",
}
# A corrupt configuration (2.5) is a lasting state, which the master reports, and no answer to one request.


def status_in_words(status: int) -> str:
    """Why a control was refused, as its status says."""
    return _STATUS.get(status, f"the outstation gives the status {status}, which has no standard meaning")


def refusal(iin: Iin) -> str:
    """Why a request was refused, as the indications say; empty if it was not."""
    return "; ".join(text for bit, text in _INDICATIONS.items() if iin & bit)


def accepted(reply: Reply, what: str, instead: str = "") -> Reply:
    """The reply, if its indications say that the request was carried out.

    `what` was asked for, such as `freezing counters of outstation 10`; `instead` is the way out where the
    outstation does not support the function.

    Raises:
        DriverError: `device-error`, with the refusal in words.
    """
    why = refusal(reply.iin)
    if not why:
        return reply
    if instead and reply.iin & Iin.FUNCTION_NOT_SUPPORTED:
        why += f"; {instead}"
    raise DriverError("device-error", f"{what} was refused: {why}")

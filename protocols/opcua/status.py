"""Status codes (OPC 10000-4, 7.39): which quality each of them is. Pure, and without asyncua.

A code is good, uncertain or bad by its two highest bits, and each name that is not good stands in exactly one
row of `QUALITIES`, which the documentation shows. A code without a name here is `device-error` if it is
uncertain or bad. What the row says gives way to the value's limit bits in one case: an uncertain value of
the row `device-error` that is at the low or high limit of its source is `out-of-range`. Good codes are good,
with whatever limit.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from protocols.base import Quality

_ROWS: Final[Mapping[Quality, str]] = {
    Quality.DISCONNECTED: """
        BadCommunicationError BadConnectionClosed BadConnectionRejected BadDisconnect BadEndOfStream
        BadMaxConnectionsReached BadNoCommunication BadNotConnected BadRequestInterrupted
        BadSecureChannelClosed BadSecureChannelIdInvalid BadSecureChannelTokenUnknown BadServerHalted
        BadServerNotConnected BadSessionClosed BadSessionIdInvalid BadSessionNotActivated BadShutdown
        BadTcpSecureChannelUnknown BadTcpServerTooBusy BadWaitingForInitialData
        """,
    Quality.TIMEOUT: "BadRequestTimeout BadTimeout",
    Quality.OUT_OF_RANGE: """
        BadEdited_OutOfRange BadEdited_OutOfRange_DominantValueChanged
        BadEdited_OutOfRange_DominantValueChanged_DependentValueChanged BadInitialValue_OutOfRange
        BadNumericOverflow BadOutOfRange BadOutOfRange_DominantValueChanged
        BadOutOfRange_DominantValueChanged_DependentValueChanged BadShelvingTimeOutOfRange
        UncertainEngineeringUnitsExceeded UncertainOverRange UncertainUnderRange
        """,
    Quality.STALE: """
        UncertainInitialValue UncertainLastUsableValue UncertainNoCommunicationLastUsableValue
        UncertainSubstituteValue
        """,
    Quality.BAD_CONFIG: """
        BadAttributeIdInvalid BadContentFilterInvalid BadDataEncodingInvalid BadDataEncodingUnsupported
        BadDataTypeIdUnknown BadDeadbandFilterInvalid BadEventFilterInvalid BadFilterElementInvalid
        BadFilterLiteralInvalid BadFilterNotAllowed BadFilterOperandCountMismatch BadFilterOperandInvalid
        BadFilterOperatorInvalid BadFilterOperatorUnsupported BadIndexRangeDataMismatch
        BadIndexRangeInvalid BadIndexRangeNoData BadMonitoredItemFilterInvalid
        BadMonitoredItemFilterUnsupported BadMonitoringModeInvalid BadNodeIdInvalid BadNodeIdUnknown
        BadNotReadable BadObjectDeleted BadTypeMismatch
        """,
    Quality.DEVICE_ERROR: """
        Bad BadAggregateConfigurationRejected BadAggregateInvalidInputs BadAggregateListMismatch
        BadAggregateNotSupported BadAlreadyExists BadApplicationSignatureInvalid BadArgumentsMissing
        BadBoundNotFound BadBoundNotSupported BadBrowseDirectionInvalid BadBrowseNameDuplicated
        BadBrowseNameInvalid BadCertificateChainIncomplete BadCertificateHostNameInvalid
        BadCertificateInvalid BadCertificateIssuerRevocationUnknown BadCertificateIssuerRevoked
        BadCertificateIssuerTimeInvalid BadCertificateIssuerUseNotAllowed
        BadCertificatePolicyCheckFailed BadCertificateRevocationUnknown BadCertificateRevoked
        BadCertificateTimeInvalid BadCertificateUntrusted BadCertificateUriInvalid
        BadCertificateUseNotAllowed BadConditionAlreadyDisabled BadConditionAlreadyEnabled
        BadConditionAlreadyShelved BadConditionBranchAlreadyAcked BadConditionBranchAlreadyConfirmed
        BadConditionDisabled BadConditionNotShelved BadConfigurationError
        BadContinuationPointInvalid BadDataLost BadDataSetIdInvalid BadDataUnavailable
        BadDecodingError BadDependentValueChanged BadDeviceFailure BadDialogNotActive
        BadDialogResponseInvalid BadDiscoveryUrlMissing BadDominantValueChanged
        BadDuplicateReferenceNotAllowed BadEncodingError BadEncodingLimitsExceeded BadEntryExists
        BadEventIdUnknown BadEventNotAcknowledgeable BadExpectedStreamToBlock
        BadHistoryOperationInvalid BadHistoryOperationUnsupported BadIdentityChangeNotSupported
        BadIdentityTokenInvalid BadIdentityTokenRejected BadInsufficientClientProfile
        BadInternalError BadInvalidArgument BadInvalidSelfReference BadInvalidState
        BadInvalidTimestamp BadInvalidTimestampArgument BadLicenseExpired BadLicenseLimitsExceeded
        BadLicenseNotAvailable BadLocaleNotSupported BadLocked BadMaxAgeInvalid
        BadMessageNotAvailable BadMethodInvalid BadMonitoredItemIdInvalid BadNoContinuationPoints
        BadNoData BadNoDataAvailable BadNoDeleteRights BadNoEntryExists BadNoMatch BadNoSubscription
        BadNoValidCertificates BadNoValue BadNodeAttributesInvalid BadNodeClassInvalid
        BadNodeIdExists BadNodeIdRejected BadNodeNotInView BadNonceInvalid BadNotExecutable
        BadNotFound BadNotImplemented BadNotSupported BadNotTypeDefinition BadNotWritable
        BadNothingToDo BadOperationAbandoned BadOutOfMemory BadOutOfService BadParentNodeIdInvalid
        BadProtocolVersionUnsupported BadQueryTooComplex BadReferenceLocalOnly
        BadReferenceNotAllowed BadReferenceTypeIdInvalid BadRefreshInProgress
        BadRequestCancelledByClient BadRequestCancelledByRequest BadRequestHeaderInvalid
        BadRequestNotAllowed BadRequestNotComplete BadRequestTooLarge BadRequestTypeInvalid
        BadRequiresLock BadResourceUnavailable BadResponseTooLarge BadSecurityChecksFailed
        BadSecurityModeInsufficient BadSecurityModeRejected BadSecurityPolicyRejected
        BadSemaphoreFileMissing BadSensorFailure BadSequenceNumberInvalid BadSequenceNumberUnknown
        BadServerIndexInvalid BadServerNameMissing BadServerTooBusy BadServerUriInvalid
        BadServiceUnsupported BadSourceNodeIdInvalid BadStateNotActive BadStructureMissing
        BadSubscriptionIdInvalid BadSyntaxError BadTargetNodeIdInvalid BadTcpEndpointUrlInvalid
        BadTcpInternalError BadTcpMessageTooLarge BadTcpMessageTypeInvalid BadTcpNotEnoughResources
        BadTicketInvalid BadTicketRequired BadTimestampNotSupported BadTimestampsToReturnInvalid
        BadTooManyArguments BadTooManyMatches BadTooManyMonitoredItems BadTooManyOperations
        BadTooManyPublishRequests BadTooManySessions BadTooManySubscriptions BadTransactionFailed
        BadTransactionPending BadTypeDefinitionInvalid BadUnexpectedError BadUnknownResponse
        BadUserAccessDenied BadUserSignatureInvalid BadViewIdUnknown BadViewParameterMismatch
        BadViewTimestampInvalid BadViewVersionInvalid BadWaitingForResponse BadWouldBlock
        BadWriteNotSupported Uncertain UncertainConfigurationError UncertainDataSubNormal
        UncertainDependentValueChanged UncertainDominantValueChanged UncertainNotAllNodesAvailable
        UncertainReferenceNotDeleted UncertainReferenceOutOfServer UncertainSensorCalibration
        UncertainSensorNotAccurate UncertainSimulatedValue UncertainSubNormal
        UncertainTransducerInManual
        """,
}

QUALITIES: Final[Mapping[Quality, Collection[str]]] = {
    quality: tuple(names.split()) for quality, names in _ROWS.items()
}
"""What each status code that is not good makes of a value, by name."""

_BY_NAME: Final = {name: quality for quality, names in QUALITIES.items() for name in names}

_NAMED: Final = 0xFFFF_0000
_BAD: Final = 0x8000_0000
_UNCERTAIN: Final = 0x4000_0000
_INFO: Final = 0x0C00
_DATA_VALUE: Final = 0x0400  # of _INFO: the bits below say something of a value
_LIMITS: Final = 0x0300
_FREE, _CONSTANT = 0x0000, 0x0300  # of _LIMITS; the other two are low and high
_OVERFLOW: Final = 0x0080


def overflowed(code: int) -> bool:
    """Whether the server's queue had no room for all values, and this one stands beside the gap."""
    return code & (_INFO | _OVERFLOW) == _DATA_VALUE | _OVERFLOW


def unknown_names(names: Collection[str]) -> Iterator[tuple[int, str]]:
    """Those that are no names of codes that can be tolerated, by their place, and what is wrong with them."""
    for place, name in enumerate(names):
        if name.startswith("Good"):
            yield place, f"{name:.60} is good anyway"
        elif name not in _BY_NAME:
            near = difflib.get_close_matches(name, _BY_NAME, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield place, f"{name:.60} is not the name of a status code{meant}"


def words(code: int) -> str:
    """The code's name and what the standard says of it."""
    from asyncua.ua.status_codes import code_to_name_doc

    name, meaning = code_to_name_doc.get(code & _NAMED, (f"status code 0x{code:08X}", ""))
    return f"{name}: {meaning}".rstrip(" .:")


def name_of(code: int) -> str:
    """The code's name, or its number in hexadecimal."""
    from asyncua.ua.status_codes import code_to_name_doc

    return code_to_name_doc.get(code & _NAMED, (f"0x{code:08X}", ""))[0]


class Judge:
    """Tells what status codes make of values; those in `tolerate`, by name, count as good."""

    def __init__(self, tolerate: Collection[str] = ()) -> None:
        from asyncua.ua.status_codes import StatusCodes

        self._qualities: Mapping[int, Quality | None] = {
            getattr(StatusCodes, name): None if name in tolerate else quality
            for name, quality in _BY_NAME.items()
        }

    def quality(self, code: int) -> Quality | None:
        """Why a value with this code does not count; None: it is good."""
        if code < _UNCERTAIN:
            return None
        quality = self._qualities.get(code & _NAMED, Quality.DEVICE_ERROR)
        limited = code & _INFO == _DATA_VALUE and code & _LIMITS not in (_FREE, _CONSTANT)
        if quality is Quality.DEVICE_ERROR and code < _BAD and limited:
            return Quality.OUT_OF_RANGE
        return quality

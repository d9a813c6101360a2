"""Properties of MQTT 5 packets. Imported only when a device is made."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from protocols.mqtt.message import Publication


def empty(kind: int) -> Properties:
    """No properties yet, of a kind of packet."""
    return Properties(kind)  # type: ignore[no-untyped-call]  # paho's own says no types


def properties_of(publication: Publication) -> Properties:
    """What MQTT 5 has beside a payload (MQTT 5.0, 3.3.2.3)."""
    made = empty(PacketTypes.PUBLISH)
    if publication.response_topic is not None:
        made.ResponseTopic = publication.response_topic
    if publication.correlation is not None:
        made.CorrelationData = publication.correlation
    if publication.expiry_s is not None:
        made.MessageExpiryInterval = publication.expiry_s
    return made

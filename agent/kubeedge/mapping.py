"""What of a KubeEdge device and its properties a profile expresses, protocol by protocol. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.kubeedge.documents import Device, Property

Fields = dict[str, Any]


class Inexpressible(ValueError):
    """No profile can say this; the text says why."""


_TABLES: Final = {
    "coilregister": "coil",
    "discreteinputregister": "discrete",
    "inputregister": "input",
    "holdingregister": "holding",
}
_ORDERS: Final = {
    (False, False): "ABCD",
    (True, False): "BADC",
    (False, True): "CDAB",
    (True, True): "DCBA",
}
_KINDS: Final = {
    "int": "integer",
    "float": "number",
    "double": "number",
    "string": "string",
    "boolean": "boolean",
    "bytes": "string",
}


class Said:
    """A map whose keys are written in any case; it knows which of them were used."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = {str(key).lower(): (str(key), value) for key, value in said.items()}
        self._used: set[str] = {"kind"}

    def get(self, *names: str) -> Any:
        """The value of the first of these keys that is there."""
        found = None
        for name in names:
            if name.lower() in self._said:
                self._used.add(name.lower())
                found = self._said[name.lower()][1] if found is None else found
        return found

    def number(self, name: str) -> int | None:
        """An integer, which may be written as a text.

        Raises:
            Inexpressible: it is none.
        """
        value = self.get(name)
        if value is None:
            return None
        try:
            return int(str(value), 0)
        except ValueError as error:
            raise Inexpressible(f"{name} {value!r:.40} is no number") from error

    def unused(self) -> list[str]:
        """Keys that nobody asked for."""
        return [name for key, (name, _) in self._said.items() if key not in self._used]


def modbus(device: Device, said: Said, notes: list[str]) -> Fields:
    """Connection of a Modbus device."""
    mode = str(said.get("communicateMode") or "").lower()
    unit = said.number("slaveID")
    if unit is None:
        notes.append("no slaveID is given: unit 1 is assumed")
    if (port := said.get("serialPort")) is not None and mode != "tcp":
        if said.get("dataBits") not in (None, 8, "8"):
            raise Inexpressible("Modbus RTU has 8 data bits")
        line = {"transport": "rtu", "port": str(port), "unit": 1 if unit is None else unit}
        numbers = {"baudrate": said.number("baudRate"), "stopbits": said.number("stopBits")}
        line |= {ours: value for ours, value in numbers.items() if value is not None}
        line["parity"] = str(said.get("parity") or "none").lower()
        return {"connection": line, "address_base": 0}
    host = said.get("ip", "host", "address")
    if host is None:
        raise Inexpressible("neither an ip nor a serialPort is given")
    line = {"transport": "tcp", "host": str(host), "unit": 1 if unit is None else unit}
    if (tcp_port := said.number("port")) is not None:
        line["port"] = tcp_port
    return {"connection": line, "address_base": 0}


def modbus_point(prop: Property, said: Said, notes: list[str]) -> Fields:
    """A register, or some in a row."""
    word = str(said.get("register"))
    table = _TABLES.get(word.lower())
    offset, limit = said.number("offset"), said.number("limit") or 1
    if table is None or offset is None:
        raise Inexpressible(f"register {word!r:.40} and offset {offset} do not say where it is")
    point: Fields = {"table": table, "address": offset}
    swaps = (said.get("isSwap") is True, said.get("isRegisterSwap") is True)
    scale = said.get("scale")
    kind = str(said.get("dataType") or prop.type).lower()
    if prop.minimum is None:
        prop.minimum = said.get("min")
    if prop.maximum is None:
        prop.maximum = said.get("max")
    if kind not in _KINDS:
        raise Inexpressible(f"there are no points of type {kind or 'none'}")
    if table in ("coil", "discrete"):
        if limit != 1:
            raise Inexpressible(f"it takes {limit} bits, and a point has one")
        if kind != "boolean":
            notes.append(f"{kind} of one bit: it is a boolean here")
    elif kind in ("int", "float", "double"):
        point |= _number(prop, kind, limit, notes)
        if swaps != (False, False):
            point["order"] = _ORDERS[swaps]
        if scale not in (None, 1, 0):
            point["scale"] = scale
    elif kind == "boolean" and limit == 1:
        point["bit"] = 0
        notes.append("a boolean in a register: it is taken as its lowest bit")
    elif kind in ("string", "bytes"):
        point |= {"type": kind, "length": 2 * limit}
        if swaps[0]:
            point["order"] = "BADC"
        if swaps[1]:
            raise Inexpressible("text and bytes have no register order here")
    else:
        raise Inexpressible(f"{limit} registers are no {kind}")
    if prop.writable and table in ("discrete", "input"):
        prop.writable = False
        notes.append(f"it is ReadWrite, and {word} can only be read")
    return point


def _number(prop: Property, kind: str, limit: int, notes: list[str]) -> Fields:
    if limit not in (1, 2, 4):
        raise Inexpressible(f"{limit} registers are no number")
    if kind != "int" and limit > 1:
        return {"type": f"float{16 * limit}"}
    signed = isinstance(low := _float(prop.minimum), float) and low < 0
    if not signed:
        notes.append("KubeEdge does not say whether it is signed: it is taken as unsigned")
    return {"type": f"{'' if signed else 'u'}int{16 * limit}"}


def opcua(device: Device, said: Said, notes: list[str]) -> Fields:
    """Endpoint, security and user of an OPC UA server."""
    url = said.get("url", "endpoint", "endpointURL")
    if url is None:
        raise Inexpressible("no url is given")
    policy = str(said.get("securityPolicy") or "None").rpartition("#")[2]
    mode = str(said.get("securityMode") or "None")
    cert, key = said.get("certificate"), said.get("privateKey")
    user, secret = said.get("userName"), said.get("password")
    connection: Fields = {"url": str(url)}
    plain = "none" in (policy.lower(), mode.lower())
    if plain:
        connection["security"] = {"policy": "None"}
        notes.append("nothing secures the channel, as its Device says")
        if cert or key:
            notes.append("certificate and privateKey mean nothing without a security policy")
    else:
        known = {"sign": "Sign", "signandencrypt": "SignAndEncrypt"}
        connection["security"] = {
            "policy": policy,
            "mode": known.get(mode.lower(), mode),
            "cert": str(cert or "opcua.crt"),
            "key": str(key or "opcua.key"),
            "trust": ["opcua-trusted"],
        }
        notes.append("trust: put the server's certificate into the folder opcua-trusted")
    if user:
        connection["user"] = {"name": str(user), "password_file": f"{device.name}.password"}
        encrypted = connection["security"].get("mode") == "SignAndEncrypt"
        if not encrypted:
            connection["user"]["allow_insecure"] = True
            notes.append("the password goes over a channel that does not encrypt it, as its Device says")
        if secret is not None:
            notes.append(f"the password is not copied: put it into {device.name}.password")
    return {"connection": connection}


def opcua_point(prop: Property, said: Said, notes: list[str]) -> Fields:
    """A node."""
    node = said.get("nodeID")
    if node is None:
        raise Inexpressible("no nodeID is given")
    said.get("browseName")  # the node id says it all
    return {"node": str(node).replace(",", ";", 1) if ";" not in str(node) else str(node), **_typed(prop)}


def mqtt(device: Device, said: Said, notes: list[str]) -> Fields:
    """The broker of a device with topics of its own."""
    url = said.get("brokerURL", "broker", "brokerUrl", "address", "url", "serverAddress", "ip", "host")
    if url is None:
        raise Inexpressible("no broker is given")
    scheme, _, rest = str(url).rpartition("://")
    host, colon, port = rest.rstrip("/").rpartition(":")
    tls = scheme in ("ssl", "tls", "mqtts")
    line: Fields = {"transport": "tls" if tls else "tcp", "host": host if colon else port}
    if colon:
        line["port"] = int(port) if port.isdecimal() else port
    elif (number := said.number("port")) is not None:
        line["port"] = number
    if (client_id := said.get("clientID")) is not None:
        line["client_id"] = str(client_id)
    if (user := said.get("username")) is not None:
        line |= {"username": str(user), "password_file": f"{device.name}.password"}
        if not tls:
            line["allow_insecure"] = True
            notes.append("the password goes over a line that nothing encrypts, as its Device says")
        if said.get("password") is not None:
            notes.append(f"the password is not copied: put it into {device.name}.password")
    return {"connection": line, "payload": "topics"}


def mqtt_point(prop: Property, said: Said, notes: list[str]) -> Fields:
    """A topic, and where in its payload the value stands."""
    topic = said.get("topic", "subTopic", "subscribeTopic")
    if topic is None:
        raise Inexpressible("no topic is given")
    point: Fields = {"topic": str(topic), **_typed(prop)}
    if (path := said.get("jsonPath", "path")) is not None:
        point["path"] = str(path).removeprefix("$.")
    elif prop.type in ("string", "bytes"):
        point["encoding"] = "plain"
    if (target := said.get("pubTopic", "publishTopic", "commandTopic")) is not None and prop.writable:
        point["write"] = {"topic": str(target)}
    elif prop.writable:
        prop.writable = False
        notes.append("it is ReadWrite, and no topic to write it is given")
    return point


def _typed(prop: Property) -> Fields:
    if prop.type not in _KINDS:
        raise Inexpressible(f"there are no points of type {prop.type or 'none'}")
    return {"type": _KINDS[prop.type]}


def common(prop: Property, point: Fields, notes: list[str]) -> Fields:
    """What points of all protocols have: access, unit, limits, description, poll."""
    more: Fields = {"access": "rw"} if prop.writable else {}
    if prop.unit:
        more["unit"] = prop.unit
    if prop.type in ("int", "float", "double") and point.get("table") not in ("coil", "discrete"):
        for ours, value in (("min", prop.minimum), ("max", prop.maximum)):
            number = _float(value)
            if number is not None:
                more[ours] = int(number) if number.is_integer() else number
            elif value not in (None, ""):
                notes.append(f"{ours} {value!r:.40} is no number")
    if prop.description:
        more["description"] = prop.description
    if prop.cycle_s is not None:
        milliseconds = round(prop.cycle_s * 1000)
        if milliseconds:
            more["poll"] = f"{milliseconds}ms"
        else:
            notes.append(f"collectCycle of {prop.cycle_s:g} s is less than a millisecond")
    return {**point, **more}


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1e300 else None


Maker = Callable[[Device, Said, list[str]], Fields]
PointMaker = Callable[[Property, Said, list[str]], Fields]
MAPPINGS: Final[Mapping[str, tuple[str, Maker, PointMaker]]] = {
    "modbus": ("modbus", modbus, modbus_point),
    "modbus-tcp": ("modbus", modbus, modbus_point),
    "modbus-rtu": ("modbus", modbus, modbus_point),
    "opcua": ("opcua", opcua, opcua_point),
    "opc-ua": ("opcua", opcua, opcua_point),
    "mqtt": ("mqtt", mqtt, mqtt_point),
}
"""By KubeEdge's word for the protocol: ours, and who makes the device and its points."""

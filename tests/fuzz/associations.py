"""Bytes of DICOM associations (PS3.8 section 9.3, PS3.7 annex E), made by hand: a sender that can
say what no toolkit would."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
_CONTEXT = 1
RELEASE = struct.pack(">BBII", 5, 0, 4, 0)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def request(
    called: str = "TRIAGE", calling: str = "FUZZ", syntax: str = EXPLICIT, sop_class: str = CT
) -> bytes:
    """A-ASSOCIATE-RQ for one storage class in one transfer syntax."""
    context = bytes([_CONTEXT, 0, 0, 0]) + _item(0x30, sop_class.encode())
    context += _item(0x40, syntax.encode())
    user = _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.826.0.1.3680043.8.498.9")
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode()
    body += bytes(32) + _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context)
    body += _item(0x50, user)
    return struct.pack(">BBI", 1, 0, len(body)) + body


def store(data_set: bytes, sop_uid: str, message: int, sop_class: str = CT) -> bytes:
    """A C-STORE-RQ and its data set as P-DATA-TF PDUs."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    def uid(value: str) -> bytes:
        return value.encode() + b"\0" * (len(value) % 2)

    def short(value: int) -> bytes:
        return struct.pack("<H", value)

    command = element(0x0002, uid(sop_class)) + element(0x0100, short(1))
    command += element(0x0110, short(message)) + element(0x0700, short(0))
    command += element(0x0800, short(0)) + element(0x1000, uid(sop_uid))
    group = element(0, struct.pack("<I", len(command))) + command
    pdus = [_pdata(group, 0x03)]
    for at in range(0, max(1, len(data_set)), 16000):
        last = at + 16000 >= len(data_set)
        pdus.append(_pdata(data_set[at : at + 16000], 0x02 if last else 0x00))
    return b"".join(pdus)


def _pdata(fragment: bytes, control: int) -> bytes:
    value = struct.pack(">IBB", len(fragment) + 2, _CONTEXT, control) + fragment
    return struct.pack(">BBI", 4, 0, len(value)) + value


def data_set_of(file: bytes) -> bytes:
    """What follows the file meta information (PS3.10 section 7.1)."""
    head = file[140:144].ljust(4, b"\0")
    return file[144 + int.from_bytes(head, "little") :] or file[132:]


class Peer:
    """One connection to a receiver."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def associate(self, syntax: str = EXPLICIT, sop_class: str = CT) -> bool:
        """Whether the association is accepted, and its one presentation context with it."""
        self.socket.sendall(request(syntax=syntax, sop_class=sop_class))
        kind, content = self.pdu()
        at = content.find(b"\x21\x00", 68)  # presentation context item (PS3.8 9.3.3.2)
        return kind == 2 and content[at + 6 : at + 7] == b"\0"

    def pdu(self) -> tuple[int, bytes]:
        """(type, content) of the next PDU; (0, b"") at the end."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBI", head)
        return kind, self._exactly(length)

    def status(self) -> int | None:
        """Status (0000,0900) of the next response; None where the association has ended."""
        kind, content = self.pdu()
        if kind != 4:
            return None
        for number, value in _command(content[6:]):
            if number == 0x0900:
                return int(struct.unpack("<H", value)[0])
        return None

    def drained(self) -> bytes:
        """All that comes until the other side closes."""
        found = b""
        try:
            while more := self.socket.recv(65536):
                found += more
        except (ConnectionError, TimeoutError):
            pass
        return found

    def close(self, release: bool = True) -> None:
        try:
            if release:
                self.socket.sendall(RELEASE)
                self.pdu()
        except OSError:
            pass
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        try:
            while len(data) < size and (more := self.socket.recv(size - len(data))):
                data += more
        except ConnectionError:
            pass
        return data


def _command(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(data):
        _, number, length = struct.unpack_from("<HHI", data, at)
        yield number, data[at + 8 : at + 8 + length]
        at += 8 + length

"""HL7 v2 over MLLP (HL7 MLLP release 1): a block is VT, message, FS, CR; an answer acknowledges."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from triage.delivery.destinations import host_port
from triage.delivery.errors import DeliveryError
from triage.files import write_atomic
from triage.results.hl7 import field, parsed

log = logging.getLogger(__name__)

START, END = b"\x0b", b"\x1c\x0d"
MAX_MESSAGE = 1 << 20
MAX_CONNECTIONS = 32


def send(address: str, message: str, *, timeout_s: float) -> None:
    """Send one message and wait for its acknowledgement. Raises DeliveryError.

    AA or CA for our control id is success; AR and CR are permanent (HL7 table 0008).
    """
    try:
        with socket.create_connection(host_port(address), timeout=timeout_s) as connection:
            connection.sendall(START + message.encode("utf-8") + END)
            answer = receive(connection, timeout_s)
    except OSError as error:
        raise DeliveryError(f"the receiver cannot be reached: {type(error).__name__}") from error
    if answer is None:
        raise DeliveryError("the receiver closed without an acknowledgement")
    _check(message, answer)


def _check(message: str, answer: bytes) -> None:
    control = field(parsed(message)[0], 10)
    try:
        lines = parsed(answer.decode("utf-8", "replace"))
    except ValueError as error:
        raise DeliveryError("the receiver answered no HL7") from error
    said = next((line for line in lines if line[0] == "MSA"), ["MSA"])
    code = field(said, 1)
    if field(said, 2) != control:
        raise DeliveryError("the acknowledgement is for another message")
    if code not in ("AA", "CA"):
        raise DeliveryError(f"the receiver answered {code[:2]!r}", permanent=code in ("AR", "CR"))


def write(folder: Path, message: str) -> Path:
    """The message as a file named after its control id, whole or not at all."""
    name = field(parsed(message)[0], 10)
    try:
        return write_atomic(folder / f"{name}.hl7", message.encode("utf-8"))
    except OSError as error:
        raise DeliveryError(f"the file cannot be written: {error.strerror}") from error


def receive(connection: socket.socket, timeout_s: float) -> bytes | None:
    """One message without its frame; None at the end. Raises OSError, also where it is too long.

    `timeout_s` is for the whole message: a sender that drips is cut off.
    """
    end = time.monotonic() + timeout_s
    data = b""
    while END not in data:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole message in time")
        connection.settimeout(left)
        chunk = connection.recv(65536)
        if not chunk:
            return None
        data += chunk
        if len(data) > MAX_MESSAGE:
            raise OSError("the message is too long")
    return data.partition(END)[0].rpartition(START)[2]


class Listener:
    """Takes messages; `answer(message, peer address)` gives each its acknowledgement."""

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[bytes, str], str],
        *,
        allowed: frozenset[str] = frozenset(),
        idle_s: float = 60.0,
    ) -> None:
        """`allowed`: addresses that may connect; empty: all that reach the port."""
        self._answer = answer
        self._allowed = allowed
        self._idle_s = idle_s
        self._where = (host, port)
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        if self._socket is None:
            raise RuntimeError("The listener was not started")
        return int(self._socket.getsockname()[1])

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Raises OSError where the port is taken."""
        family = socket.AF_INET6 if ":" in self._where[0] else socket.AF_INET
        self._socket = socket.create_server(self._where, family=family)
        self._thread = threading.Thread(target=self._loop, name="triage-hl7", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        with self._guard:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        if self._socket is None:
            return
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return  # closed
            address = str(peer[0])
            refused = bool(self._allowed) and address not in self._allowed
            if refused or not self._slots.acquire(blocking=False):
                log.warning("HL7 from %s refused", address)
                connection.close()
                continue
            with self._guard:
                self._open.add(connection)
            serve = threading.Thread(target=self._serve, args=(connection, address), daemon=True)
            serve.start()

    def _serve(self, connection: socket.socket, address: str) -> None:
        try:
            with connection:
                while (message := receive(connection, self._idle_s)) is not None:
                    answer = self._answer(message, address)
                    connection.settimeout(self._idle_s)
                    connection.sendall(START + answer.encode("utf-8") + END)
        except OSError as error:
            log.info("HL7 from %s ended: %s", address, type(error).__name__)
        except Exception:
            log.exception("HL7 from %s", address)
        finally:
            with self._guard:
                self._open.discard(connection)
            self._slots.release()

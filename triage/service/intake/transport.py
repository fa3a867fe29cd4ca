"""Connections of the DICOM receiver: pynetdicom's, with an end to everything a stranger may claim.

As it comes, pynetdicom 3.0 reads whatever length a PDU claims (4 GiB), waits for ever for its
bytes, gathers a message in memory without end, and shakes TLS hands in the thread that accepts.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from io import BytesIO
from typing import Any

from pynetdicom import _config
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import (
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from triage.service.images.files import Files, FileTooLargeError, Incoming, StorageError
from triage.service.intake.waiting import WaitingMessages, WaitingProvider

log = logging.getLogger(__name__)

_config.LOG_HANDLER_LEVEL = "none"  # it would print identifiers, and costs time for each PDU

MAX_PDU = 128 << 10  # what we announce (PS3.8 D.1), the most that DCMTK sends
_CLAIM = 2 * MAX_PDU  # a longer PDU ends the association: also an A-ASSOCIATE-RQ of 128 contexts
_MAX_COMMAND = 64 << 10  # bytes of one command set
_IN_MEMORY = 8 << 20  # bytes of one message before it goes to the disk


class Spool(BytesIO):
    """The data set of one message: in memory, on the disk when it is large, bounded.

    It never raises while the message comes in; `error` says what went wrong.
    """

    def __init__(self, files: Files) -> None:
        super().__init__()
        self._files = files
        self._spilled: Incoming | None = None
        self._size = 0
        self.error: StorageError | FileTooLargeError | None = None

    def write(self, data: Any) -> int:
        self._size += len(data)
        if self.error is None:
            try:
                self._write(data)
            except (StorageError, FileTooLargeError) as error:
                self.discard()
                self.error = error
        return len(data)

    def _write(self, data: Any) -> None:
        if self._size > self._files.max_file_bytes:
            raise FileTooLargeError(f"more than {self._files.max_file_bytes} bytes")
        if self._spilled is None and self._size > _IN_MEMORY:
            self._spilled = self._files.begin()
            with self.getbuffer() as view:
                self._spilled.write(view)
            self.seek(0)
            self.truncate()
        if self._spilled is None:
            super().write(data)
        else:
            self._spilled.write(data)

    def into(self, file: Incoming) -> None:
        """Append everything to `file`. Raises StorageError, FileTooLargeError."""
        if self.error is not None:
            file.discard()
            raise self.error
        if self._spilled is None:
            with self.getbuffer() as view:
                file.write(view)
            return
        with self._spilled.path.open("rb") as spilled:
            while block := spilled.read(1 << 20):
                file.write(block)

    def discard(self) -> None:
        if self._spilled is not None:
            self._spilled.discard()
        with suppress(BufferError):  # an error that is under way may still look at it
            self.seek(0)
            self.truncate()


class BoundedSocket(AssociationSocket):
    """Reads one PDU in the time and length that it may have."""

    def __init__(self, assoc: Association, client: socket.socket, files: Files) -> None:
        super().__init__(assoc, client_socket=client)
        self._files = files

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > _CLAIM or self.socket is None:
            raise OSError(f"a PDU of {nr_bytes} bytes was claimed")
        self._prepare_message()
        end = time.monotonic() + (self.assoc.network_timeout or 30.0)
        data = bytearray(nr_bytes)
        got = 0
        with memoryview(data) as view:
            while got < nr_bytes:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError("a PDU took too long")
                self.socket.settimeout(left)
                count = self.socket.recv_into(view[got:])
                if not count:
                    break
                got += count
        return data[:got] if got < nr_bytes else data

    def _prepare_message(self) -> None:
        """The message that is coming in writes its data set into a spool."""
        dimse = self.assoc.dimse
        if dimse.message is None:
            dimse.message = DIMSEMessage()
            dimse.message.data_set = Spool(self._files)
        elif dimse.message.encoded_command_set.tell() > _MAX_COMMAND:
            raise OSError("a command set without end")


class AnsweringService(ACSE):
    """Answers a release once its end is on record: a sender that was told so sends nothing again,
    and a process that dies in between would leave its studies incomplete for ever."""

    def send_release(self, is_response: bool = False) -> None:
        server = getattr(self.assoc, "_server", None)
        if is_response and isinstance(server, BoundedServer):
            self.assoc.is_released = True
            server.association_ended(self.assoc)
        super().send_release(is_response)


class ReceivingAssociation(Association):
    """Tells its server when it ended, however it did: once, or twice if it was released."""

    record: Any = None  # what the receiver keeps of it

    def __init__(self, entity: ApplicationEntity) -> None:
        super().__init__(entity, MODE_ACCEPTOR)
        self.acse = AnsweringService(self)
        self.dul = provider = WaitingProvider(self)
        self.dimse = WaitingMessages(self, provider)
        self.acse_timeout, self.network_timeout = entity.acse_timeout, entity.network_timeout

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            message = self.dimse.message
            if message is not None and isinstance(message.data_set, Spool):
                message.data_set.discard()
            server = self._server
            if isinstance(server, BoundedServer):
                server.association_ended(self)


class BoundedHandler(RequestHandler):
    """One connection: TLS, then an association."""

    server: BoundedServer

    def handle(self) -> None:
        request = self.request
        with suppress(OSError):  # an answer must not wait for the next (Nagle)
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.tls is not None:
            request.settimeout(self.ae.network_timeout)
            try:
                self.request = self.server.tls.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError) as error:
                log.warning("TLS with %s failed: %s", self.client_address[0], error)
                self.server.shutdown_request(request)
                self.server.on_refused("", self.client_address[0])
                return
        super().handle()

    def _create_association(self) -> Association:
        association = ReceivingAssociation(self.ae)
        association._server = self.server
        association.name = f"AcceptorThread@{id(association)}"
        association.set_socket(BoundedSocket(association, self.request, self.server.files))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # Negotiation writes into the contexts, but not into their lists of syntaxes.
        acceptor.supported_contexts = [copy(context) for context in self.server.contexts]
        association.requestor.address_info = self.remote
        handlers: Any
        for event, handlers in self.server._handlers.items():
            if event.is_intervention:
                association.bind(event, *handlers)
            else:
                for handler, arguments in handlers:
                    association.bind(event, handler, arguments)
        return association


class BoundedServer(ThreadedAssociationServer):
    """Listens; `on_end` is told of each association that ended, `on_refused` (AE title or "",
    address) of each that was refused."""

    request_queue_size = 256  # the default of 5 turns away senders that come together
    daemon_threads = True

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        handlers: list[Any],
        files: Files,
        on_end: Callable[[Association], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.files = files
        self.tls = tls
        self.on_refused: Callable[[str, str], None] = lambda title, address: None
        self._on_end = on_end
        super().__init__(
            entity,
            address,
            entity.ae_title,
            contexts,
            evt_handlers=handlers,
            request_handler=BoundedHandler,
        )
        entity._servers.append(self)

    def verify_request(self, _request: Any, _address: Any) -> bool:
        """Whoever is over the limit is rejected in the protocol; far over it, cut off at once."""
        return len(self.active_associations) < 2 * self.ae.maximum_associations + 16

    def association_ended(self, association: Association) -> None:
        try:
            self._on_end(association)
        except Exception:
            log.exception("after an association")

"""C-STORE and C-ECHO (PS3.4 annex B, PS3.7): our own handler on pynetdicom's associations.

The data set is written as it came, never decoded. Success is answered after the commit, and not
before. What a stranger may claim is capped: the length of a PDU, of a message, the number of
associations, and the time that one PDU may take.
"""

from __future__ import annotations

import logging
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.presentation import PresentationContext, build_context

from triage.dicom.headers import made_up_uid
from triage.dicom.syntax import SYNTAXES
from triage.service.access.looks import Looks
from triage.service.images.files import PREAMBLE, Files, FileTooLargeError, StorageError
from triage.service.intake.accept import Accepted, Acceptor, Claim, NotStoredError, Source, State
from triage.service.intake.transport import MAX_PDU, BoundedServer
from triage.settings import Settings

log = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
IMPLEMENTATION_UID = made_up_uid("trauma-ct-triage")  # PS3.5 annex B.2

# PS3.4 Table B.2-1 and PS3.7 annex C.
SUCCESS = 0x0000
DUPLICATE_INSTANCE = 0x0111  # this SOP Instance UID with other content is stored already
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900  # the data set is not what the command announced
CANNOT_UNDERSTAND = 0xC000

# Why a file went into quarantine -> what its sender is told.
STATUS_OF_REASON = {
    "OTHER_BYTES": DUPLICATE_INSTANCE,
    "MISMATCH": DATA_SET_MISMATCH,
    "UNREADABLE": CANNOT_UNDERSTAND,
    "TOO_LARGE": OUT_OF_RESOURCES,
}


class Sender:
    """What one sender did during one association."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.studies: set[str] = set()
        self.failed = False  # an image was not taken
        self.aborted = False  # the association was not released in order
        self.ended = False

    @property
    def broke_off(self) -> bool:
        """Images may be missing: no negative verdict on what came."""
        return self.failed or self.aborted


class Receiver:
    """The DICOM receiver. `on_ended` is told how each association ended that brought images."""

    def __init__(
        self,
        acceptor: Acceptor,
        files: Files,
        settings: Settings,
        on_ended: Callable[[Sender], None] = lambda sender: None,
    ) -> None:
        self.acceptor = acceptor
        self.files = files
        self.settings = settings
        self.on_ended = on_ended
        self._allowed = allowed_senders(settings.senders)
        self._looks = Looks(acceptor.database)
        self._server: BoundedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on (the setting may have been 0)."""
        if self._server is None:
            raise RuntimeError("The receiver was not started")
        return int(self._server.server_address[1])

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def associations(self) -> int:
        """Associations under way."""
        return len(self._server.active_associations) if self._server else 0

    def receiving(self, study_id: str) -> bool:
        """An association that brought images of this study is still open."""
        active = self._server.active_associations if self._server else []
        senders = (getattr(association, "record", None) for association in active)
        return any(s is not None and not s.ended and study_id in s.studies for s in senders)

    def start(self) -> None:
        """Listen. Raises OSError (the port is taken; certificate or key cannot be used)."""
        self._server = BoundedServer(
            self._entity(),
            (self.settings.dicom_host, self.settings.dicom_port),
            contexts(),
            [
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_C_ECHO, lambda event: SUCCESS),
                (evt.EVT_C_STORE, self._store),
            ],
            self.files,
            self._ended,
            tls_context(self.settings),
        )
        self._server.on_refused = self._looks.refused
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.5,), name="triage-dimse", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, abort what is under way."""
        if self._server is None:
            return
        active = self._server.active_associations
        self._server.shutdown()
        for association in active:
            if association.is_established:
                association.abort()

    def _entity(self) -> AE:
        entity = AE(ae_title=self.settings.ae_title)
        entity.maximum_pdu_size = MAX_PDU
        entity.maximum_associations = self.settings.dicom_max_associations
        entity.require_called_aet = self.settings.ae_title_required
        timeout = self.settings.dicom_timeout_s
        entity.acse_timeout = timeout
        entity.dimse_timeout = timeout
        entity.network_timeout = timeout
        return entity

    # ---- events, each in the thread of its association

    def _requested(self, event: Any) -> None:
        """Refuse strangers: rejected-permanent, calling AE title not recognised (PS3.8 9.3.4)."""
        association = event.assoc
        title = str(association.requestor.primitive.calling_ae_title).strip()
        association.record = Sender(title)
        address = association.requestor.address
        if self._allowed and not self._allowed & {(title, ""), (title, address)}:
            log.warning("an association of an unknown sender was refused")
            self._looks.refused(title, address)
            association.acse.send_reject(0x01, 0x01, 0x03)
            association.is_rejected = True
            association.kill()

    def _ended(self, association: Any) -> None:
        sender = association.record
        if isinstance(sender, Sender) and sender.studies and not sender.ended:
            sender.aborted, sender.ended = not association.is_released, True
            self.on_ended(sender)

    def _store(self, event: Any) -> int:
        sender: Sender = event.assoc.record
        try:
            accepted = self._take(event, sender.title)
        except (NotStoredError, FileTooLargeError) as error:
            sender.failed = True
            log.warning("an image was not stored: %s", error)
            return OUT_OF_RESOURCES
        except Exception:
            sender.failed = True
            log.exception("an image was not stored")
            return CANNOT_UNDERSTAND
        if accepted.study_id is not None:
            sender.studies.add(accepted.study_id)
        if accepted.state is not State.QUARANTINED:
            return SUCCESS
        sender.failed = sender.failed or accepted.reason != "OTHER_BYTES"
        return STATUS_OF_REASON.get(accepted.reason, CANNOT_UNDERSTAND)

    def _take(self, event: Any, title: str) -> Accepted:
        request, content = event.request, event.request.DataSet
        claimed = Claim(str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        try:
            file = self.files.begin()
            file.write(file_head(claimed, str(event.context.transfer_syntax), title))
            content.into(file)
        except StorageError as error:
            raise NotStoredError(str(error), error.full) from error
        finally:
            content.discard()
        return self.acceptor.accept(file, Source("dimse", title, transfer=True), claimed)


def file_head(claimed: Claim, syntax: str, sender: str) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 section 7.1) of a received image."""

    def element(number: int, vr: bytes, value: bytes) -> bytes:
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value

    def uid(number: int, value: str) -> bytes:
        return element(number, b"UI", value.encode("ascii", "replace")[:64])

    group = (
        struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2)
        + b"\x00\x01"
        + uid(0x0002, claimed.sop_class_uid)
        + uid(0x0003, claimed.sop_instance_uid)
        + uid(0x0010, syntax)
        + uid(0x0012, IMPLEMENTATION_UID)
        + element(0x0013, b"SH", b"TRIAGE")
        + element(0x0016, b"AE", sender.encode("ascii", "replace")[:16])
    )
    length = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(group))
    return bytes(PREAMBLE) + b"DICM" + length + group


def contexts() -> list[PresentationContext]:
    """Verification, and every storage class in every transfer syntax that the gate reads."""
    verification = build_context(VERIFICATION)
    storage = [
        build_context(str(context.abstract_syntax), list(SYNTAXES))
        for context in AllStoragePresentationContexts
    ]
    return [verification, *storage]


def allowed_senders(text: str) -> frozenset[tuple[str, str]]:
    """(AE title, address or "") of `TRIAGE_SENDERS`; empty if everybody may send."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    return frozenset(
        (title.strip(), at.strip()) for title, _, at in (e.partition("@") for e in entries)
    )


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer (PS3.15 B.12) if a certificate is configured, for clients too with a CA.

    Raises OSError (ssl.SSLError included) if certificate, key or CA cannot be used.
    """
    if settings.dicom_tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.dicom_tls_cert, settings.dicom_tls_key)
    if settings.dicom_tls_client_ca is not None:
        context.load_verify_locations(settings.dicom_tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

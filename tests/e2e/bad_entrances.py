"""Sends files of the malformed set through one entrance of a running service."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence

from tests.drills.house import House
from tests.fuzz.associations import CT, EXPLICIT, Peer, data_set_of, store
from triage.dicom import dataset
from triage.reasons import NotAnalysed
from triage.service.intake import watch
from triage.service.intake.header import read_header

BOUNDARY = "cut-here"
STORED = (0x0000, 0x0111)

Send = Callable[[House, Sequence[bytes]], str]  # what the sender was told


def by_c_store(at: House, files: Sequence[bytes]) -> str:
    """A new association for each other class or transfer syntax, and after each refusal."""
    said: dict[str, None] = {}
    peer, open_for = None, ("", "")
    for number, data in enumerate(files):
        sop_class, sop_uid, syntax = _said(data)
        if peer is None or open_for != (sop_class, syntax):
            _close(peer)
            peer, open_for = _associated(at, sop_class, syntax), (sop_class, syntax)
        if peer is None:
            told = "not offered"  # the sender keeps it, and knows
        else:
            body = data_set_of(data) if dataset.is_dicom(data[:132]) else data
            told = _stored(peer, store(body, sop_uid, number % 60000 + 1, sop_class))
        said[told] = None
        if told != "stored":
            _close(peer)
            peer = None
    _close(peer)
    return ", ".join(said)


def _associated(at: House, sop_class: str, syntax: str) -> Peer | None:
    peer = Peer(at.service.intake.receiver.port)
    if peer.associate(syntax, sop_class):
        return peer
    peer.close()
    return None


def _stored(peer: Peer, message: bytes) -> str:
    try:
        peer.socket.sendall(message)
        return _status(peer.status())
    except (ConnectionError, TimeoutError):
        return "cut off"


def _close(peer: Peer | None) -> None:
    if peer is not None:
        peer.close()


def _status(status: int | None) -> str:
    if status in STORED:
        return "stored"
    return "aborted" if status is None else f"{status:04X}"


def _said(data: bytes) -> tuple[str, str, str]:
    """SOP class, instance and transfer syntax as a sender would announce them."""
    try:
        header = read_header(data)
    except NotAnalysed:
        return CT, "1.2.3", EXPLICIT
    return (
        _plain(header.sop_class_uid, CT),
        header.sop_instance_uid or "1.2.3",  # whatever it is: so would a sender
        _plain(header.transfer_syntax_uid, EXPLICIT),
    )


def _plain(uid: str, other: str) -> str:
    return uid if uid and len(uid) <= 64 and set(uid) <= set("0123456789.") else other


def by_stow(at: House, files: Sequence[bytes]) -> str:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"\r\n".join(head + data for data in files) + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    answer = at.client.post("/dicom-web/studies", content=body, headers={"content-type": kind})
    assert answer.status_code in (200, 202, 400, 409), answer.text
    assert "Traceback" not in answer.text
    return str(answer.status_code)


def by_upload(at: House, files: Sequence[bytes]) -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, data in enumerate(files):
            archive.writestr(f"{number:04d}.dcm", data)
    kind = {"content-type": "application/zip"}
    answer = at.client.post("/api/v1/studies", content=buffer.getvalue(), headers=kind)
    assert answer.status_code == 202, answer.text
    counted = {key: n for key, n in answer.json().items() if isinstance(n, int) and n}
    return ", ".join(f"{key} {number}" for key, number in counted.items())


def by_folder(at: House, files: Sequence[bytes]) -> str:
    folder = at.service.home / "inbox"
    watch.SETTLE_S = 0.0
    counts = {}
    for name in ("done", "refused"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        counts[name] = len(list((folder / name).iterdir()))
    for number, data in enumerate(files):
        (folder / f"{number:04d}.dcm").write_bytes(data)
    watch.Watcher(at.service.intake, folder).scan()
    assert [path.name for path in folder.iterdir() if path.is_file()] == []
    more = {name: len(list((folder / name).iterdir())) - n for name, n in counts.items()}
    return ", ".join(f"{name} {number}" for name, number in more.items() if number)


ENTRANCES: dict[str, Send] = {
    "C-STORE": by_c_store,
    "STOW-RS": by_stow,
    "upload": by_upload,
    "watched folder": by_folder,
}

"""The other side: a PACS, a web server, an HL7 receiver, that take, refuse or take their time."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from triage.delivery.mllp import Listener
from triage.results.hl7 import field, parsed, segment


class Pacs:
    """A storage SCP. `status` is what it answers; `taken` counts by SOP Instance UID."""

    def __init__(self, port: int = 0) -> None:
        self.status = 0x0000
        self.taken: Counter[str] = Counter()
        self.objects: dict[str, Dataset] = {}
        self.asked = 0
        self.hold = threading.Event()  # set: answers at once
        self.hold.set()
        self._stopped = False
        entity = AE(ae_title="PACS")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        self._server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._server.socket.getsockname()[1])

    def _store(self, event: Any) -> int:
        self.asked += 1
        self.hold.wait(30)
        if self.status == 0x0000:
            data = event.dataset
            data.file_meta = event.file_meta
            self.taken[str(data.SOPInstanceUID)] += 1
            self.objects[str(data.SOPInstanceUID)] = data
        return self.status

    def stop(self) -> None:
        self.hold.set()
        if not self._stopped:
            self._stopped = True
            self._server.shutdown()

    def of(self, modality: str) -> list[Dataset]:
        return [d for d in self.objects.values() if d.Modality == modality]


class Web:
    """Takes posts. `status` is what it answers; `posts` holds (path, headers, body)."""

    def __init__(self) -> None:
        self.status = 200
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = _body(self)
                web.posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(web.status)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def json(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.posts]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("transfer-encoding", ""):
        return handler.rfile.read(int(handler.headers.get("content-length", 0)))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


class Hl7:
    """An MLLP receiver that acknowledges with `code`."""

    def __init__(self) -> None:
        self.code = "AA"
        self.messages: list[str] = []
        self._listener = Listener("127.0.0.1", 0, self._answer)
        self._listener.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.port}"

    def _answer(self, message: bytes, _peer: str) -> str:
        text = message.decode()
        self.messages.append(text)
        control = field(parsed(text)[0], 10)
        head = "MSH|^~\\&|HIS|HIS|||20261121||ACK|1|P|2.5.1"
        return f"{head}\r{segment('MSA', {1: self.code, 2: control})}\r"

    def stop(self) -> None:
        self._listener.stop()


@contextmanager
def running(*peers: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for peer in peers:
            peer.stop()


def parts_of(body: bytes, content_type: str) -> list[bytes]:
    """DICOM files of a STOW-RS request."""
    found = re.search(r"boundary=(\S+)", content_type)
    assert found
    pieces = body.split(f"--{found[1]}".encode())[1:-1]
    return [piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces]

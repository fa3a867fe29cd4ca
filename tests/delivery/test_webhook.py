"""Webhooks against a real receiver: signed, replay-safe, and never further than configured."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from triage.delivery import webhook
from triage.delivery.webhook import WebhookError, key_of, send, sign, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = b'{"type":"study.analysed"}'


class Receiver:
    """Answers `codes` one after the other, the last one for ever; keeps what came."""

    def __init__(self, codes: list[int], certificate: Path | None = None) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((self.path, headers, body))
                code = codes.pop(0) if len(codes) > 1 else codes[0]
                self.send_response(code)
                if code in (301, 307):
                    self.send_header("location", f"{receiver.url}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    started: list[Receiver] = []

    def start(*codes: int, certificate: Path | None = None) -> Receiver:
        started.append(Receiver(list(codes) or [200], certificate))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_a_receiver_can_tell_that_it_is_ours(receiver: Callable[..., Receiver]) -> None:
    there = receiver(204)
    send(there.url + "/hook", SECRET, "msg_1", BODY, clock=lambda: 1_000_000.7)
    ((path, headers, body),) = there.got
    assert (path, body, headers["webhook-id"]) == ("/hook", BODY, "msg_1")
    key = key_of(SECRET)
    assert verify(key, headers, body, at=1_000_100) == "msg_1"
    for at in (1_000_000 + 301, 1_000_000 - 301):  # recorded and sent again
        with pytest.raises(ValueError, match="old"):
            verify(key, headers, body, at=at)
    for change in ({"webhook-id": "msg_2"}, {"webhook-timestamp": "1000001"}):
        with pytest.raises(ValueError, match="signature"):
            verify(key, headers | change, body, at=1_000_100)
    with pytest.raises(ValueError, match="signature"):
        verify(key, headers, body + b" ", at=1_000_100)
    with pytest.raises(ValueError, match="signature"):
        verify(key_of("another secret of some length"), headers, body, at=1_000_100)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks reference libraries."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    given = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert given == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(("code", "permanent"), [(500, False), (404, False), (410, True)])
def test_a_refusal_says_whether_to_try_again(
    receiver: Callable[..., Receiver], code: int, permanent: bool
) -> None:
    there = receiver(code, 200)
    with pytest.raises(WebhookError, match=str(code)) as caught:
        send(there.url, SECRET, "msg_1", BODY)
    assert caught.value.permanent is permanent
    send(there.url, SECRET, "msg_1", BODY)
    assert [headers["webhook-id"] for _, headers, _ in there.got] == ["msg_1", "msg_1"]


def test_redirects_are_not_followed(receiver: Callable[..., Receiver]) -> None:
    there = receiver(307, 200)
    with pytest.raises(WebhookError, match="307"):
        send(there.url, SECRET, "msg_1", BODY)
    assert len(there.got) == 1


def test_a_receiver_that_is_away_is_tried_again(receiver: Callable[..., Receiver]) -> None:
    there = receiver(200)
    url = there.url
    there.close()
    with pytest.raises(WebhookError) as caught:
        send(url, SECRET, "msg_1", BODY, timeout_s=2)
    assert not caught.value.permanent
    assert url not in str(caught.value)


def test_another_certificate_gets_nothing(
    receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
        "/CN=x -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "cert.pem").read_bytes() + (tmp_path / "key.pem").read_bytes())
    there = receiver(200, certificate=both)
    with pytest.raises(WebhookError, match="reached"):
        send(there.url, SECRET, "msg_1", BODY)
    assert there.got == []
    trust = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    send(there.url, SECRET, "msg_1", BODY, verify_tls=trust)
    assert len(there.got) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://hospital.example/hook",
        "https://me:secret@hospital.example/",
        "ftp://127.0.0.1/",
        "https://",
        "",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="webhook"):
        webhook.checked_url(url)
    with pytest.raises(WebhookError) as caught:
        send(url, SECRET, "msg_1", BODY)
    assert caught.value.permanent


@pytest.mark.parametrize("secret", ["", "short", "whsec_AAAA", "whsec_!!!"])
def test_secrets_that_are_none(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        key_of(secret)


def test_the_payload_names_no_patient() -> None:
    study = {"id": "a", "status": "analysed", "patient_name": "DOE^JANE", "targets": {}}
    body = webhook.payload("study.analysed", "2026-11-21T14:00:00+00:00", study)
    assert b"DOE" not in body and json.loads(body)["data"]["id"] == "a"
    assert body == webhook.payload("study.analysed", "2026-11-21T14:00:00+00:00", study)

"""A result as a signed HTTP POST, after the Standard Webhooks specification 1.0
(github.com/standard-webhooks): HMAC-SHA256 over id, time and body, so that a receiver can tell that
it is ours, unchanged, and not one that was recorded and sent again.

`outbox` keeps the list of what is to be sent, tries again after a failure, and gives up at once
where `WebhookError.permanent`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

PREFIX = "whsec_"  # before a secret in Base64
SHORTEST = 24  # bytes of a secret: 24 to 64 says the specification
TOLERANCE_S = 300  # how old or young a message may be
TIMEOUT_S = 15.0
# What a receiver may be told of a study: nothing that names a patient.
TOLD = (
    "id",
    "study_instance_uid",
    "status",
    "priority",
    "version",
    "targets",
    "received_at",
    "finished_at",
    "flagged_at",
)


class WebhookError(Exception):
    """It was not taken. `permanent`: no further try would help. The text names no address."""

    def __init__(self, text: str, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


def payload(kind: str, at: str, study: Mapping[str, Any]) -> bytes:
    """The body: `kind` such as `study.analysed`, `at` as ISO 8601, and of `study` (a study as in
    the list) what `TOLD` names. The same input gives the same bytes."""
    data = {name: study[name] for name in TOLD if name in study}
    told = {"type": kind, "timestamp": at, "data": data}
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def key_of(secret: str) -> bytes:
    """The key of a secret as it is configured: `whsec_` and Base64, or any text. ValueError where
    it is too short to be one."""
    if secret.startswith(PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("The webhook's secret is no Base64 after whsec_.") from None
    else:
        key = secret.encode("utf-8")
    if len(key) < SHORTEST:
        raise ValueError(f"The webhook's secret has {len(key)} bytes; at least {SHORTEST}.")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the Base64 of HMAC-SHA256 over `id.timestamp.body`."""
    signed = b"%b.%d.%b" % (message_id.encode("ascii"), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def verify(key: bytes, headers: Mapping[str, str], body: bytes, at: float) -> str:
    """What a receiver does; the id of the message, which it must not take twice. ValueError."""
    message_id = headers.get("webhook-id", "")
    stamp = headers.get("webhook-timestamp", "")
    if not message_id or not stamp.isdigit() or abs(at - int(stamp)) > TOLERANCE_S:
        raise ValueError("The message is too old, or says not when it was sent.")
    right = sign(key, message_id, int(stamp), body)
    given = headers.get("webhook-signature", "").split()
    if not any(hmac.compare_digest(right.encode(), one.encode()) for one in given):
        raise ValueError("The signature is wrong.")
    return message_id


def checked_url(url: str) -> str:
    """https, or http on this machine; no name and password in it. ValueError otherwise."""
    parts = urlsplit(url)
    local = parts.hostname == "localhost"
    with suppress(ValueError):
        local = local or ipaddress.ip_address(parts.hostname or "").is_loopback
    if not parts.hostname or parts.scheme not in ("https", "http") or parts.username is not None:
        raise ValueError("A webhook's address begins with https:// and holds no password.")
    if parts.scheme == "http" and not local:
        raise ValueError("A webhook on another machine needs https.")
    return url


def send(
    url: str,
    secret: str,
    message_id: str,
    body: bytes,
    *,
    clock: Callable[[], float] = time.time,
    verify_tls: Any = True,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Deliver once; signed anew at every try, under the same id. Raises WebhookError.

    No redirects are followed and no proxy of the environment is used: the address that was
    configured is the only one that gets it. `verify_tls`: True, or an `ssl.SSLContext`.
    """
    try:
        checked_url(url)
        key = key_of(secret)
    except ValueError as error:
        raise WebhookError(str(error), permanent=True) from error
    timestamp = int(clock())
    headers = {
        "content-type": "application/json",
        "user-agent": "trauma-ct-triage",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(key, message_id, timestamp, body),
    }
    try:
        with (
            httpx.Client(verify=verify_tls, timeout=timeout_s, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            status = answer.status_code  # what the receiver says beyond that is not read
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise WebhookError(f"The receiver cannot be reached: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise WebhookError(f"The receiver answered {status}", permanent=status == 410)

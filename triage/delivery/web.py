"""STOW-RS (PS3.18 10.5) and FHIR transactions over HTTP."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from triage.delivery.errors import DeliveryError

# The same would be refused again. Others may pass: a login that is mended, a server that starts.
PERMANENT = {400, 405, 406, 410, 412, 413, 415, 422}
_MAX_ANSWER = 4 << 20
_THERE = 0x0111  # failure reason that says: stored already (PS3.18 Table I.2-2)
_FAILING = 0x0110  # the server failed; like 0xA7.. (out of resources) it may pass


def stow(url: str, files: Sequence[Path], *, token: str, timeout_s: float) -> None:
    """Store all files by one request to `url`/studies. Raises DeliveryError."""
    boundary = secrets.token_hex(16)
    headers = {
        "content-type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "accept": "application/dicom+json",
    }
    status, answer = _post(
        f"{url}/studies", headers, _parts(boundary, files), token=token, timeout_s=timeout_s
    )
    failed = _failed(answer)
    if failed:
        passing = all(r == _FAILING or r >> 8 == 0xA7 for r in failed)
        reasons = ", ".join(sorted({f"{reason:04X}" for reason in failed}))
        raise DeliveryError(f"{len(failed)} objects were not stored: {reasons}", not passing)
    if status not in (200, 202):
        raise DeliveryError(f"the server answers {status}", permanent=status in {*PERMANENT, 409})


def _parts(boundary: str, files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield path.read_bytes()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _failed(answer: bytes) -> list[int]:
    """Failure reasons of a Store Instances Response (PS3.18 I.2.2) but "stored already"."""
    try:
        rows = json.loads(answer)
    except ValueError:
        return []
    found: list[int] = []
    for row in rows if isinstance(rows, list) else [rows]:
        sequence = row.get("00081198") if isinstance(row, dict) else None
        for item in (sequence or {}).get("Value") or []:
            reasons = (item.get("00081197") or {}).get("Value") or [_FAILING]
            found += [int(reason) for reason in reasons if int(reason) != _THERE]
    return found


def fhir(url: str, bundle: dict[str, Any], *, token: str, timeout_s: float) -> None:
    """Post a transaction to a server's base address. Raises DeliveryError."""
    headers = {"content-type": "application/fhir+json", "accept": "application/fhir+json"}
    body = json.dumps(bundle, ensure_ascii=False).encode()
    status, _ = _post(url, headers, body, token=token, timeout_s=timeout_s)
    if status not in (200, 201):
        raise DeliveryError(f"the server answers {status}", permanent=status in PERMANENT)


def _post(
    url: str,
    headers: dict[str, str],
    content: bytes | Iterator[bytes],
    *,
    token: str,
    timeout_s: float,
) -> tuple[int, bytes]:
    """No redirect is followed and no proxy of the environment used."""
    if token:
        headers = {**headers, "authorization": f"Bearer {token}"}
    try:
        with (
            httpx.Client(timeout=timeout_s, trust_env=False) as client,
            client.stream("POST", url, content=content, headers=headers) as answer,
        ):
            said = b""
            for chunk in answer.iter_bytes():
                said += chunk
                if len(said) > _MAX_ANSWER:
                    break
            return answer.status_code, said
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise DeliveryError(f"the server cannot be reached: {type(error).__name__}") from error

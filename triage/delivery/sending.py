"""One delivery to one destination, by its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triage.delivery import dimse, mllp, web, webhook
from triage.delivery.destinations import Destination
from triage.delivery.errors import DeliveryError


@dataclass(frozen=True, slots=True)
class Payload:
    """What is sent: only what the destination's kind needs is there."""

    files: list[Path] = field(default_factory=list)
    fhir: dict[str, Any] = field(default_factory=dict)
    hl7: str = ""
    body: bytes = b""
    message_id: str = ""


def send(destination: Destination, payload: Payload, *, ae_title: str, timeout_s: float) -> None:
    """Deliver once. Raises DeliveryError."""
    _SENDERS[destination.kind](destination, payload, ae_title, timeout_s)


Sender = Callable[[Destination, Payload, str, float], object]


def _webhook(to: Destination, what: Payload, _title: str, timeout_s: float) -> None:
    try:
        webhook.send(to.address, to.secret, what.message_id, what.body, timeout_s=timeout_s)
    except webhook.WebhookError as error:
        raise DeliveryError(str(error), error.permanent) from error


_SENDERS: dict[str, Sender] = {
    "dicom": lambda to, what, title, seconds: dimse.store(
        to.address, what.files, ae_title=title, timeout_s=seconds
    ),
    "stow": lambda to, what, _title, seconds: web.stow(
        to.address, what.files, token=to.secret, timeout_s=seconds
    ),
    "fhir": lambda to, what, _title, seconds: web.fhir(
        to.address, what.fhir, token=to.secret, timeout_s=seconds
    ),
    "hl7": lambda to, what, _title, seconds: mllp.send(to.address, what.hl7, timeout_s=seconds),
    "hl7_file": lambda to, what, _title, _seconds: mllp.write(Path(to.address), what.hl7),
    "webhook": _webhook,
}

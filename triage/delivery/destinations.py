"""Where results go: read from the settings, nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from triage.delivery.webhook import checked_url, key_of

if TYPE_CHECKING:
    from triage.settings import Settings

# Kind -> the setting that names its destinations.
KINDS: dict[str, str] = {
    "dicom": "deliver_dicom",
    "stow": "deliver_stow",
    "fhir": "deliver_fhir",
    "hl7": "deliver_hl7",
    "hl7_file": "deliver_hl7_folder",
    "webhook": "deliver_webhook",
}


@dataclass(frozen=True, slots=True)
class Destination:
    """`name` is kept with every delivery; it holds no secret."""

    kind: str
    address: str
    secret: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.address}"


def destinations(settings: Settings) -> list[Destination]:
    """All that are configured. Raises ValueError naming the setting that makes no sense."""
    secrets = {
        "stow": settings.deliver_stow_token,
        "fhir": settings.deliver_fhir_token,
        "webhook": settings.deliver_webhook_secret,
    }
    found = []
    for kind, setting in KINDS.items():
        value = getattr(settings, setting)
        for address in _split(str(value)) if value else []:
            try:
                _CHECKS[kind](address)
                if kind == "webhook":
                    key_of(settings.deliver_webhook_secret)
            except ValueError as error:
                raise ValueError(f"TRIAGE_{setting.upper()}: {error}") from error
            found.append(Destination(kind, address.rstrip("/"), secrets.get(kind, "")))
    return found


def objects(settings: Settings) -> frozenset[str]:
    """Kinds of DICOM objects that are sent. Raises ValueError."""
    from triage.results.dicom.build import KINDS as OBJECTS

    wanted = frozenset(part.lower() for part in _split(settings.deliver_objects))
    if not wanted <= set(OBJECTS) or "sr" not in wanted:
        raise ValueError(
            f"TRIAGE_DELIVER_OBJECTS: expected sr and any of {', '.join(OBJECTS)}, got "
            f"{settings.deliver_objects!r}"
        )
    return wanted


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def peer(address: str) -> tuple[str, str, int]:
    """(AE title, host, port) of AE@host:port. Raises ValueError."""
    found = re.fullmatch(r"([^@\\]{1,16})@([^@\s]+):(\d{1,5})", address)
    if not found or not 0 < int(found[3]) < 65536:
        raise ValueError(f"expected AE@host:port, got {address!r}")
    return found[1], found[2].strip("[]"), int(found[3])


def host_port(address: str) -> tuple[str, int]:
    """(host, port) of host:port. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"expected host:port, got {address!r}")
    return host.strip("[]"), int(port)


def _web(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ValueError("expected http:// or https:// without a password in it")


def _folder(address: str) -> None:
    if not Path(address).is_dir():
        raise ValueError(f"there is no folder {address}")


_CHECKS = {
    "dicom": peer,
    "stow": _web,
    "fhir": _web,
    "hl7": host_port,
    "hl7_file": _folder,
    "webhook": checked_url,
}

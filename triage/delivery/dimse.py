"""C-STORE to a PACS (PS3.4 annex B). Files are ours; their UIDs make a second sending harmless."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pydicom
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from triage.delivery.destinations import peer
from triage.delivery.errors import DeliveryError

SYNTAX = "1.2.840.10008.1.2.1"  # Explicit VR Little Endian, as the objects are written
IMPLICIT = "1.2.840.10008.1.2"
DUPLICATE = 0x0111  # it is there already
OUT_OF_RESOURCES = 0xA700


def store(address: str, files: Sequence[Path], *, ae_title: str, timeout_s: float) -> None:
    """Send every file over one association. Raises DeliveryError.

    Objects of a class that the peer does not take do not hold up the others; the error then names
    the classes, and is permanent.
    """
    title, host, port = peer(address)
    classes = {path: str(_head(path).SOPClassUID) for path in files}
    entity = AE(ae_title=ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    entity.connection_timeout = min(timeout_s, 10.0)
    contexts = [build_context(uid, [SYNTAX]) for uid in sorted(set(classes.values()))]
    association = entity.associate(host, port, contexts, ae_title=title)
    if not association.is_established:
        why = "refused" if association.is_rejected else "not reached"
        raise DeliveryError(f"{title} at {host}:{port} {why}")
    taken = {str(context.abstract_syntax) for context in association.accepted_contexts}
    failed: list[str] = []
    try:
        for path, uid in classes.items():
            if uid not in taken:
                failed.append(f"{path.name}: {pydicom.uid.UID(uid).name} is not taken")
                continue
            status = association.send_c_store(path)
            if "Status" not in status:
                raise DeliveryError(f"{title} broke off or did not answer in time")
            _check(int(status.Status), path.name, failed)
    except (RuntimeError, ValueError) as error:  # the association ended in between
        raise DeliveryError(f"{title} broke off: {type(error).__name__}") from error
    finally:
        _end(association)
    if failed:
        raise DeliveryError("; ".join(failed)[:400], permanent=True)


def _end(association: Association) -> None:
    if association.is_established:
        association.release()
    else:
        association.abort()


def _head(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])


def _check(status: int, name: str, failed: list[str]) -> None:
    """PS3.4 Table B.2-1 and PS3.7 annex C: done, try later, or never."""
    done = status in (0x0000, DUPLICATE) or status & 0xF000 == 0xB000
    if done:
        return
    if status & 0xFF00 == OUT_OF_RESOURCES or status == 0x0110:
        raise DeliveryError(f"{name}: status {status:04X}, out of resources or failing")
    failed.append(f"{name}: status {status:04X}")

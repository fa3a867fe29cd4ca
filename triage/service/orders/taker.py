"""Takes orders: into the records, the audit log and the queue."""

from __future__ import annotations

import logging

from triage.delivery.mllp import Listener
from triage.service.access import audit
from triage.service.access.bind import is_loopback
from triage.service.orders.messages import OrderError, acknowledgement, ordered
from triage.service.records import Database, DatabaseBusyError, DatabaseFullError, orders
from triage.service.records.orders import Ordered
from triage.settings import Settings

log = logging.getLogger(__name__)


def put(database: Database, found: list[Ordered], route: str, sender: str) -> list[str]:
    """Note orders in one transaction; their ids."""
    with database.session() as session:
        rows = [orders.put(session, one, route, sender) for one in found]
        ids = [row.id for row in rows]
        for row in rows:
            about = {"route": route, "priority": row.priority, "cancelled": row.cancelled}
            audit.record(session, "order.received", sender or route, row.id, details=about)
    return ids


def answer(database: Database, message: bytes, sender: str) -> str:
    """Take one HL7 message; its acknowledgement. AA is said only after the commit."""
    text = message.decode("utf-8", "replace")
    try:
        put(database, ordered(text), "hl7", sender)
    except OrderError as error:
        log.warning("an order from %s was refused: %s", sender, error)
        return acknowledgement(text, error.code, str(error))
    except (DatabaseBusyError, DatabaseFullError) as error:
        log.warning("an order from %s could not be noted: %s", sender, type(error).__name__)
        return acknowledgement(text, "AE", "try again later")
    except Exception:
        log.exception("an order from %s", sender)
        return acknowledgement(text, "AE", "a fault of the receiver")
    return acknowledgement(text, "AA")


def listener(settings: Settings, database: Database) -> Listener | None:
    """The MLLP listener of the settings; None where no port is configured.

    Raises ValueError where strangers could send: MLLP has no login.
    """
    if settings.hl7_port is None:
        return None
    allowed = frozenset(part.strip() for part in settings.hl7_senders.split(",") if part.strip())
    if not allowed and not is_loopback(settings.hl7_host):
        raise ValueError(
            f"{settings.hl7_host} is reachable by other machines: name those that may send orders "
            "in TRIAGE_HL7_SENDERS, or bind TRIAGE_HL7_HOST to 127.0.0.1."
        )
    return Listener(
        settings.hl7_host,
        settings.hl7_port,
        lambda message, sender: answer(database, message, sender),
        allowed=allowed,
    )

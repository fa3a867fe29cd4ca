"""Orders, and since when destinations are known."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from triage.service.records.models import Base, new_id, now


class Destination(Base):
    """Results that ended before `since` are not sent there: what was configured later is no
    reason to send a whole archive."""

    __tablename__ = "destinations"

    name: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime] = mapped_column(default=now)


class Order(Base):
    """What somebody asked for; one for each accession number."""

    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    accession_number: Mapped[str] = mapped_column(unique=True)
    placer_order_number: Mapped[str] = mapped_column(default="")
    patient_id: Mapped[str] = mapped_column(default="")
    priority: Mapped[str] = mapped_column(default="routine")  # stat | routine
    body_part: Mapped[str] = mapped_column(default="")  # as written
    side: Mapped[str] = mapped_column(default="")  # right | left | both
    cancelled: Mapped[bool] = mapped_column(default=False)
    route: Mapped[str] = mapped_column(default="")  # hl7 | fhir
    sender: Mapped[str] = mapped_column(default="")
    study_id: Mapped[str | None] = mapped_column(
        ForeignKey("studies.id", ondelete="SET NULL"), index=True, default=None
    )
    received_at: Mapped[datetime] = mapped_column(default=now, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)

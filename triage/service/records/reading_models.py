"""What readers said of findings."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from triage.service.records.models import Base, new_id, now


class Review(Base):
    """One reader's word on one finding; the newest of a reader on a finding counts, all are kept.

    `verdict` and `score` are what the reader saw.
    """

    __tablename__ = "reviews"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    analysis_id: Mapped[str] = mapped_column(
        ForeignKey("analyses.id", ondelete="CASCADE"), index=True
    )
    target: Mapped[str]
    verdict: Mapped[str]
    score: Mapped[float | None] = mapped_column(default=None)
    agree: Mapped[bool]
    comment: Mapped[str] = mapped_column(default="")
    reader: Mapped[str] = mapped_column(default="")
    reviewed_at: Mapped[datetime] = mapped_column(default=now, index=True)

"""What came in, as figures; and warnings that it changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from triage.service.records.models import Base, new_id, now


class DriftFigures(Base):
    """Figures of one live study's current analysis (`results.figures`). They stay when the study is
    deleted: numbers and terms under an id that means nothing any more."""

    __tablename__ = "drift_figures"
    __table_args__ = (Index("ix_drift_figures_at", "at"),)

    study_id: Mapped[str] = mapped_column(primary_key=True)  # no foreign key: see above
    analysis_id: Mapped[str]
    at: Mapped[datetime]  # end of the analysis
    bundle_sha256: Mapped[str] = mapped_column(default="")
    numbers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    terms: Mapped[dict[str, Any]] = mapped_column(default=dict)


class DriftWarning(Base):
    """One figure that moved away from one reference; open while `ended_at` is null."""

    __tablename__ = "drift_warnings"
    __table_args__ = (
        Index(
            "uq_drift_warnings_open",
            "figure",
            "against",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    figure: Mapped[str]
    against: Mapped[str]  # bundle | first_weeks
    begun_at: Mapped[datetime] = mapped_column(default=now, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(default=None)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)  # as it was when it began

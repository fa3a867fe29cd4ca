"""The tables. Header values are text as the sender wrote it (cleaned, at most 1,024 bytes)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from triage.types import Status

# Names of constraints, so that migrations can refer to them on every database.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("Expected a time with its zone, got one without")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def new_id() -> str:
    """32 hexadecimal digits, made here: never from a header or a file name."""
    return secrets.token_hex(16)


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        str: Text,
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
    }


class Study(Base):
    """One examination of one patient."""

    __tablename__ = "studies"
    __table_args__ = (Index("ix_studies_status", "status"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study_instance_uid: Mapped[str] = mapped_column(unique=True)
    patient_id: Mapped[str] = mapped_column(default="")
    patient_name: Mapped[str] = mapped_column(default="")
    patient_birth_date: Mapped[str] = mapped_column(default="")  # DA as written, YYYYMMDD
    patient_sex: Mapped[str] = mapped_column(default="")
    patient_age: Mapped[str] = mapped_column(default="")  # AS as written, 045Y
    accession_number: Mapped[str] = mapped_column(default="", index=True)
    study_description: Mapped[str] = mapped_column(default="")
    study_date: Mapped[str] = mapped_column(default="")  # DA as written
    order_priority: Mapped[str] = mapped_column(default="routine")  # stat | routine
    background: Mapped[bool] = mapped_column(default=False)  # retrospective: no deadline, last
    status: Mapped[Status] = mapped_column(Text, default=Status.RECEIVED)
    reason: Mapped[str | None] = mapped_column(default=None)  # code of `reasons.REASONS`
    reason_detail: Mapped[str] = mapped_column(default="")
    priority: Mapped[str | None] = mapped_column(default=None)  # suggested: stat|urgent|routine
    images_version: Mapped[int] = mapped_column(default=1)
    ready_version: Mapped[int] = mapped_column(default=0)  # last version declared complete
    instance_count: Mapped[int] = mapped_column(default=0)
    expected_instances: Mapped[int | None] = mapped_column(default=None)  # announced or ordered
    interrupted: Mapped[bool] = mapped_column(default=False)  # a sender broke off
    received_at: Mapped[datetime] = mapped_column(default=now, index=True)
    last_instance_at: Mapped[datetime] = mapped_column(default=now)
    deadline_at: Mapped[datetime | None] = mapped_column(default=None)  # for people; see intake
    flagged_at: Mapped[datetime | None] = mapped_column(default=None)  # first suspected verdict
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    cancelled_version: Mapped[int] = mapped_column(default=0)  # images version at the cancel
    queue_round: Mapped[int] = mapped_column(default=0)  # analyses asked for beyond the first
    acknowledged_at: Mapped[datetime | None] = mapped_column(default=None)
    acknowledged_by: Mapped[str | None] = mapped_column(default=None)
    keep: Mapped[bool] = mapped_column(default=False)  # exempt from retention

    series: Mapped[list[Series]] = relationship(
        back_populates="study", passive_deletes=True, order_by="Series.series_number"
    )
    analyses: Mapped[list[Analysis]] = relationship(
        back_populates="study", passive_deletes=True, order_by="Analysis.version"
    )


class Series(Base):
    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    series_instance_uid: Mapped[str]
    modality: Mapped[str] = mapped_column(default="")
    series_number: Mapped[int | None] = mapped_column(default=None)
    series_description: Mapped[str] = mapped_column(default="")
    body_part: Mapped[str] = mapped_column(default="")
    instance_count: Mapped[int] = mapped_column(default=0)
    expected_instances: Mapped[int | None] = mapped_column(default=None)  # (0020,1209)
    received_at: Mapped[datetime] = mapped_column(default=now)

    study: Mapped[Study] = relationship(back_populates="series")


class Instance(Base):
    """One stored DICOM file. `sha256` is that of the data set, without file meta information."""

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    series_id: Mapped[str] = mapped_column(ForeignKey("series.id", ondelete="CASCADE"), index=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    sop_instance_uid: Mapped[str]
    sop_class_uid: Mapped[str] = mapped_column(default="")
    transfer_syntax_uid: Mapped[str] = mapped_column(default="")
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)  # bytes of the file
    path: Mapped[str]  # below the images folder, generated
    images_version: Mapped[int] = mapped_column(default=1)  # the first version that holds it
    route: Mapped[str] = mapped_column(default="")  # see intake.accept.Source
    sender: Mapped[str] = mapped_column(default="")  # AE title, user or address
    received_at: Mapped[datetime] = mapped_column(default=now)


class Quarantined(Base):
    """A file that was taken and belongs to no study: nobody analyses it, somebody must look."""

    __tablename__ = "quarantine"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study_id: Mapped[str | None] = mapped_column(
        ForeignKey("studies.id", ondelete="CASCADE"), index=True, default=None
    )
    reason: Mapped[str]  # see records.quarantine.REASONS
    detail: Mapped[str] = mapped_column(default="")
    sop_instance_uid: Mapped[str] = mapped_column(default="")
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str]  # below the quarantine folder, generated
    route: Mapped[str] = mapped_column(default="")
    sender: Mapped[str] = mapped_column(default="")
    times: Mapped[int] = mapped_column(default=1)  # how often the same bytes came
    received_at: Mapped[datetime] = mapped_column(default=now, index=True)


class Analysis(Base):
    """One analysis of one images version. At most one of a study is `current`."""

    __tablename__ = "analyses"
    __table_args__ = (
        UniqueConstraint("study_id", "version"),
        Index(
            "uq_analyses_current",
            "study_id",
            unique=True,
            sqlite_where=text("current"),
            postgresql_where=text("current"),
        ),
        Index(
            "uq_analyses_unfinished",
            "study_id",
            "images_version",
            unique=True,
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    version: Mapped[int]  # 1, 2, ... within the study
    images_version: Mapped[int]
    current: Mapped[bool] = mapped_column(default=False)
    status: Mapped[Status] = mapped_column(Text, default=Status.ANALYSING)
    reason: Mapped[str | None] = mapped_column(default=None)
    priority: Mapped[str | None] = mapped_column(default=None)
    bundle_name: Mapped[str] = mapped_column(default="")
    bundle_version: Mapped[str] = mapped_column(default="")
    bundle_sha256: Mapped[str] = mapped_column(default="")
    report: Mapped[dict[str, Any] | None] = mapped_column(default=None)  # report.json
    folder: Mapped[str] = mapped_column(default="")  # of report.json and pictures, absolute
    executor: Mapped[str] = mapped_column(default="")
    attempts: Mapped[int] = mapped_column(default=1)
    round: Mapped[int] = mapped_column(default=0)  # `Study.queue_round` that asked for it
    stage: Mapped[str] = mapped_column(default="")
    fraction: Mapped[float] = mapped_column(default=0.0)
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)

    study: Mapped[Study] = relationship(back_populates="analyses")
    findings: Mapped[list[Finding]] = relationship(
        back_populates="analysis", passive_deletes=True, order_by="Finding.target"
    )


class Finding(Base):
    """One target's answer; `score` is null if and only if the target was not assessed."""

    __tablename__ = "findings"

    analysis_id: Mapped[str] = mapped_column(
        ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True
    )
    target: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[str]
    score: Mapped[float | None] = mapped_column(default=None)
    flagged: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None] = mapped_column(default=None)
    side: Mapped[str | None] = mapped_column(default=None)
    grade: Mapped[str | None] = mapped_column(default=None)
    series_instance_uid: Mapped[str | None] = mapped_column(default=None)

    analysis: Mapped[Analysis] = relationship(back_populates="findings")


class Worker(Base):
    __tablename__ = "workers"

    executor: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(default="")
    pid: Mapped[int] = mapped_column(default=0)
    boot: Mapped[str] = mapped_column(default="")  # made at each start: which process it is
    beat: Mapped[int] = mapped_column(BigInteger, default=0)  # grows while it lives
    started_at: Mapped[datetime] = mapped_column(default=now)
    heartbeat_at: Mapped[datetime] = mapped_column(default=now)


class Cohort(Base):
    """Retrospective studies submitted together."""

    __tablename__ = "cohorts"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    cancelled_at: Mapped[datetime | None] = mapped_column(default=None)


class CohortStudy(Base):
    """One folder of a cohort; `study_id` once it was taken."""

    __tablename__ = "cohort_studies"
    __table_args__ = (UniqueConstraint("cohort_id", "folder"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    cohort_id: Mapped[str] = mapped_column(ForeignKey("cohorts.id", ondelete="CASCADE"))
    study_id: Mapped[str | None] = mapped_column(
        ForeignKey("studies.id", ondelete="SET NULL"), index=True, default=None
    )
    folder: Mapped[str]
    reason: Mapped[str | None] = mapped_column(default=None)  # why it could not be taken
    added_at: Mapped[datetime] = mapped_column(default=now)


class Delivery(Base):
    """One result on its way to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_due", "state", "next_try_at"),
        Index("uq_deliveries_analysis_id_destination", "analysis_id", "destination", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    analysis_id: Mapped[str] = mapped_column(
        ForeignKey("analyses.id", ondelete="CASCADE"), index=True
    )
    destination: Mapped[str]
    kind: Mapped[str]  # key of `triage.delivery.destinations.KINDS`
    state: Mapped[str] = mapped_column(default="waiting")  # waiting|done|dead|superseded
    attempts: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    done_at: Mapped[datetime | None] = mapped_column(default=None)


class AuditEvent(Base):
    """One entry of the audit log; each carries the hash of the one before."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    actor: Mapped[str] = mapped_column(default="")
    action: Mapped[str]
    object: Mapped[str] = mapped_column(default="")
    outcome: Mapped[str] = mapped_column(default="")
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    previous_hash: Mapped[str] = mapped_column(default="")
    hash: Mapped[str] = mapped_column(default="")


class Counter(Base):
    """Counters that outlive a restart, such as refused files by reason."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)

"""One transaction for the images that have gathered: few statements, however many images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, bindparam, insert, select, update
from sqlalchemy.orm import Session

from triage.service.images.files import Files, Incoming
from triage.service.intake.header import Header
from triage.service.intake.items import Accepted, Prepared, State, Touched
from triage.service.records import analyses, orders, quarantine, studies
from triage.service.records.database import Database
from triage.service.records.models import Instance, Quarantined, Series, Study, new_id, now
from triage.types import Status


def commit(
    database: Database, files: Files, batch: Sequence[Prepared], deadline_s: float
) -> tuple[list[Accepted], list[Touched]]:
    """Place the files, write the rows; an answer for each item, and the studies that grew.

    Raises DatabaseBusyError, DatabaseFullError, StorageError: then nothing happened, and the files
    lie under their temporary names again.
    """
    placed: list[Incoming] = []
    try:
        with database.session() as session:
            work = _Batch(session, files, placed, timedelta(seconds=deadline_s))
            answers = work.take(batch)
            files.sync(placed)
        return answers, work.touched
    except BaseException:
        for file in placed:
            files.take_back(file)
        raise


# Built once: making a statement costs more than running it. Core, not ORM, for the same reason.
_STUDIES, _SERIES, _INSTANCES = (cast(Table, m.__table__) for m in (Study, Series, Instance))
_NEW_STUDY, _NEW_SERIES, _NEW_INSTANCE = insert(_STUDIES), insert(_SERIES), insert(_INSTANCES)
_FIND_INSTANCES = select(
    _INSTANCES.c.sop_instance_uid, _INSTANCES.c.sha256, _INSTANCES.c.study_id
).where(_INSTANCES.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))
_FIND_STUDIES = (
    select(
        _STUDIES.c.study_instance_uid,
        _STUDIES.c.id,
        _STUDIES.c.images_version,
        _STUDIES.c.ready_version,
        _STUDIES.c.status,
        _STUDIES.c.instance_count,
        _STUDIES.c.expected_instances,
        _STUDIES.c.background,
        _STUDIES.c.interrupted,
    )
    .where(_STUDIES.c.study_instance_uid.in_(bindparam("uids", expanding=True)))
    .order_by(_STUDIES.c.id)
    .with_for_update()
)
_FIND_SERIES = select(
    _SERIES.c.study_id,
    _SERIES.c.series_instance_uid,
    _SERIES.c.id,
    _SERIES.c.instance_count,
    _SERIES.c.expected_instances,
).where(
    _SERIES.c.study_id.in_(bindparam("studies", expanding=True)),
    _SERIES.c.series_instance_uid.in_(bindparam("uids", expanding=True)),
)
_GROW_STUDY = (
    update(_STUDIES)
    .where(_STUDIES.c.id == bindparam("of"))
    .values(
        images_version=bindparam("images_version"),
        status=bindparam("status"),
        instance_count=bindparam("instance_count"),
        expected_instances=bindparam("expected_instances"),
        background=bindparam("background"),
        interrupted=bindparam("interrupted"),
        last_instance_at=bindparam("last_instance_at"),
    )
)
_GROW_SERIES = (
    update(_SERIES)
    .where(_SERIES.c.id == bindparam("of"))
    .values(instance_count=bindparam("instance_count"), expected_instances=bindparam("expected"))
)


@dataclass(slots=True)
class _Study:
    """A study of this batch: its row and what this batch adds to it."""

    id: str
    images_version: int = 1
    ready_version: int = 0
    status: Status = Status.RECEIVED
    instance_count: int = 0
    expected_instances: int | None = None
    background: bool = True
    interrupted: bool = False
    announces: bool = False  # an image said how many its series has


class _Batch:
    """The state of one transaction."""

    def __init__(
        self, session: Session, files: Files, placed: list[Incoming], deadline: timedelta
    ) -> None:
        self.session = session
        self.connection = session.connection()
        self.files = files
        self.placed = placed
        self.deadline = deadline
        self.at = now()
        self.touched: list[Touched] = []
        self._counts: Counter[str] = Counter()

    def take(self, batch: Sequence[Prepared]) -> list[Accepted]:
        stored = self._stored(batch)
        new: list[Prepared] = []
        pending: dict[str, Prepared] = {}  # of this batch, not stored yet
        answers: dict[int, Accepted] = {}
        twice: list[tuple[Prepared, Prepared]] = []
        for item in batch:
            there = stored.get(item.uid, {})
            first = pending.get(item.uid)
            if item.header is None or item.reason:
                answers[id(item)] = self._set_aside(item, None)
            elif item.sha256 in there:
                answers[id(item)] = self._duplicate(item, there[item.sha256])
            elif there:
                answers[id(item)] = self._set_aside(item, next(iter(there.values())))
            elif first is not None:
                twice.append((item, first))
            else:
                pending[item.uid] = item
                new.append(item)
        homes = self._add(new)
        for item in new:
            answers[id(item)] = _answer(item, State.STORED, homes[item.file.id])
        for item, first in twice:
            home = homes[first.file.id]
            same = item.sha256 == first.sha256
            answers[id(item)] = self._duplicate(item, home) if same else self._set_aside(item, home)
        for name, number in self._counts.items():
            studies.add_to_counter(self.session, name, number)
        return [answers[id(item)] for item in batch]

    def _stored(self, batch: Sequence[Prepared]) -> dict[str, dict[str, str]]:
        """SOPInstanceUID -> {sha256: study id} of what is stored already."""
        rows = self.connection.execute(_FIND_INSTANCES, {"uids": [item.uid for item in batch]})
        found: dict[str, dict[str, str]] = {}
        for uid, sha256, study_id in rows:
            found.setdefault(uid, {})[sha256] = study_id
        return found

    # ---- new images

    def _add(self, new: Sequence[Prepared]) -> dict[str, str]:
        """Rows and places of new images; file id -> study id."""
        if not new:
            return {}
        own = self._studies(new)
        series = self._series(new, own)
        homes: dict[str, str] = {}
        rows: list[dict[str, Any]] = []
        for item in new:
            header = _header(item)
            study = own[header.study_instance_uid]
            self.placed.append(item.file)
            homes[item.file.id] = study.id
            rows.append(
                {
                    "id": item.file.id,
                    "series_id": series[study.id, header.series_instance_uid],
                    "study_id": study.id,
                    "sop_instance_uid": item.uid,
                    "sop_class_uid": header.sop_class_uid,
                    "transfer_syntax_uid": header.transfer_syntax_uid,
                    "sha256": item.sha256,
                    "size": item.file.size,
                    "path": self.files.place(item.file, study.id),
                    "images_version": study.images_version,
                    "route": item.source.route,
                    "sender": item.source.sender,
                    "received_at": self.at,
                }
            )
        self.connection.execute(_NEW_INSTANCE, rows)
        self.touched = [self._touched(study) for study in own.values()]
        return homes

    def _touched(self, study: _Study) -> Touched:
        expected, count = study.expected_instances, study.instance_count
        all_there = expected is not None and count >= expected
        series_there = False
        if expected is None and study.announces:
            row = self.session.get(Study, study.id)
            series_there = row is not None and studies.all_announced_are_there(self.session, row)
        return Touched(study.id, study.images_version, all_there, series_there, study.background)

    def _studies(self, new: Sequence[Prepared]) -> dict[str, _Study]:
        """The studies of these images, made or grown; by StudyInstanceUID."""
        uids = {_header(item).study_instance_uid for item in new}
        rows = self.connection.execute(_FIND_STUDIES, {"uids": list(uids)})
        found = {row[0]: _Study(*row[1:]) for row in rows}
        for item in new:
            header = _header(item)
            if header.study_instance_uid not in found:
                row = _new_study(header, item.source.background, self.at, self.deadline)
                row["order_priority"] = orders.priority_for(self.session, row["accession_number"])
                self.connection.execute(_NEW_STUDY, [row])
                found[header.study_instance_uid] = _Study(row["id"])
            study = found[header.study_instance_uid]
            study.instance_count += 1
            study.background = study.background and item.source.background
            # Until the transfer ends in order: a process that dies in between leaves it so.
            study.interrupted = study.interrupted or item.source.transfer
            study.expected_instances = _larger(study.expected_instances, header.expected_in_study)
            study.announces = study.announces or header.expected_in_series is not None
        for study in found.values():
            if study.ready_version >= study.images_version:
                # It was complete and is not any more: a new version of its images.
                study.images_version += 1
                study.status = Status.RECEIVED
                analyses.reopened(self.session, study.id)
        self.connection.execute(_GROW_STUDY, [self._grown(s) for s in found.values()])
        return found

    def _grown(self, study: _Study) -> dict[str, Any]:
        return {
            "of": study.id,
            "images_version": study.images_version,
            "status": study.status,
            "instance_count": study.instance_count,
            "expected_instances": study.expected_instances,
            "background": study.background,
            "interrupted": study.interrupted,
            "last_instance_at": self.at,
        }

    def _series(
        self, new: Sequence[Prepared], own: dict[str, _Study]
    ) -> dict[tuple[str, str], str]:
        """(study id, SeriesInstanceUID) -> series id, made or grown."""
        headers: dict[tuple[str, str], list[Header]] = {}
        for item in new:
            header = _header(item)
            key = (own[header.study_instance_uid].id, header.series_instance_uid)
            headers.setdefault(key, []).append(header)
        asked = {
            "studies": list({study for study, _ in headers}),
            "uids": list({uid for _, uid in headers}),
        }
        rows = self.connection.execute(_FIND_SERIES, asked)
        there = {(study, uid): (row_id, n, expected) for study, uid, row_id, n, expected in rows}
        grown, made = [], []
        ids: dict[tuple[str, str], str] = {}
        for key, own_headers in headers.items():
            series_id, count, expected = there.get(key, (new_id(), 0, None))
            for header in own_headers:
                expected = _larger(expected, header.expected_in_series)
            count += len(own_headers)
            ids[key] = series_id
            if key in there:
                grown.append({"of": series_id, "instance_count": count, "expected": expected})
            else:
                made.append(
                    _new_series(series_id, key[0], own_headers[0], count, expected, self.at)
                )
        if made:
            self.connection.execute(_NEW_SERIES, made)
        if grown:
            self.connection.execute(_GROW_SERIES, grown)
        return ids

    # ---- everything else

    def _duplicate(self, item: Prepared, study_id: str) -> Accepted:
        self._counts["intake_duplicates"] += 1
        return _answer(item, State.DUPLICATE, study_id)

    def _set_aside(self, item: Prepared, study_id: str | None) -> Accepted:
        """Into quarantine; `study_id`: the study that holds other content under this UID."""
        if study_id is not None:
            item.reason = "OTHER_BYTES"
        self._counts["intake_quarantined"] += 1
        before = quarantine.find(self.session, item.uid, item.sha256)
        if before is not None:
            quarantine.came_again(self.session, before.id)
            item.unwanted = True
            return _answer(item, State.QUARANTINED, study_id)
        self.placed.append(item.file)
        row = {
            "id": item.file.id,
            "study_id": study_id,
            "reason": item.reason,
            "detail": item.detail[:500],
            "sop_instance_uid": item.uid,
            "sha256": item.sha256,
            "size": item.file.size,
            "path": self.files.set_aside(item.file),
            "route": item.source.route,
            "sender": item.source.sender,
            "received_at": self.at,
        }
        self.session.execute(insert(Quarantined), [row])
        return _answer(item, State.QUARANTINED, study_id)


def _new_study(
    header: Header, background: bool, at: datetime, deadline: timedelta
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "study_instance_uid": header.study_instance_uid,
        "patient_id": header.patient_id,
        "patient_name": header.patient_name,
        "patient_birth_date": header.patient_birth_date,
        "patient_sex": header.patient_sex,
        "patient_age": header.patient_age,
        "accession_number": header.accession_number,
        "study_description": header.study_description,
        "study_date": header.study_date,
        "background": background,
        "received_at": at,
        "last_instance_at": at,
        "deadline_at": None if background else at + deadline,
    }


def _new_series(
    series_id: str, study_id: str, header: Header, count: int, expected: int | None, at: datetime
) -> dict[str, Any]:
    return {
        "id": series_id,
        "study_id": study_id,
        "series_instance_uid": header.series_instance_uid,
        "modality": header.modality,
        "series_number": header.series_number,
        "series_description": header.series_description,
        "body_part": header.body_part,
        "instance_count": count,
        "expected_instances": expected,
        "received_at": at,
    }


def _header(item: Prepared) -> Header:
    if item.header is None:
        raise ValueError("Expected an item with a header")
    return item.header


def _answer(item: Prepared, state: State, study_id: str | None) -> Accepted:
    header = item.header
    return Accepted(
        state=state,
        study_id=study_id,
        sop_instance_uid=header.sop_instance_uid if header else "",
        sop_class_uid=header.sop_class_uid if header else "",
        study_instance_uid=header.study_instance_uid if header else "",
        series_instance_uid=header.series_instance_uid if header else "",
        reason=item.reason,
        detail=item.detail,
    )


def _larger(one: int | None, other: int | None) -> int | None:
    return max(one or 0, other or 0) or None

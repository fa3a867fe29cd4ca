"""Studies fetched from a PACS: found first, then taken as if they had been sent.

Two ways: DICOMweb (QIDO-RS and WADO-RS, PS3.18) and DIMSE (C-FIND and C-MOVE to our own receiver,
PS3.4 annex C). Both are off until `TRIAGE_PACS_WEB` or `TRIAGE_PACS` names a PACS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from triage.service.images.files import StorageError
from triage.service.intake.accept import Accepted, Claim, NotStoredError, Source, State
from triage.service.intake.archive import Upload
from triage.service.intake.charset import clean
from triage.service.intake.multipart import MultipartError, Parts, boundary_of
from triage.service.intake.service import Intake
from triage.service.records import studies

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"

# What may be asked for and is shown: keyword -> tag (PS3.4 Table C.6-5).
MATCHED: dict[str, str] = {
    "PatientID": "00100020",
    "PatientName": "00100010",
    "AccessionNumber": "00080050",
    "StudyDate": "00080020",
    "StudyInstanceUID": "0020000D",
    "ModalitiesInStudy": "00080061",
}
_SHOWN = {**MATCHED, "StudyDescription": "00081030", "NumberOfStudyRelatedInstances": "00201208"}
_UID = re.compile(r"[0-9.]{1,64}")
_LIMIT = 200  # studies that are listed


class PullError(RuntimeError):
    """The PACS cannot be reached, refuses, or answers nonsense; try again later."""


@dataclass(frozen=True, slots=True)
class Found:
    """A study that a PACS has; text is clean."""

    study_instance_uid: str
    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_description: str = ""
    modalities: str = ""
    instances: int | None = None


class Pacs(Protocol):
    """A PACS that can be asked."""

    def find(self, match: Mapping[str, str]) -> list[Found]:
        """Studies that fit `match` (keys of `MATCHED`). Raises PullError."""

    def fetch(self, study_instance_uid: str) -> Upload:
        """Take one study; it is complete then. Raises PullError, NotStoredError."""


def pacs(intake: Intake) -> Pacs | None:
    """The PACS of the settings, DICOMweb first; None if there is none."""
    settings = intake.settings
    if settings.pacs_web:
        return WebPacs(intake, settings.pacs_web)
    return DimsePacs(intake, settings.pacs) if settings.pacs else None


class WebPacs:
    """DICOMweb at `url`, such as http://host:8042/dicom-web."""

    def __init__(self, intake: Intake, url: str) -> None:
        self.intake = intake
        self.url = url.rstrip("/")

    def find(self, match: Mapping[str, str]) -> list[Found]:
        asked = {"includefield": ",".join(_SHOWN.values()), "limit": str(_LIMIT), **_checked(match)}
        with self._client() as client:
            answer = client.get(
                f"{self.url}/studies", params=asked, headers={"Accept": "application/dicom+json"}
            )
            if answer.status_code == 204:
                return []
            answer.raise_for_status()
            rows = answer.json()
        if not isinstance(rows, list):
            raise PullError("the PACS answers no list")
        return [_from_json(row) for row in rows[:_LIMIT] if isinstance(row, dict)]

    def fetch(self, study_instance_uid: str) -> Upload:
        uid = _checked_uid(study_instance_uid)
        expected = _announced(self.find({"StudyInstanceUID": uid}))
        upload = Upload()
        whole = False
        try:
            with (
                self._client() as client,
                client.stream(
                    "GET",
                    f"{self.url}/studies/{uid}",
                    headers={"Accept": 'multipart/related; type="application/dicom"'},
                ) as answer,
            ):
                answer.raise_for_status()
                self._take(answer, uid, upload)
            whole = True
        finally:
            _close(self.intake, upload, whole, expected)
        return upload

    def _take(self, answer: httpx.Response, uid: str, upload: Upload) -> None:
        boundary = boundary_of(answer.headers.get("content-type", ""))
        if boundary is None:
            raise PullError("the PACS answers no DICOM")
        parts = Parts(boundary, self.intake.files, self.intake.settings.max_bytes)
        source = Source("pull", self.url, transfer=True)
        try:
            for chunk in answer.iter_bytes(1 << 20):
                parts.feed(chunk)
                while parts.done:
                    file = parts.done.pop(0)
                    if file is None:
                        upload.add(Accepted(State.QUARANTINED, reason="TOO_LARGE"))
                        continue
                    claim = Claim(study_instance_uid=uid)
                    upload.add(self.intake.acceptor.accept(file, source, claim))
            parts.end()
        except MultipartError as error:
            raise PullError(f"the PACS sends no whole answer: {error}") from error
        except StorageError as error:
            raise NotStoredError(str(error), error.full) from error
        finally:
            parts.discard()

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        timeout = self.intake.settings.dicom_timeout_s
        try:
            # No proxy and no credentials from the environment: only what was configured is reached.
            with httpx.Client(timeout=timeout, trust_env=False) as client:
                yield client
        except httpx.HTTPStatusError as error:
            raise PullError(f"the PACS answers {error.response.status_code}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise PullError(f"the PACS cannot be used: {type(error).__name__}") from error


class DimsePacs:
    """C-FIND and C-MOVE at `address`, AE@host:port; images come to our receiver by C-STORE."""

    def __init__(self, intake: Intake, address: str) -> None:
        self.intake = intake
        self.title, self.host, self.port = parse_address(address)

    def find(self, match: Mapping[str, str]) -> list[Found]:
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        for keyword in _SHOWN:
            setattr(query, keyword, "")
        for keyword, value in _checked(match).items():
            setattr(query, keyword, value)
        model = STUDY_ROOT_FIND
        found: list[Found] = []
        with self._association(model) as association:
            for status, row in association.send_c_find(query, model):
                _check(status)
                if row is not None and len(found) < _LIMIT:
                    found.append(_from_dataset(row))
        return found

    def fetch(self, study_instance_uid: str) -> Upload:
        uid = _checked_uid(study_instance_uid)
        expected = _announced(self.find({"StudyInstanceUID": uid}))
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", uid
        model = STUDY_ROOT_MOVE
        failed, whole = 0, False
        upload = Upload()
        try:
            with self._association(model) as association:
                title = self.intake.settings.ae_title
                for status, _ in association.send_c_move(query, title, model):
                    _check(status)
                    failed = int(status.get("NumberOfFailedSuboperations", 0) or 0)
                    done = int(status.get("NumberOfCompletedSuboperations", 0) or 0)
                    upload.counts[State.STORED] = done
            whole = not failed
        finally:
            with self.intake.database.reading() as session:
                study = studies.by_uid(session, uid)
            if study is not None:
                upload.studies.append(study.id)
            _close(self.intake, upload, whole, expected)
        return upload

    @contextmanager
    def _association(self, model: Any) -> Iterator[Association]:
        settings = self.intake.settings
        entity = AE(ae_title=settings.ae_title)
        entity.acse_timeout = entity.dimse_timeout = settings.dicom_timeout_s
        entity.connection_timeout = entity.network_timeout = settings.dicom_timeout_s
        entity.add_requested_context(model)
        association = entity.associate(self.host, self.port, ae_title=self.title)
        if not association.is_established:
            raise PullError(f"no association with {self.title} at {self.host}:{self.port}")
        try:
            yield association
        finally:
            if association.is_established:
                association.release()


def parse_address(text: str) -> tuple[str, str, int]:
    """(AE title, host, port) of AE@host:port. Raises PullError."""
    found = re.fullmatch(r"([^@\\]{1,16})@([^@\s]+):(\d{1,5})", text.strip())
    if not found or not 0 < int(found[3]) < 65536:
        raise PullError(f"Expected AE@host:port, got {text!r}")
    return found[1], found[2].strip("[]"), int(found[3])


def _announced(found: list[Found]) -> int | None:
    """How many images the PACS says the study has. Raises PullError if it has no such study."""
    if not found:
        raise PullError("the PACS has no such study")
    return found[0].instances


def _close(intake: Intake, upload: Upload, whole: bool, expected: int | None) -> None:
    """What came is complete; where something is missing, its study says so."""
    if upload.studies:
        if expected is not None:
            with intake.database.session() as session:
                study = studies.get(session, upload.studies[0])
                if study is not None and sum(upload.counts.values()) >= expected:
                    # all came; what counts no image here is a result of ours
                    expected = min(expected, study.instance_count)
                studies.expect(session, upload.studies[0], expected)
        intake.completeness.transfer_ended(upload.studies, not whole or upload.lacking)
        intake.completeness.complete(upload.studies)


def _check(status: Dataset) -> None:
    """Raises PullError unless the status is success or pending (PS3.4 C.4.1.1.4, C.4.2.1.5)."""
    if "Status" not in status:
        raise PullError("the PACS broke off")
    if status.Status not in (0x0000, 0xFF00, 0xFF01, 0xB000):
        raise PullError(f"the PACS answers status 0x{status.Status:04X}")


def _checked(match: Mapping[str, str]) -> dict[str, str]:
    unknown = set(match) - set(MATCHED)
    if unknown:
        raise PullError(f"Expected {', '.join(MATCHED)}, got {', '.join(sorted(unknown))}")
    return {keyword: clean(value)[:64] for keyword, value in match.items() if value}


def _checked_uid(uid: str) -> str:
    if not _UID.fullmatch(uid):
        raise PullError("Expected a StudyInstanceUID")
    return uid


def _from_json(row: dict[str, Any]) -> Found:
    """One study of a QIDO-RS answer (DICOM JSON model, PS3.18 annex F)."""

    def text(keyword: str) -> str:
        values = (row.get(_SHOWN[keyword]) or {}).get("Value") or []
        plain = [v.get("Alphabetic", "") if isinstance(v, dict) else v for v in values]
        return clean("\\".join(str(v) for v in plain))

    return _found(text)


def _from_dataset(row: Dataset) -> Found:
    def text(keyword: str) -> str:
        value = row.get(keyword, "")
        plain = value if isinstance(value, str | int) else "\\".join(map(str, value or []))
        return clean(str(plain))

    return _found(text)


def _found(text: Any) -> Found:
    number = text("NumberOfStudyRelatedInstances")
    return Found(
        study_instance_uid=text("StudyInstanceUID"),
        patient_id=text("PatientID"),
        patient_name=text("PatientName"),
        accession_number=text("AccessionNumber"),
        study_date=text("StudyDate"),
        study_description=text("StudyDescription"),
        modalities=text("ModalitiesInStudy"),
        instances=int(number) if number.isdigit() else None,
    )

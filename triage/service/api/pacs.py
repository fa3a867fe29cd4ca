"""/api/v1/pacs: find studies in a PACS and fetch them, where one is configured."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from triage.service import errors
from triage.service.access.masking import Masked, masked
from triage.service.access.principal import Who
from triage.service.api.common import Running, answers
from triage.service.api.models import UID, PacsStudies, Uploaded
from triage.service.api.upload import taken_studies
from triage.service.intake.pull import Pacs, PullError, pacs

router = APIRouter(prefix="/api/v1/pacs/studies", tags=["PACS"])
Match = Annotated[str, Query(max_length=64)]


@router.get("", responses=answers(409, 502))
def find_in_pacs(
    service: Running,
    mask: Masked,
    patient_id: Match = "",
    patient_name: Match = "",
    accession_number: Match = "",
    study_date: Annotated[str, Query(max_length=17, examples=["20261121"])] = "",
    study_instance_uid: Match = "",
) -> PacsStudies:
    """Studies that the PACS has, by QIDO-RS or C-FIND; at least one filter must be given."""
    match = {
        "PatientID": patient_id,
        "PatientName": patient_name,
        "AccessionNumber": accession_number,
        "StudyDate": study_date,
        "StudyInstanceUID": study_instance_uid,
    }
    asked = {keyword: value for keyword, value in match.items() if value}
    peer = _peer(service)
    if not asked:
        raise errors.bad_request("No filter was given.", "Ask for a patient, accession or date.")
    try:
        found = peer.find(asked)
    except PullError as error:
        raise _unreachable(error) from error
    every = [masked(asdict(study), mask) for study in found]
    return PacsStudies.model_validate({"studies": every})


@router.post("/{study_instance_uid}", responses=answers(409, 502, 507))
def fetch_from_pacs(
    service: Running,
    who: Who,
    study_instance_uid: Annotated[str, Path(max_length=64, pattern=r"^[0-9.]+$", examples=[UID])],
) -> Uploaded:
    """Fetch one study by WADO-RS or C-MOVE and analyse it; answers when all images are stored."""
    try:
        upload = _peer(service).fetch(study_instance_uid)
    except PullError as error:
        raise _unreachable(error) from error
    return Uploaded.model_validate(taken_studies(service, upload, who))


def _peer(service: Any) -> Pacs:
    try:
        found = pacs(service.intake)
    except PullError as error:
        raise errors.conflict(str(error), "Correct TRIAGE_PACS.") from error
    if found is None:
        raise errors.conflict(
            "No PACS is configured.", "Set TRIAGE_PACS_WEB or TRIAGE_PACS and start again."
        )
    return found


def _unreachable(error: PullError) -> errors.ApiError:
    return errors.ApiError(
        502, "PACS_FAILED", f"The PACS did not answer as expected: {error}", "Try again later."
    )

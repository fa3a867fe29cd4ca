"""What the routes share: the running service, a study by its key, documented errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Path, Request
from sqlalchemy.orm import Session

from triage.service import errors
from triage.service.api.models import UID, ErrorBody
from triage.service.records import studies
from triage.service.records.models import Study

if TYPE_CHECKING:
    from triage.service.service import Service

Key = Annotated[
    str,
    Path(
        description="StudyInstanceUID or our id; compared in the database, never made into a path.",
        max_length=128,
        examples=[UID],
    ),
]


def get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


# Any: pydantic would try to read the class; mypy checks the routes through `get_service`.
Running = Annotated[Any, Depends(get_service)]


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """These errors, all in the one shape, for the OpenAPI document; 503 can always happen."""
    return {code: {"model": ErrorBody} for code in sorted({*codes, 422, 503})}


def find_study(session: Session, key: str) -> Study:
    """Raises ApiError 404."""
    # PostgreSQL refuses NUL in a text; no id and no UID holds one
    study = None if "\x00" in key else studies.find(session, key)
    if study is None:
        raise errors.not_found("study")
    return study

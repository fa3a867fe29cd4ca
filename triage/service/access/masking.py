"""Patient fields, hidden on request: by `?mask=true`, for a session, or for everybody
(TRIAGE_MASK_PATIENTS). Nothing lifts a mask that a wider rule put on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Query

from triage.service.access.principal import Who

HIDDEN = "***"
# What identifies a patient, under every name that answers and pages give it.
FIELDS = frozenset(
    {
        "patient_id",
        "patient_name",
        "patient_birth_date",
        "patient_sex",
        "patient_age",
        "accession_number",
        "patient",
        "birth_date",
        "referring_physician",
    }
)


def is_masked(
    who: Who,
    mask: Annotated[bool, Query(description="Hide what identifies the patient.")] = False,
) -> bool:
    return mask or who.mask


Masked = Annotated[bool, Depends(is_masked)]


def masked(answer: Any, mask: bool = True) -> Any:
    """`answer` with every field of `FIELDS` hidden, at any depth; empty ones stay empty."""
    if not mask:
        return answer
    if isinstance(answer, Mapping):
        return {k: _one(k, v) for k, v in answer.items()}
    if isinstance(answer, list | tuple):
        return [masked(v) for v in answer]
    return answer


def _one(name: Any, value: Any) -> Any:
    if name in FIELDS and not isinstance(value, Mapping | list | tuple):
        return HIDDEN if value else value
    return masked(value)

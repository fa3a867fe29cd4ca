"""Key Object Selection: the slices, captures and report that a reader should open first."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset

from triage.results.dicom import codes
from triage.results.dicom.common import Analysis, coded, finished, in_series
from triage.results.dicom.source import Source
from triage.types import DISCLAIMER


def key_objects(
    source: Source, analysis: Analysis, objects: Sequence[Dataset], what: str
) -> Dataset:
    """Selects `objects` (headers suffice) of one study. `what`: why, in words."""
    document = KeyObjectSelectionDocument(
        evidence=list(objects),
        content=KeyObjectSelection(
            document_title=coded(codes.OF_INTEREST),
            referenced_objects=list(objects),
            description=f"{what} {DISCLAIMER}.",
        ),
        **in_series(analysis, "ko"),
    )
    document.copy_patient_and_study_information(source.any_header)
    return finished(document, analysis)

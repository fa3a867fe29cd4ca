"""One report with all its objects, for the tests that look at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.results.dicom import folders
from triage.results.dicom.build import write_objects
from triage.settings import Settings


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> folders.Case:
    case = folders.case(tmp_path_factory.mktemp("built"), "oblique")
    write_objects(case.folder, case.images, Settings())
    return case


@pytest.fixture(scope="session")
def objects(built: folders.Case) -> list[Path]:
    return sorted((built.folder / "dicom").glob("*.dcm"))

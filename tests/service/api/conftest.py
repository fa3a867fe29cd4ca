"""One running service for the tests of the API: real intake, queue and child, quick analysis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from quick_pipeline import LOAD

from triage.service.service import Service
from triage.settings import Settings


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("api") / "home"
    settings = Settings(home=home, dicom_port=0, series_quiet_s=0.3, max_bytes=2_000_000)
    service = Service(settings, load=LOAD)
    service.start()
    yield service
    service.stop()

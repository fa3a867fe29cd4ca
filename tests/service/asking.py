"""Help for tests that ask the API."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Mapping
from itertools import count
from typing import Any

from fastapi.testclient import TestClient
from instances import ct, study_uid

BASE = "http://127.0.0.1"
ZIP = {"content-type": "application/zip"}
_numbers = count(1000)


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


NO_DICOM = zip_of({"letter.txt": b"no image in here"})


def study_zip(number: int, slices: int = 3, comment: str = "no_finding", first: int = 1) -> bytes:
    """A study as zip; `comment` tells the quick analysis what to do."""
    numbers = range(first, first + slices)
    files = {f"{k}.dcm": ct(number, number=k, PatientComments=comment) for k in numbers}
    return zip_of(files)


def send(client: TestClient, comment: str = "no_finding", slices: int = 3) -> str:
    """Upload a new study; returns its StudyInstanceUID."""
    number = next(_numbers)
    data = study_zip(number, slices, comment)
    answer = client.post("/api/v1/studies", content=data, headers=ZIP)
    assert answer.status_code == 202, answer.text
    return study_uid(number)


def finished(client: TestClient, study: str, version: int = 1, seconds: float = 60) -> Any:
    """The study once this version of its analysis ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = client.get(f"/api/v1/studies/{study}").json()
        if answer["finished_at"] is not None and (answer["version"] or 0) >= version:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not finished after {seconds} s: {answer}")

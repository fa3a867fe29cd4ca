"""Help for the tests of the service."""

from __future__ import annotations

import io
import time
import zipfile
from typing import Any

from fastapi.testclient import TestClient


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


NO_DICOM = zip_of({"letter.txt": b"no image in here"})


def finished(client: TestClient, study: str, seconds: float = 240) -> dict[str, Any]:
    """The study once its analysis ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer: dict[str, Any] = client.get(f"/api/v1/studies/{study}").json()
        if answer["finished_at"] is not None:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not finished after {seconds} s: {answer}")

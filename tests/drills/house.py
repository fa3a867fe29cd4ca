"""A service in this process for drills: the real one, with the analysis of `quick_pipeline`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from instances import ct, sop_uid, study_uid
from quick_pipeline import LOAD

from tests.e2e.service.running import until
from tests.fuzz.associations import Peer, data_set_of, store
from triage.service.app import create_app
from triage.service.records import studies
from triage.service.service import Service
from triage.settings import Settings

SLICES = 12
NEGATIVE = ("no_finding", "not_excluded")


class House:
    """The service, a client of its API, and a scanner."""

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service, self.client = service, client

    def study(self, number: int) -> dict[str, Any] | None:
        answer = self.client.get(f"/api/v1/studies/{study_uid(number)}")
        return answer.json() if answer.status_code == 200 else None

    def finished(self, number: int, instances: int = SLICES, seconds: float = 90) -> dict[str, Any]:
        """The study once all these images have a verdict."""

        def look() -> dict[str, Any] | None:
            found = self.study(number)
            whole = found is not None and found["instances"] == instances and found["finished_at"]
            return found if whole else None

        done: dict[str, Any] = until(look, seconds, f"study {number} has no verdict")
        return done

    def send(self, number: int, slices: list[int], verdict: str = "suspected") -> list[int | None]:
        """Slices over one association; the status of each."""
        peer = Peer(self.service.intake.receiver.port)
        if not peer.associate():
            peer.close(release=False)
            return [None] * len(slices)
        found = []
        for at, k in enumerate(slices, start=1):
            peer.socket.sendall(message(number, k, verdict, at))
            found.append(peer.status())
        peer.close()
        return found

    def stored(self, number: int) -> set[str]:
        """SOPInstanceUIDs of the study that have a row and a file."""
        with self.service.records.reading() as session:
            study = studies.by_uid(session, study_uid(number))
            rows = studies.instances(session, study.id) if study else []
            return {r.sop_instance_uid for r in rows if self.service.files.path(r).is_file()}


def message(number: int, k: int, verdict: str = "suspected", at: int = 1) -> bytes:
    """The C-STORE of slice `k` of study `number`."""
    file = ct(number, 1, k, PatientComments=verdict)
    return store(data_set_of(file), sop_uid(number, 1, k), at)


@contextmanager
def house(home: Path, load: str = LOAD, **settings: Any) -> Iterator[House]:
    """A running service; `load`: what analyses."""
    values = {"dicom_port": 0, "series_quiet_s": 0.5, "threads": 1, "prewarm": False, **settings}
    service = Service(Settings(home=home, **values), load=load)
    service.start()
    try:
        app = create_app(service.settings, service)
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        yield House(service, client)
    finally:
        service.stop()

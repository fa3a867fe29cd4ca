"""Help for the tests of the workflow: a home with studies, and a wait with a deadline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triage.service.images.files import Files
from triage.service.records import Database, analyses, studies
from triage.service.records.models import Analysis, Instance, Series, Study, new_id
from triage.service.workflow.order import Rank
from triage.service.workflow.workflow import Timing, Workflow, id_of
from triage.settings import Settings
from triage.types import Status

STAND_IN = "stand_in:load"
SECONDS = 60.0
QUICK = Timing(poll_s=0.05, feed_s=0.1, pulse_s=0.1, dead_s=1.0, check_s=0.2, sweep_s=0.3)


def until(true: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Wait until `true()`; returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def queued(workflow: Workflow, study_ids: list[str]) -> bool:
    """Whether the first images of all these studies stand on the queue."""
    return all(workflow.queue.status(id_of(study, 1, 0)) == "ENQUEUED" for study in study_ids)


def advanced(workflow: Workflow, study_id: str) -> bool:
    """Whether the study stands there as STAT."""
    return workflow._put.get(id_of(study_id, 1, 0)) is Rank.STAT


def drill_settings(home: Path, url: str | None = None, **more: Any) -> Settings:
    values = {"prewarm": False, "analysis_timeout_s": 180.0, "stop_grace_s": 0.2, **more}
    return Settings(home=home, database_url=url, **values)


class Clinic:
    """Studies in the records and in the images folder of one home."""

    def __init__(self, home: Path, url: str | None = None) -> None:
        self.settings = drill_settings(home, url)
        self.files = Files(home)
        self.database = Database.at_home(home, url)
        self.database.upgrade()
        self.log = home / "starts.log"
        self.log.touch()

    def admit(
        self,
        name: str,
        *,
        ready: bool = True,
        background: bool = False,
        stat: bool = False,
        **orders: Any,
    ) -> str:
        """A study with one image that tells the stand-in what to do; returns its id."""
        with self.database.session() as session:
            study = Study(
                id=new_id(),
                study_instance_uid=name,
                background=background,
                order_priority="stat" if stat else "routine",
            )
            session.add(study)
            session.flush()
            session.add(Series(id=new_id(), study_id=study.id, series_instance_uid=f"{name}.1"))
        self.send(study.id, {"name": name, "log": str(self.log), **orders}, ready=ready)
        return study.id

    def send(self, study_id: str, orders: dict[str, Any], *, ready: bool = True) -> int:
        """One more image; a study that was complete gets a new images version."""
        with self.database.session() as session:
            study = session.get_one(Study, study_id)
            if study.ready_version == study.images_version:
                study.images_version += 1
                study.status = Status.RECEIVED
            (series,) = study.series
            path = self.files.study_folder(study_id) / f"{new_id()}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(orders))
            session.add(
                Instance(
                    id=new_id(),
                    study_id=study_id,
                    series_id=series.id,
                    sop_instance_uid=new_id(),
                    sha256=new_id(),
                    size=1,
                    path=str(path.relative_to(self.files.root)),
                    images_version=study.images_version,
                )
            )
            study.instance_count += 1
            if ready:
                study.ready_version = study.images_version
            return study.images_version

    def study(self, study_id: str) -> Study:
        with self.database.reading() as session:
            return session.get_one(Study, study_id)

    def status(self, study_id: str) -> str:
        return Status(self.study(study_id).status).value

    def finished(self, study_id: str, seconds: float = SECONDS) -> Analysis:
        """The current analysis of the newest images version, once there is one."""

        def there() -> Analysis | None:
            with self.database.reading() as session:
                study = session.get_one(Study, study_id)
                found = analyses.current(session, study_id)
            new = found is not None and found.images_version == study.images_version
            return found if new and study.status in studies.FINISHED else None

        found: Analysis = until(there, f"study {study_id} is finished", seconds)
        return found

    def versions(self, study_id: str) -> list[Analysis]:
        with self.database.reading() as session:
            return analyses.of_study(session, study_id)

    def starts(self, name: str | None = None) -> int:
        lines = self.log.read_text().splitlines()
        return len(lines) if name is None else lines.count(name)

    def verdicts(self, analysis: Analysis) -> set[str]:
        return {t["verdict"] for t in (analysis.report or {}).get("targets", {}).values()}

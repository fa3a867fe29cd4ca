"""Children that die, studies that are cut short, deleted or asked for again."""

from __future__ import annotations

import os
import signal

import pytest
from clinic import Clinic, queued, until

from triage.service.records import analyses, studies
from triage.service.records import queue as waiting
from triage.service.workflow import steps
from triage.service.workflow.steps import Interrupted
from triage.service.workflow.workflow import Workflow, id_of


def test_a_study_that_is_still_received_waits(clinic: Clinic, workflow: Workflow) -> None:
    early, whole = clinic.admit("2.1", ready=False), clinic.admit("2.2")
    clinic.finished(whole)
    assert clinic.status(early) == "received"
    assert clinic.versions(early) == []


def test_a_dead_child_costs_one_retry(clinic: Clinic, workflow: Workflow) -> None:
    once = clinic.admit("3.1", once="crash")
    always = clinic.admit("3.2", always="crash")
    after = clinic.admit("3.3")
    assert clinic.finished(once).status == "analysed"
    assert clinic.starts("3.1") == 2
    failed = clinic.finished(always)
    assert (failed.status, failed.reason, failed.priority) == (
        "not_analysed",
        "WORKER_FAILED",
        "urgent",
    )
    assert clinic.starts("3.2") == 2
    assert clinic.finished(after).status == "analysed"


def test_a_child_that_is_killed_costs_one_retry(clinic: Clinic, workflow: Workflow) -> None:
    gate = clinic.settings.home / "gate-4"
    study = clinic.admit("4.1", wait_for=str(gate))
    until(lambda: clinic.starts("4.1") == 1, "the analysis has begun")
    os.kill(workflow.child_pids()[0], signal.SIGKILL)
    until(lambda: clinic.starts("4.1") == 2, "the second try has begun")
    gate.touch()
    assert clinic.finished(study).status == "analysed"
    assert len(clinic.versions(study)) == 1


@pytest.mark.parametrize(
    ("verdict", "shown", "priority"),
    [
        ("suspected", "suspected", "stat"),
        ("no_finding", "not_assessed", "urgent"),
        ("not_excluded", "not_assessed", "urgent"),
    ],
)
def test_of_a_broken_off_study_only_a_suspicion_is_told(
    clinic: Clinic, workflow: Workflow, verdict: str, shown: str, priority: str
) -> None:
    study = clinic.admit(f"7.{verdict}", ready=False, verdict=verdict)
    with clinic.database.session() as session:
        studies.end_transfer(session, [study], lacking=True)
        studies.declare_ready(session, study, 1)
    analysis = clinic.finished(study)
    assert clinic.verdicts(analysis) == {shown}
    assert analysis.priority == priority


def test_again_makes_a_new_version_and_the_old_one_stays_until_then(
    clinic: Clinic, workflow: Workflow
) -> None:
    study = clinic.admit("9.1", verdict="suspected")
    first = clinic.finished(study)
    gate = clinic.settings.home / "gate-9"
    busy = clinic.admit("9.2", wait_for=str(gate))
    until(lambda: clinic.starts("9.2") == 1, "the worker is busy")
    assert workflow.again(study)
    with clinic.database.reading() as session:
        current = analyses.current(session, study)
    assert current is not None
    assert current.id == first.id
    gate.touch()
    clinic.finished(busy)
    until(lambda: len(clinic.versions(study)) == 2, "the second analysis")
    second = clinic.finished(study)
    assert second.version == 2
    assert not workflow.again("0" * 32)


def test_a_failed_second_analysis_takes_no_answer_away(clinic: Clinic, workflow: Workflow) -> None:
    study = clinic.admit("15.1", verdict="suspected")
    first = clinic.finished(study)
    (image,) = clinic.files.study_folder(study).iterdir()
    image.write_text(image.read_text().replace('"suspected"', '"suspected", "always": "error"'))
    assert workflow.again(study)
    until(lambda: len(clinic.versions(study)) == 2, "the second analysis")
    until(lambda: clinic.versions(study)[1].finished_at, "it has failed")
    assert clinic.finished(study).id == first.id
    assert (clinic.status(study), clinic.study(study).priority) == ("analysed", "stat")
    # of newer images nothing is known: not analysed, and the suspicion still stands at the top
    clinic.send(study, {})
    failed = clinic.finished(study)
    assert (failed.images_version, failed.reason) == (2, "WORKER_FAILED")
    assert (clinic.status(study), clinic.study(study).priority) == ("not_analysed", "stat")


def test_of_an_answer_that_images_followed_only_a_suspicion_stays(
    clinic: Clinic, workflow: Workflow
) -> None:
    for verdict, shown, priority in (
        ("no_finding", "not_assessed", "urgent"),
        ("suspected", "suspected", "stat"),
    ):
        study = clinic.admit(f"16.{verdict}", verdict=verdict)
        clinic.finished(study)
        with clinic.database.session() as session:
            analyses.reopened(session, study)
        with clinic.database.reading() as session:
            current = analyses.current(session, study)
            assert current is not None
            findings = analyses.findings(session, [current.id])[current.id]
        assert {f.verdict for f in findings} == {shown} == clinic.verdicts(current)
        assert clinic.study(study).priority == priority


def test_a_lost_image_is_a_failure_never_a_smaller_study(
    clinic: Clinic, workflow: Workflow
) -> None:
    study = clinic.admit("10.1", ready=False)
    clinic.send(study, {}, ready=False)
    next(clinic.files.study_folder(study).iterdir()).unlink()
    with clinic.database.session() as session:
        studies.declare_ready(session, study, 1)
    analysis = clinic.finished(study)
    assert analysis.reason == "WORKER_FAILED"
    assert "not in the store" in analysis.report["reason"]["message"]


def test_a_deleted_study_stops_nothing(clinic: Clinic, workflow: Workflow) -> None:
    gate = clinic.settings.home / "gate-11"
    gone = clinic.admit("11.1", wait_for=str(gate))
    until(lambda: clinic.starts("11.1") == 1, "it runs")
    with clinic.database.session() as session:
        assert studies.delete(session, gone)
    assert clinic.finished(clinic.admit("11.2")).status == "analysed"


def test_a_workflow_that_came_to_nothing_is_begun_anew(clinic: Clinic, workflow: Workflow) -> None:
    gate = clinic.settings.home / "gate-12"
    busy = clinic.admit("12.0", wait_for=str(gate))
    until(lambda: clinic.starts("12.0") == 1, "the worker is busy")
    study = clinic.admit("12.1")
    until(lambda: queued(workflow, [study]), "it waits")
    from dbos import DBOS

    DBOS.cancel_workflow(id_of(study, 1, 0))  # as a fault of the queue would
    gate.touch()
    clinic.finished(busy)
    assert clinic.finished(study).status == "analysed"
    assert clinic.starts("12.1") == 1


def test_an_entry_that_lost_its_thread_is_resumed(
    clinic: Clinic, workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = workflow.steps.claim
    lost: list[str] = []

    def once(study_id: str, images_version: int, round_: int) -> str | None:
        if not lost:
            lost.append(study_id)
            raise Interrupted  # as a thread that ends without a word
        return claim(study_id, images_version, round_)

    monkeypatch.setattr(workflow.steps, "claim", once)
    study = clinic.admit("13.1")
    assert clinic.finished(study).status == "analysed"
    assert lost == [study]


def test_a_study_that_ends_every_worker_is_given_up(
    clinic: Clinic, workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STARTS", 0)
    study = clinic.admit("14.1")
    assert clinic.finished(study).reason == "WORKER_FAILED"
    assert clinic.starts("14.1") == 0


def test_every_study_of_this_file_has_one_current_analysis(clinic: Clinic) -> None:
    with clinic.database.reading() as session:
        rows = studies.newest(session, studies.Query(background=None, limit=500))
        for row in rows:
            own = analyses.of_study(session, row.id)
            assert len([a for a in own if a.current]) == (1 if row.ready_version else 0)
            assert all(a.finished_at for a in own)
        assert waiting.count_waiting(session, False, False) == 0

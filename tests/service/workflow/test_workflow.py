"""A complete study gets exactly one verdict, in the right order; on both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clinic import Clinic, advanced, queued, until

from triage.service.records import analyses, studies
from triage.service.workflow.workflow import Workflow

pytestmark = pytest.mark.parametrize("clinic", ["sqlite", "postgresql"], indirect=True)


def test_a_complete_study_is_analysed_once(clinic: Clinic, workflow: Workflow) -> None:
    study = clinic.admit("1.1", verdict="suspected")
    workflow.on_ready(study, 1)
    analysis = clinic.finished(study)
    assert (analysis.status, analysis.current, analysis.priority) == ("analysed", True, "stat")
    assert analysis.attempts == 1
    row = clinic.study(study)
    assert row.status == "analysed"
    assert row.flagged_at == analysis.finished_at
    with clinic.database.reading() as session:
        findings = analyses.findings(session, [analysis.id])[analysis.id]
    assert {f.target for f in findings if f.flagged} == set(analysis.report["targets"])
    folder = Path(analysis.folder)
    assert json.loads((folder / "report.json").read_text()) == analysis.report
    assert (folder / "overlays" / "liver.png").exists()
    assert clinic.starts("1.1") == 1


def test_stat_then_live_then_cohort(clinic: Clinic, workflow: Workflow) -> None:
    gate = clinic.settings.home / "gate-5"
    first = clinic.admit("5.0", wait_for=str(gate))
    until(lambda: clinic.starts("5.0") == 1, "the worker is busy")
    cohort = [clinic.admit(f"5.c{i}", background=True) for i in range(3)]
    live = [clinic.admit(f"5.l{i}") for i in range(2)]
    late = clinic.admit("5.was-live")
    until(lambda: queued(workflow, [*cohort[:2], *live, late]), "all stand on the queue")
    with clinic.database.session() as session:  # the order becomes STAT while it waits
        studies.set_order_priority(session, late, "stat")
    stat = clinic.admit("5.s", stat=True)
    until(lambda: queued(workflow, [stat]) and advanced(workflow, late), "STAT is queued")
    gate.touch()
    for study in (first, *cohort, *live, stat, late):
        clinic.finished(study)
    order = [line for line in clinic.log.read_text().splitlines() if line.startswith("5.")]
    assert set(order[1:3]) == {"5.s", "5.was-live"}
    assert order[3:5] == ["5.l0", "5.l1"]
    assert order[5:] == ["5.c0", "5.c1", "5.c2"]


def test_images_that_come_meanwhile_make_a_second_analysis(
    clinic: Clinic, workflow: Workflow
) -> None:
    gate = clinic.settings.home / "gate-6"
    study = clinic.admit("6.1", wait_for=str(gate), verdict="no_finding")
    until(lambda: clinic.starts("6.1") == 1, "the analysis has begun")
    clinic.send(study, {"verdict": "suspected"}, ready=False)
    gate.touch()
    until(lambda: [a for a in clinic.versions(study) if a.finished_at], "the first has ended")
    first = clinic.versions(study)[0]
    assert first.current
    assert clinic.verdicts(first) == {"not_assessed"}  # never "no finding"
    assert first.priority == "urgent"
    assert clinic.status(study) == "received"
    with clinic.database.session() as session:
        assert studies.declare_ready(session, study, 2)
    workflow.on_ready(study, 2)
    second = clinic.finished(study)
    assert (second.images_version, clinic.verdicts(second)) == (2, {"suspected"})
    assert [a.current for a in clinic.versions(study)] == [False, True]


def test_cancel(clinic: Clinic, workflow: Workflow) -> None:
    gate = clinic.settings.home / "gate-8"
    running = clinic.admit("8.running", wait_for=str(gate))
    until(lambda: clinic.starts("8.running") == 1, "it runs")
    second = clinic.admit("8.queued")
    until(lambda: queued(workflow, [second]), "the second one waits")
    assert workflow.cancel(second)
    assert clinic.finished(second, 5.0).reason == "CANCELLED"  # at once
    assert workflow.cancel(running)
    stopped = clinic.finished(running)
    assert (stopped.status, stopped.reason, stopped.priority) == (
        "not_analysed",
        "CANCELLED",
        "urgent",
    )
    assert not workflow.cancel("0" * 32)
    gate.touch()
    after = clinic.admit("8.after")
    clinic.finished(after)
    assert clinic.starts("8.queued") == 0  # its entry came to its turn, and was nothing

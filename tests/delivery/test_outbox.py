"""Results reach every destination once, whatever the other side does."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.conftest import SECRET, Ward
from tests.delivery.peers import Pacs, parts_of
from tests.results.dicom.test_objects import words_of
from triage.delivery.outbox import LONGEST_S, pause_s
from triage.delivery.webhook import key_of, verify
from triage.results.hl7 import field, parsed
from triage.service.intake.accept import Source, State


def test_a_result_goes_to_all_destinations_once(ward: Ward, series: Path) -> None:
    study = ward.send(series)
    rows = ward.settled(study, 1)
    assert {r["kind"]: r["state"] for r in rows} == dict.fromkeys(
        ("dicom", "stow", "fhir", "hl7", "hl7_file", "webhook"), "done"
    )
    mine = {
        u: n for u, n in ward.pacs.taken.items() if ward.pacs.objects[u].StudyInstanceUID == study
    }
    assert set(mine.values()) == {1}
    modalities = {ward.pacs.objects[u].Modality for u in mine}
    assert modalities == {"SR", "OT", "SEG", "KO"}

    path, headers, body = ward.stow.posts[-1]
    stored = [pydicom.dcmread(io.BytesIO(p)) for p in parts_of(body, headers["content-type"])]
    assert path == "/studies"
    assert {d.SOPInstanceUID for d in stored} == set(mine)

    (bundle,) = [b for b in ward.fhir.json() if study in str(b)]
    assert bundle["type"] == "transaction"
    (message,) = [m for m in ward.hl7.messages if study in m]
    control = field(parsed(message)[0], 10)
    assert (ward.folder / f"{control}.hl7").read_bytes().decode() == message
    hooks = [(h, b) for _, h, b in ward.hook.posts if study.encode() in b]
    ((hook, said),) = hooks
    assert verify(key_of(SECRET), hook, said, at=float(hook["webhook-timestamp"]))
    assert b"LLER" not in said  # no patient


def test_our_own_results_that_come_back_are_no_images(ward: Ward, series: Path) -> None:
    """A PACS that forwards everything must not make us analyse, send, analyse, send ..."""
    study = ward.send(series)
    ward.settled(study, 1)
    for data in [d for d in ward.pacs.objects.values() if d.StudyInstanceUID == study]:
        buffer = io.BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        taken = ward.service.intake.acceptor.accept(buffer.getvalue(), Source("dimse", "PACS"))
        assert taken.state is State.IGNORED
    found = ward.client.get(f"/api/v1/studies/{study}").json()
    assert (found["instances"], found["version"], found["status"]) == (14, 1, "analysed")


def test_sent_again_by_hand_it_is_the_same_object(ward: Ward, series: Path) -> None:
    study = ward.send(series)
    rows = ward.settled(study, 1)
    before = {u: d for u, d in ward.pacs.objects.items() if d.StudyInstanceUID == study}
    one = next(r for r in rows if r["kind"] == "dicom")
    assert ward.client.post(f"/api/v1/deliveries/{one['id']}/resend").status_code == 202
    ward.settled(study, 1, lambda rows: all(ward.pacs.taken[u] == 2 for u in before))
    after = {u: d for u, d in ward.pacs.objects.items() if d.StudyInstanceUID == study}
    assert after == before
    ward.settled(study, 1)
    assert ward.client.post(f"/api/v1/studies/{study}/deliver").json() == {"resent": len(rows)}
    ward.settled(study, 1)
    controls = {field(parsed(m)[0], 10) for m in ward.hl7.messages if study in m}
    assert len(controls) == 1  # the same message, recognisable as such
    keys = {b["entry"][0]["request"]["url"] for b in ward.fhir.json() if study in str(b)}
    assert len(keys) == 1


def test_a_newer_version_replaces_the_one_before(ward: Ward, series: Path) -> None:
    study = ward.send(series)
    ward.settled(study, 1)
    assert ward.client.post(f"/api/v1/studies/{study}/analyse").status_code == 202
    ward.settled(study, 2)
    reports = [
        d for d in ward.pacs.of("SR") if d.StudyInstanceUID == study and d.InstanceNumber == 1
    ]
    old, new = sorted(reports, key=lambda d: "PredecessorDocumentsSequence" in d)
    named = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    first, second = [parsed(m) for m in ward.hl7.messages if study in m]
    status = [field(next(s for s in m if s[0] == "OBR"), 25) for m in (first, second)]
    assert status == ["P", "C"]
    one, two = [b["entry"][0] for b in ward.fhir.json() if study in str(b)]
    assert one["request"] == two["request"]  # put in the same place
    assert "extension" in two["resource"] and "extension" not in one["resource"]


def test_refused_for_good_it_is_a_dead_letter_until_somebody_sends_it(
    ward: Ward, series: Path
) -> None:
    ward.pacs.status, ward.hl7.code, ward.fhir.status = 0xC000, "AR", 422
    try:
        study = ward.send(series)
        rows = {r["kind"]: r for r in ward.settled(study, 1)}
    finally:
        ward.pacs.status, ward.hl7.code, ward.fhir.status = 0x0000, "AA", 200
    assert {k: rows[k]["state"] for k in ("dicom", "hl7", "fhir")} == dict.fromkeys(
        ("dicom", "hl7", "fhir"), "dead"
    )
    assert rows["dicom"]["attempts"] == 1  # the same would be refused again
    assert rows["stow"]["state"] == rows["webhook"]["state"] == "done"  # nobody else minds
    listed = ward.client.get("/api/v1/deliveries", params={"state": "dead"}).json()
    assert listed["by_state"]["dead"] >= 3
    assert "C000" in rows["dicom"]["last_error"]
    for kind in ("dicom", "hl7", "fhir"):
        ward.client.post(f"/api/v1/deliveries/{rows[kind]['id']}/resend")
    after = ward.settled(study, 1)
    assert {r["state"] for r in after} == {"done"}


def test_a_pacs_that_is_down_or_full_gets_it_later(ward: Ward, series: Path) -> None:
    port = ward.pacs.port
    ward.pacs.stop()
    study = ward.send(series)
    failed = ward.settled(
        study,
        1,
        lambda rows: any(r["attempts"] for r in rows if r["kind"] == "dicom" and r["last_error"]),
    )
    assert {r["state"] for r in failed if r["kind"] in ("stow", "fhir")} <= {"done", "waiting"}
    ward.pacs = Pacs(port)
    rows = ward.settled(study, 1)
    dicom = next(r for r in rows if r["kind"] == "dicom")
    if dicom["state"] == "dead":  # it was down for longer than three tries
        ward.client.post(f"/api/v1/deliveries/{dicom['id']}/resend")
        ward.settled(study, 1)
    mine = [u for u, d in ward.pacs.objects.items() if d.StudyInstanceUID == study]
    assert mine and {ward.pacs.taken[u] for u in mine} == {1}


def test_a_slow_pacs_holds_up_neither_analyses_nor_others(
    ward: Ward, series: Path, tmp_path: Path
) -> None:
    ward.pacs.hold.clear()
    try:
        study = ward.send(series)
        rows = ward.settled(
            study,
            1,
            lambda rows: {r["kind"] for r in rows if r["state"] == "done"} >= {"stow", "hl7"},
        )
        assert next(r for r in rows if r["kind"] == "dicom")["state"] != "done"
        assert ward.client.get(f"/api/v1/studies/{study}").json()["status"] == "analysed"
    finally:
        ward.pacs.hold.set()
    final = ward.settled(study, 1)
    for row in final:
        if row["state"] == "dead":
            ward.client.post(f"/api/v1/deliveries/{row['id']}/resend")
    assert {r["state"] for r in ward.settled(study, 1)} == {"done"}


def test_a_study_that_was_not_analysed_is_no_silence(ward: Ward, series: Path) -> None:
    study = ward.send(series, last=5)  # too few slices
    rows = ward.settled(study, 1)
    assert {r["state"] for r in rows} == {"done"}
    (report,) = [d for d in ward.pacs.of("SR") if d.StudyInstanceUID == study]
    assert report.CompletionFlag == "PARTIAL"
    assert "TOO_FEW_SLICES" in words_of(report)
    (message,) = [m for m in ward.hl7.messages if study in m]
    assert "not_assessed" in message and "|A^ASAP^HL70485" in message


@given(st.integers(1, 60), st.floats(0, 1))
def test_pauses_grow_and_end(attempts: int, roll: float) -> None:
    pause = pause_s(attempts, lambda: roll)
    assert 0 < pause <= LONGEST_S
    assert pause_s(attempts + 1, lambda: roll) >= pause

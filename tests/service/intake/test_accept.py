"""One file in: stored once, whatever the order and however often; other bytes are set aside."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instances import CT, ct, encoded, sop_uid, study_uid
from pydicom.dataset import Dataset
from ward import Ward

from triage.dicom import open_study
from triage.service.images.files import Files, FileTooLargeError
from triage.service.intake.accept import (
    Acceptor,
    Claim,
    NotStoredError,
    Source,
    State,
    Touched,
)
from triage.service.records import Database, quarantine, studies

HERE = Source("upload", "tester")


_patients = itertools.count(1000, 10)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sent=st.lists(
        st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(0, 1)), min_size=1, max_size=12
    )
)
def test_any_order_and_repetition_stores_the_same_set(
    sent: list[tuple[int, int, int]], ward: Ward
) -> None:
    """(study, instance, version of its bytes): the first bytes of an instance stay."""
    base = next(_patients)
    before = len(ward.on_disk())
    first: dict[tuple[int, int], int] = {}
    others: set[tuple[int, int, int]] = set()
    waiting = []
    for study, number, version in sent:
        data = ct(base + study, 1, number, side=4, PatientComments=f"v{version}")
        expected = State.STORED
        if (study, number) in first:
            same = first[study, number] == version
            expected = State.DUPLICATE if same else State.QUARANTINED
            others |= set() if same else {(study, number, version)}
        first.setdefault((study, number), version)
        waiting.append((expected, ward.intake.acceptor.submit(data, HERE)))
    assert [future.result().state for _, future in waiting] == [state for state, _ in waiting]
    for study in {study for study, _ in first}:
        stored = {sop_uid(base + s, 1, n) for s, n in first if s == study}
        with ward.database.reading() as session:
            row = studies.by_uid(session, study_uid(base + study))
            assert row is not None
            assert row.instance_count == len(stored)
            assert {i.sop_instance_uid for i in studies.instances(session, row.id)} == stored
            aside = sum(1 for s, _, _ in others if s == study)
            assert quarantine.count_of_study(session, row.id) == aside
    assert len(ward.on_disk()) - before == len(first) + len(others)


def test_the_study_and_its_series_say_what_their_headers_say(ward: Ward) -> None:
    name = "Yamada^Tarou=山田^太郎"
    data = ct(1, 2, 3, SpecificCharacterSet="ISO_IR 192", PatientName=name, StudyDescription="A<b>")
    accepted = ward.intake.acceptor.accept(data, HERE)
    (study,) = ward.studies()
    assert (accepted.state, accepted.study_id) == (State.STORED, study.id)
    assert study.patient_name == name
    assert (study.patient_age, study.patient_sex, study.accession_number) == ("045Y", "F", "A1")
    assert (study.study_description, study.status) == ("A<b>", "received")
    with ward.database.reading() as session:
        (series,) = studies.series_of(session, study.id)
        assert (series.modality, series.series_number, series.instance_count) == ("CT", 2, 1)
    (row,) = ward.instances()
    assert (row.sop_class_uid, row.route, row.sender) == (CT, "upload", "tester")
    path = ward.files.path(row)
    assert path.parent == ward.files.study_folder(study.id)
    assert path.name == f"{row.id}.dcm"
    assert path.read_bytes() == data


def test_the_pipeline_reads_what_was_stored(ward: Ward) -> None:
    for number in range(14):
        ward.intake.acceptor.accept(ct(1, 1, number, side=16), HERE)
    (study,) = ward.studies()
    with open_study(ward.files.study_folder(study.id), ward.intake.settings) as found:
        assert found.study_instance_uid == study_uid(1)
        assert len(found.series[0].instances) == 14


def test_the_same_image_by_another_entrance_is_a_duplicate(ward: Ward) -> None:
    data = ct()
    other_meta = data[:132] + data[132:].replace(b"PYDICOM", b"OTHERS!")
    assert other_meta != data
    assert ward.intake.acceptor.accept(data, HERE).state is State.STORED
    assert ward.intake.acceptor.accept(other_meta, HERE).state is State.DUPLICATE


PREAMBLES = {"ELF": b"\x7fELF", "Windows": b"MZ", "HTML": b"<html><script>"}


@pytest.mark.parametrize("kind", PREAMBLES)
def test_what_hides_in_the_preamble_does_not_get_in(ward: Ward, kind: str) -> None:
    data = PREAMBLES[kind].ljust(128, b"A") + ct()[128:]
    ward.intake.acceptor.accept(data, HERE)
    stored = ward.files.path(ward.instances()[0]).read_bytes()
    assert stored == bytes(128) + data[128:]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ["../../../etc/passwd", "..", "/etc/passwd", "1.2\x00.3", "%2e%2e"])
def test_a_uid_never_becomes_a_path(ward: Ward, uid: str) -> None:
    data = Dataset()
    data.SOPClassUID = CT
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        data.add_new(keyword, "UI", uid)
    ward.intake.acceptor.accept(encoded(data), HERE)
    assert len(ward.on_disk()) == 1
    assert ward.on_disk()[0].parent.parent == ward.files.studies


def test_an_image_without_study_uid_is_still_seen(ward: Ward) -> None:
    for number in (1, 2):
        ward.intake.acceptor.accept(ct(1, 1, number, StudyInstanceUID=""), HERE)
    (study,) = ward.studies()
    assert study.instance_count == 2
    assert study.study_instance_uid.startswith("2.25.")


UNREADABLE = {
    "empty": b"",
    "text": b"no image in here" * 20,
    "zeros": bytes(500),
    "cut in the header": ct()[:400],
    "only a prefix": bytes(128) + b"DICM",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_set_aside_once(ward: Ward, kind: str) -> None:
    for times in (1, 2):
        accepted = ward.intake.acceptor.accept(UNREADABLE[kind], HERE)
        assert (accepted.state, accepted.reason) == (State.QUARANTINED, "UNREADABLE")
        with ward.database.reading() as session:
            (row,) = quarantine.newest(session)
            assert row.times == times
    assert len(ward.on_disk()) == 1
    assert ward.studies() == []


def test_another_object_than_announced_is_set_aside(ward: Ward) -> None:
    claim = Claim(sop_instance_uid="1.2.3")
    accepted = ward.intake.acceptor.accept(ct(), HERE, claim)
    assert (accepted.state, accepted.reason) == (State.QUARANTINED, "MISMATCH")


def test_a_file_that_is_too_large_leaves_nothing(open_ward: Callable[..., Ward]) -> None:
    ward = open_ward(max_instance_bytes=2000)
    with pytest.raises(FileTooLargeError):
        ward.intake.acceptor.accept(ct(side=64), HERE)
    assert ward.on_disk() == []


def test_a_late_image_opens_the_study_again(ward: Ward) -> None:
    grown: list[Touched] = []
    ward.intake.acceptor.on_stored = grown.extend
    ward.intake.acceptor.accept(ct(1, 1, 1), HERE)
    (study,) = ward.studies()
    with ward.database.session() as session:
        studies.declare_ready(session, study.id, 1)
    ward.intake.acceptor.accept(ct(1, 1, 1), HERE)  # a duplicate changes nothing
    ward.intake.acceptor.accept(ct(1, 1, 2), HERE)
    ward.intake.acceptor.accept(ct(1, 1, 3), HERE)
    (study,) = ward.studies()
    assert (study.images_version, study.ready_version, study.instance_count) == (2, 1, 3)
    assert [g.images_version for g in grown if g.study_id] == [1, 2, 2]
    assert [i.images_version for i in ward.instances()] == [1, 2, 2]


def test_a_locked_database_refuses_and_recovers(ward: Ward) -> None:
    ward.intake.acceptor.database = Database(ward.database.url, busy_s=0.05)  # type: ignore[arg-type]
    other = sqlite3.connect(ward.files.home / "triage.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(NotStoredError) as refusal:
        ward.intake.acceptor.accept(ct(), HERE)
    assert not refusal.value.full
    assert ward.on_disk() == []
    other.rollback()
    other.close()
    assert ward.intake.acceptor.accept(ct(), HERE).state is State.STORED


def test_one_bad_row_does_not_hurt_the_others(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    from triage.service.intake import accept

    real = accept.commit

    def rolled_back(database, files, batch, deadline):  # type: ignore[no-untyped-def]
        if any(item.uid == sop_uid(1, 1, 2) for item in batch):
            raise ValueError("poisoned")
        return real(database, files, batch, deadline)

    monkeypatch.setattr(accept, "commit", rolled_back)
    waiting = [ward.intake.acceptor.submit(ct(1, 1, n), HERE) for n in (1, 2, 3)]
    ends = [future.exception() for future in waiting]
    assert [type(e) for e in ends] == [type(None), NotStoredError, type(None)]
    assert len(ward.on_disk()) == 2


def test_files_without_a_row_go_at_the_next_start(ward: Ward, home: Path) -> None:
    ward.intake.acceptor.accept(ct(), HERE)
    (study,) = ward.studies()
    orphan = ward.files.study_folder(study.id) / f"{'a' * 32}.dcm"
    orphan.write_bytes(b"never acknowledged")
    (ward.files.incoming / "x.part").write_bytes(b"cut")
    (ward.files.studies / ("b" * 32)).mkdir()
    (ward.files.quarantine / ("c" * 32)).write_bytes(b"no row")
    swept = ward.files.sweep(ward.database)
    assert (swept.removed, swept.missing) == (3, [])
    assert len(ward.on_disk()) == 1
    ward.on_disk()[0].unlink()
    assert len(ward.files.sweep(ward.database).missing) == 1


def test_the_same_on_postgresql(new_database: Callable[[], str], home: Path) -> None:
    database, files = Database(new_database()), Files(home)
    database.upgrade()
    files.open()
    acceptor = Acceptor(database, files)
    acceptor.start()
    waiting = [acceptor.submit(ct(1, 1, n), HERE) for n in (1, 2, 2, 3)]
    waiting += [acceptor.submit(ct(1, 1, 1, PatientComments="other", PatientName="A^\x00"), HERE)]
    states = [future.result().state for future in waiting]
    assert states == ["stored", "stored", "duplicate", "stored", "quarantined"]
    with database.session() as session:
        (study,) = studies.newest(session)
        assert (study.status, study.instance_count) == ("received", 3)
        studies.declare_ready(session, study.id, 1)
    acceptor.accept(ct(1, 1, 4), HERE)
    with database.reading() as session:
        assert [s.images_version for s in studies.newest(session)] == [2]
    acceptor.stop()
    with pytest.raises(NotStoredError, match="stopping"):
        acceptor.accept(ct(1, 1, 5), HERE)
    files.close()
    database.close()

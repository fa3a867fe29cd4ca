"""The store on disk: what a restart finds, and what a second process may not touch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from service_client import NO_DICOM

from triage.results.report import refused, write_report
from triage.service.store import Store, StoreInUseError
from triage.types import Status


def admitted(store: Store) -> str:
    folder = store.new_folder()
    (folder / "upload.zip").write_bytes(NO_DICOM)
    return store.admit(folder).id


@pytest.fixture
def store(home: Path) -> Store:
    store = Store(home)
    store.open()
    return store


def reopened(store: Store) -> Store:
    store.close()
    again = Store(store.folder.parent)
    again.open()
    return again


def test_a_restart_shows_finished_studies_in_the_same_order(store: Store) -> None:
    ids = [admitted(store) for _ in range(3)]
    for study in ids:
        store.start(study)
        write_report(refused("NOT_CT"), store.report_folder(study))
        store.finish(study)
    before = [(e.id, e.status, e.report, e.finished_at) for e in store.entries()]
    again = reopened(store)
    assert [(e.id, e.status, e.report, e.finished_at) for e in again.entries()] == before
    assert [e.id for e in again.entries()] == ids[::-1]
    assert admitted(again) == again.entries()[0].id


@pytest.mark.parametrize("started", [False, True])
def test_a_study_that_was_interrupted_is_never_silently_pending(
    store: Store, started: bool
) -> None:
    study = admitted(store)
    if started:
        store.start(study)
    entry = reopened(store).get(study)
    assert entry is not None
    assert entry.status is Status.NOT_ANALYSED
    assert entry.report is not None
    assert entry.report["reason"]["code"] == "WORKER_FAILED"
    assert entry.report["priority"] == "urgent"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"status": "analysed"', b'{"id": 1}'])
def test_a_damaged_state_is_a_refused_study(store: Store, content: bytes) -> None:
    study = admitted(store)
    (store.folder / study / "state.json").write_bytes(content)
    entry = reopened(store).get(study)
    assert entry is not None
    assert entry.status is Status.NOT_ANALYSED


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"status": "analysing"}', b"[1]"])
def test_a_finished_study_without_its_report_is_no_longer_finished(
    store: Store, content: bytes | None
) -> None:
    study = admitted(store)
    store.start(study)
    path = write_report(refused("NOT_CT"), store.report_folder(study))
    store.finish(study)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    entry = reopened(store).get(study)
    assert entry is not None
    assert entry.report is not None
    assert entry.report["reason"]["code"] == "WORKER_FAILED"


def test_an_upload_that_broke_off_was_never_a_study(store: Store) -> None:
    folder = store.new_folder()
    (folder / "upload.zip").write_bytes(NO_DICOM[:10])
    again = reopened(store)
    assert again.entries() == []
    assert not folder.exists()


def test_a_new_try_starts_from_an_empty_folder(store: Store) -> None:
    study = admitted(store)
    write_report(refused("NOT_CT"), store.report_folder(study))
    store.start(study)
    assert not store.report_folder(study).exists()


def test_two_services_cannot_share_a_folder(store: Store, home: Path) -> None:
    with pytest.raises(StoreInUseError, match="Another service"):
        Store(home).open()
    store.close()
    Store(home).open()


def test_state_on_disk_holds_no_patient_data(store: Store) -> None:
    study = admitted(store)
    state = json.loads((store.folder / study / "state.json").read_text())
    assert set(state) == {"id", "number", "status", "received_at", "finished_at"}

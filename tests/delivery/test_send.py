"""`triage send` and `triage outbox`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.delivery.peers import Pacs, Web, running
from tests.results.dicom import folders
from triage.cli.common import Exit
from triage.cli.main import call
from triage.cli.run import _write_dicom
from triage.results.dicom.build import write_objects
from triage.settings import Settings
from triage.settings import settings as process_settings


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = folders.case(tmp_path_factory.mktemp("send"), pictures=False)
    write_objects(case.folder, case.images, Settings(), kinds=frozenset({"sr", "seg"}))
    return case.folder


def test_a_folder_is_sent_and_sent_again(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pacs, web = Pacs(), Web()
    with running(pacs, web):
        for times in (1, 2):
            assert call(["send", str(report), "--to", pacs.address]) == Exit.OK
            assert set(pacs.taken.values()) == {times} and len(pacs.taken) == 4
        assert call(["send", str(report), "--to", web.address]) == Exit.OK
        assert web.posts[0][0] == "/studies"
    assert "4 objects sent" in capsys.readouterr().out


def test_what_cannot_be_sent_is_said(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pacs = Pacs()
    pacs.status, address = 0xC123, pacs.address
    with running(pacs):
        assert call(["send", str(report), "--to", address]) == Exit.FAULT
        assert "status C123" in capsys.readouterr().err
    assert call(["send", str(report), "--to", address]) == Exit.FAULT
    assert "not reached" in capsys.readouterr().err
    assert call(["send", str(tmp_path), "--to", address]) == Exit.USAGE
    assert call(["send", str(report), "--to", "nonsense"]) == Exit.USAGE


def test_the_outbox_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path))
    process_settings.cache_clear()
    try:
        assert call(["outbox"]) == Exit.OK
        assert call(["outbox", "--resend", "dead"]) == Exit.OK
        assert call(["outbox", "--resend", "0" * 32]) == Exit.USAGE
        assert call(["outbox", "--state", "lost"]) == Exit.USAGE
    finally:
        process_settings.cache_clear()
    assert "0 due again" in capsys.readouterr().out


def test_run_dicom_writes_them_beside_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = folders.case(tmp_path, pictures=False)
    _write_dicom(case.images, case.folder)
    assert (case.folder / "dicom" / "sr.dcm").is_file()
    shutil.rmtree(case.folder / "dicom")
    letter = tmp_path / "letter.txt"
    letter.write_text("no image")
    _write_dicom(letter, case.folder)  # said in a line; the report stands
    assert "No DICOM objects were written: UNREADABLE" in capsys.readouterr().err
    assert not (case.folder / "dicom").exists()

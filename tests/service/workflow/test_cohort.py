"""Retrospective studies: found, taken one by one, continued, and told in one table."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic import QUICK, drill_settings, until

from triage.cli.main import call
from triage.service.records import Database, cohorts
from triage.service.workflow import table
from triage.service.workflow.cohort import SEPARATOR, find_studies
from triage.service.workflow.station import station
from triage.settings import Settings


def write_slice(path: Path, study: str, series: str, number: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.Modality, ds.PatientID, ds.InstanceNumber = "CT", "p", number
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Five studies and a zip without images; two of the studies lie in several folders."""
    root = tmp_path / "archive"
    for series in (1, 2):
        for number in (1, 2):
            write_slice(root / "a" / f"s{series}" / f"{number}.dcm", "1.1", f"1.1.{series}", number)
    write_slice(root / "mixed" / "x" / "1.dcm", "1.2", "1.2.1", 1)
    write_slice(root / "mixed" / "y" / "1.dcm", "1.2", "1.2.2", 1)
    write_slice(root / "mixed" / "z" / "1.dcm", "1.3", "1.3.1", 1)
    write_slice(root / "flat" / "1.dcm", "1.4", "1.4.1", 1)
    write_slice(tmp_path / "5.dcm", "1.5", "1.5.1", 1)
    with zipfile.ZipFile(root / "five.zip", "w") as file:
        file.write(tmp_path / "5.dcm", "5.dcm")
    with zipfile.ZipFile(root / "letter.zip", "w") as file:
        file.writestr("letter.txt", "no image")
    (root / "notes.txt").write_text("not DICOM")
    return root


def test_every_study_is_one_entry(archive: Path) -> None:
    mixed = SEPARATOR.join(str(archive / "mixed" / name) for name in "xy")
    expected = [archive / "a", archive / "five.zip", archive / "flat", archive / "letter.zip"]
    assert find_studies([archive]) == sorted(
        [*map(str, expected), mixed, str(archive / "mixed" / "z")]
    )
    assert find_studies([archive / "a" / "s1" / "1.dcm", archive / "five.zip"]) == sorted(
        [str(archive / "a" / "s1"), str(archive / "five.zip")]
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return drill_settings(tmp_path / "home")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    settings.home.mkdir()
    database = Database.at_home(settings.home)
    database.upgrade()
    yield database
    database.close()


def test_a_cohort_is_taken_and_analysed_and_goes_on_after_a_stop(
    archive: Path, settings: Settings, database: Database, tmp_path: Path
) -> None:
    folders = find_studies([archive])
    with database.session() as session:
        cohort = cohorts.create(session, "=cmd", folders[:2])

    def ended(number: int) -> bool:
        with database.reading() as session:
            counts = cohorts.progress(session, cohort.id)
        return counts["not_analysed"] + counts["analysed"] + counts["refused"] >= number

    with station(settings, database, load=f"{__name__}:load", timing=QUICK):
        until(lambda: ended(2), "the first two")
    with database.session() as session:
        assert cohorts.add(session, cohort.id, folders) == len(folders) - 2
    with station(settings, database, load=f"{__name__}:load", timing=QUICK):
        until(lambda: ended(len(folders)), "all")
    rows = {row["folder"]: row for row in table.rows(database, cohort.id)}
    assert set(rows) == set(folders)
    assert rows[str(archive / "letter.zip")]["reason"] == "UNREADABLE"
    assert rows[str(archive / "letter.zip")]["priority"] == "urgent"
    good = [row for row in rows.values() if row["status"] == "analysed"]
    assert {row["study_instance_uid"] for row in good} == {f"1.{n}" for n in range(1, 6)}
    assert {row["study_instance_uid"]: row["images"] for row in good}["1.1"] == 4
    assert all(row["spleen_verdict"] == "suspected" for row in good)
    assert all(row["kidney_side"] == "left" for row in good)

    table.write_csv(list(rows.values()), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["folder"] for row in read] == list(rows)
    assert {row["liver_probability"] for row in read} == {"0.9", ""}
    parquet = pytest.importorskip("pyarrow.parquet")
    table.write_parquet(list(rows.values()), tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == list(rows.values())


def load(settings: Settings) -> object:
    """In the child: every study is suspected."""
    from stand_in import Verdict, report, write_report

    return lambda source, out, progress: write_report(report("1.2", Verdict.SUSPECTED), out)


def test_a_cell_that_a_spreadsheet_would_run_is_quoted(tmp_path: Path) -> None:
    row = dict.fromkeys(table.columns()) | {"folder": "=cmd|' /C calc'!A0", "images": -1}
    table.write_csv([row], tmp_path / "out.csv")
    (read,) = csv.DictReader((tmp_path / "out.csv").open(newline=""))
    assert read["folder"] == "'=cmd|' /C calc'!A0"
    assert read["images"] == "-1"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["submit"], 2), (["submit", "/no/such/folder"], 2), (["submit", "--name", "none"], 2)],
)
def test_wrong_use(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triage.settings import settings

    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path))
    settings.cache_clear()
    try:
        assert call(arguments) == code
    finally:
        settings.cache_clear()


def test_submit_writes_the_folders_down_and_says_what_is_needed(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from triage.settings import settings

    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    try:
        arguments = ["submit", str(archive), "--csv", str(tmp_path / "out.csv")]
        assert call(arguments) == 0
        said = capsys.readouterr()
        assert "cohort archive: 6 studies found, 6 of them new" in said.out
        assert "No worker runs here" in said.err
        assert call(arguments) == 0
        assert "0 of them new" in capsys.readouterr().out
    finally:
        settings.cache_clear()
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["waiting"] * 6

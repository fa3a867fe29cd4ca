"""The objects are what the standard says they are, and say what the report says."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import UID

from tests.dicom import write
from tests.results.dicom import folders
from triage.results.dicom import codes
from triage.results.dicom.build import KINDS, read_analysis, write_objects
from triage.results.report import refused, write_report
from triage.settings import Settings
from triage.types import DISCLAIMER, Target, Verdict

CLASSES = {
    "sr": "1.2.840.10008.5.1.4.1.1.88.34",
    "sc": "1.2.840.10008.5.1.4.1.1.7",
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "pm": "1.2.840.10008.5.1.4.1.1.30",
    "ko": "1.2.840.10008.5.1.4.1.1.88.59",
}


def errors(path: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith(("Error", "Abort"))]


def source(built: folders.Case) -> pydicom.Dataset:
    return pydicom.dcmread(sorted(built.images.glob("*.dcm"))[0])


def test_there_is_one_of_each_kind(objects: list[Path]) -> None:
    found = {kind: [p.name for p in objects if p.name.startswith(kind)] for kind in KINDS}
    assert found["sr"] == ["sr.dcm", "sr_hot_spots.dcm"]
    assert found["seg"] == ["seg_hot_spots_1.dcm", "seg_organs_1.dcm"]
    assert len(found["sc"]) == 6 and len(found["pm"]) == 4 and found["ko"] == ["ko.dcm"]
    for path in objects:
        assert pydicom.dcmread(path).SOPClassUID == CLASSES[path.name.split("_")[0].split(".")[0]]


def test_dciodvfy_finds_no_error(objects: list[Path]) -> None:
    assert {path.name: errors(path) for path in objects} == {p.name: [] for p in objects}


def test_each_belongs_to_the_study_and_says_what_it_is_for(
    built: folders.Case, objects: list[Path]
) -> None:
    image = source(built)
    for path in objects:
        data = pydicom.dcmread(path)
        assert data.StudyInstanceUID == image.StudyInstanceUID
        assert data.SeriesInstanceUID != image.SeriesInstanceUID
        for keyword in (
            *("PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
            *("StudyDate", "StudyTime", "StudyDescription"),
        ):
            assert data[keyword].value == image[keyword].value, (path.name, keyword)
        assert str(data.PatientName) == "MÜLLER^ÉLODIE"
        assert DISCLAIMER in data.SeriesDescription
        assert UID(data.SOPInstanceUID).is_valid and data.SOPInstanceUID.startswith("2.25.")
        if path.name.startswith(("seg", "pm")):
            assert data.FrameOfReferenceUID == image.FrameOfReferenceUID
        if path.name.startswith("sc"):
            assert data.BurnedInAnnotation == "YES"
        if path.name.startswith("pm"):
            assert data.ContentQualification == "RESEARCH"


def test_the_report_says_what_report_json_says(built: folders.Case) -> None:
    data = pydicom.dcmread(built.folder / "dicom" / "sr.dcm")
    assert (data.VerificationFlag, data.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert data.CompletionFlag == "PARTIAL"  # the bowel was not assessed
    groups = _groups(data)
    for target, finding in built.report.findings.items():
        group = groups[codes.FINDINGS[target].value]
        assert _coded(group, codes.VERDICT) == finding.verdict.value
        numbers = _numbers(group)
        if finding.verdict is Verdict.NOT_ASSESSED:
            assert _coded(group, codes.REASON) == finding.reason and not numbers
            continue
        assert finding.rule_in and finding.rule_out
        assert numbers == {
            codes.SCORE.value: finding.probability,
            codes.RULE_IN.value: finding.rule_in.cutoff,
            codes.RULE_OUT.value: finding.rule_out.cutoff,
        }
        images = [i for i in group.ContentSequence if i.ValueType == "IMAGE"]
        named = {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in images}
        assert named == {k.sop_instance_uid for k in finding.key_slices}
        text = " ".join(str(i.TextValue) for i in group.ContentSequence if i.ValueType == "TEXT")
        assert folders.BUNDLE.sha256 in text and "Calibrated on simulated patients" in text
    said = words_of(data)
    assert "LOW_QUALITY" in said and DISCLAIMER in said


def _groups(data: pydicom.Dataset) -> dict[str, Any]:
    """Measurement group by the code of its finding; the answers are the first of theirs."""
    found: dict[str, Any] = {}
    measurements = next(i for i in data.ContentSequence if _name(i) == "126010")
    for group in measurements.ContentSequence:
        finding = next(i for i in group.ContentSequence if _name(i) == "121071")
        found.setdefault(finding.ConceptCodeSequence[0].CodeValue, group)
    return found


def words_of(data: pydicom.Dataset) -> str:
    return " ".join(str(e.value) for e in data.iterall() if e.VR in ("UT", "LO"))


def _name(item: Any) -> str:
    return (
        str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""
    )


def _coded(group: Any, name: codes.Code) -> str:
    item = next(i for i in group.ContentSequence if _name(i) == name.value)
    code = item.ConceptCodeSequence[0]
    return str(code.get("CodeValue") or code.LongCodeValue)  # more than 16 characters


def _numbers(group: Any) -> dict[str, float]:
    return {
        _name(i): float(i.MeasuredValueSequence[0].NumericValue)
        for i in group.ContentSequence
        if i.ValueType == "NUM"
    }


def test_captures_show_the_pictures(built: folders.Case) -> None:
    from PIL import Image

    data = pydicom.dcmread(built.folder / "dicom" / "sc_spleen_1.dcm")
    with Image.open(built.folder / "overlays" / "spleen.png") as picture:
        assert (data.pixel_array == picture.convert("RGB")).all()
    (key,) = built.report.findings[Target.SPLEEN].key_slices
    assert data.SourceImageSequence[0].ReferencedSOPInstanceUID == key.sop_instance_uid


def test_key_objects_are_those_of_suspected_targets(built: folders.Case) -> None:
    dicom = built.folder / "dicom"
    named = {
        e.value
        for e in pydicom.dcmread(dicom / "ko.dcm").iterall()
        if e.keyword == "ReferencedSOPInstanceUID"
    }
    (key,) = built.report.findings[Target.SPLEEN].key_slices
    files = ("sr.dcm", "sc_spleen_1.dcm")
    ours = {pydicom.dcmread(dicom / name).SOPInstanceUID for name in files}
    assert named == {key.sop_instance_uid, *ours}


def test_written_again_nothing_changes(built: folders.Case, objects: list[Path]) -> None:
    before = {path.name: path.read_bytes() for path in objects}
    again = write_objects(built.folder, built.images, Settings())
    assert {path.name: path.read_bytes() for path in again} == before


def test_another_version_has_other_uids_and_names_the_one_before(
    built: folders.Case, tmp_path: Path
) -> None:
    shutil.copytree(built.folder, tmp_path / "report", ignore=shutil.ignore_patterns("dicom"))
    first = read_analysis(built.folder)
    second = replace(first, key="two", version=2, previous=first.key)
    kinds = frozenset({"sr"})
    (path,) = write_objects(
        tmp_path / "report", built.images, Settings(), analysis=second, kinds=kinds
    )
    new, old = pydicom.dcmread(path), pydicom.dcmread(built.folder / "dicom" / "sr.dcm")
    assert new.SOPInstanceUID != old.SOPInstanceUID
    series = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == old.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert errors(path) == []


def test_a_refused_study_gets_a_document_that_says_so(tmp_path: Path) -> None:
    write.write_series(tmp_path / "images", write.phantom((32, 32, 5)), **folders.WHO)
    write_report(refused("TOO_FEW_SLICES", "5 slices"), tmp_path / "report")
    paths = write_objects(tmp_path / "report", tmp_path / "images", Settings())
    assert [p.name for p in paths] == ["sr.dcm"]
    data = pydicom.dcmread(paths[0])
    verdicts = {_coded(group, codes.VERDICT) for group in _groups(data).values()}
    assert verdicts == {"not_assessed"} and "TOO_FEW_SLICES" in words_of(data)
    assert errors(paths[0]) == []


def test_headers_of_strangers_are_cleaned(tmp_path: Path) -> None:
    """Values that break their VR are cut or left out; what comes out is sound."""
    nasty = {
        "PatientName": "A" * 200,
        "StudyID": "X" * 40,
        "AccessionNumber": "Y" * 30,
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyTime": "",
        "StudyDescription": "two\nlines \x07" + "z" * 100,
    }
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        case = folders.case(tmp_path, pictures=False, **{**folders.WHO, **nasty})
    finally:
        pydicom.config.settings.writing_validation_mode = None
    kinds = frozenset({"sr", "seg"})
    for path in write_objects(case.folder, case.images, Settings(), kinds=kinds):
        assert errors(path) == []
        assert len(pydicom.dcmread(path).AccessionNumber) <= 16


def test_codes_are_known_or_our_own() -> None:
    for code in codes.all_codes():
        assert len(code.meaning) <= 64, code
        if code.source == "PS3.16" and code.scheme in ("SCT", "DCM"):
            listed = {value for values in concepts[code.scheme].values() for value in values}
            assert code.value in listed, code
    own = [code.value for code in codes.all_codes() if code.scheme == codes.OWN]
    assert len(own) == len(set(own))

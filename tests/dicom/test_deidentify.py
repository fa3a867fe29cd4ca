"""Nothing that names a patient survives, wherever it was written; what remains is valid DICOM.

A second opinion three times: dciodvfy (dicom3tools) on the objects, dcmdump (DCMTK) on what can be
read in them, and the table of another program (dicom-anonymizer) on the profile.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRLittleEndian

from tests.dicom.write import phantom, write_series
from triage.dicom import child
from triage.dicom.confidentiality import KEPT, NEEDED, TYPE_2, TYPE_2C, profile
from triage.dicom.deidentify import LeftOut, deidentified
from triage.dicom.pseudonyms import MOST_DAYS, Pseudonyms, shifted

KEY = bytes(range(32))
NAME = "Zyqxwvu"
# What stands for a token where a VR takes no text. Each is looked for in the bytes.
PLANTED: dict[str, Any] = {
    "DA": "19511213",
    "TM": "235917.123457",
    "DT": "19511213235917.123457",
    "UI": "1.2.777.19511213.4711",
    "AS": "077Y",
    "IS": "74747471",
    "DS": "74747471.5",
    "UR": f"https://{NAME}.example",
}
LOST = [NAME, "19511213", "235917", "777.1951", "077Y", "74747471"]


def planted(vr: str, tag: int) -> Any:
    """A value of that VR that would tell who it was, another one in each attribute; None where a
    number cannot."""
    name = f"{NAME}{tag:08x}"
    if vr in ("OB", "OW", "UN", "OB or OW", "OL", "OD", "OF", "OV"):
        return (NAME * 8)[:48].encode()
    if vr == "SQ":
        item = Dataset()
        item.PatientName, item.PatientBirthDate = f"{NAME}^NESTED", PLANTED["DA"]
        item.add_new(0x00091001, "LO", NAME)
        deeper = Dataset()
        deeper.PersonName, deeper.TextValue = NAME, NAME
        item.ContentSequence = [deeper]
        return [item]
    if vr in ("US", "SS", "UL", "SL", "FD", "FL", "AT", "US or SS"):
        return None
    if vr == "UI":
        return f"{PLANTED[vr]}.{tag}"
    return PLANTED.get(vr, name.upper() if vr in ("CS", "AE") else name)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The header of a sound image."""
    folder = tmp_path_factory.mktemp("original")
    path = write_series(folder, phantom((24, 20, 1)), RescaleType="HU")[0]
    return dcmread(path, stop_before_pixels=True)


def copy_of(data: Dataset) -> Dataset:
    stream = io.BytesIO()
    dcmwrite(stream, data, implicit_vr=False, little_endian=True)
    return dcmread(io.BytesIO(stream.getvalue()), force=True)


def written(data: Dataset) -> bytes:
    stream = io.BytesIO()
    dcmwrite(stream, data, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def plant(data: Dataset, tags: Any) -> None:
    for tag in tags:
        vr = dictionary_VR(tag) if keyword_for_tag(tag) else "LO"
        value = planted(vr, tag)
        if value is not None and tag >> 16 > 2 and keyword_for_tag(tag) != "SOPClassUID":
            data[tag] = DataElement(tag, vr.split(" or ")[0], value)


@pytest.mark.parametrize("dates", [False, True])
def test_no_token_survives_in_any_attribute_of_the_profile(original: Dataset, dates: bool) -> None:
    data = copy_of(original)
    plant(data, profile())
    data.Manufacturer, data.ManufacturerModelName = f"SIEMENS {NAME}", f"{NAME} 64"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", f"{NAME} 4".upper()]
    data.ConvolutionKernel = ["Br40d", f"{NAME} 5"]
    for tag in (0x50003000, 0x60003000, 0x60004000, 0x00091010, 0xFFFCFFFC):  # curve, overlay ...
        data[tag] = DataElement(tag, "OB", NAME.encode())
    data[0x00090010] = DataElement(0x00090010, "LO", NAME)  # a private creator
    assert len(data) > 600
    assert all(t.encode() in written(data) for t in LOST)
    out = written(deidentified(data, Pseudonyms(KEY), dates=dates))
    kept = ["235917"] if dates else []  # whole days are shifted: the time of day stays
    assert [t for t in LOST if t.encode() in out.upper() or t.upper().encode() in out.upper()] in (
        [],
        kept,
    )
    new = dcmread(io.BytesIO(out), force=True)
    assert new.PatientIdentityRemoved == "YES"
    codes = [item.CodeValue for item in new.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107"][: 1 + dates]
    assert new.LongitudinalTemporalInformationModified == ("MODIFIED" if dates else "REMOVED")


@settings(max_examples=60, deadline=None)
@given(
    group=st.integers(0x0008, 0xFFFB),
    element=st.integers(0x0010, 0xFFFF),
    vr=st.sampled_from(["LO", "LT", "UT", "PN", "UN", "OB", "SQ", "UC", "SH", "DS", "CS", "UI"]),
    depth=st.integers(0, 3),
    token=st.text("ABCDEFGHJKMNPQRSTVWXYZ", min_size=12, max_size=16),
)
def test_no_token_survives_in_any_other_place(
    original: Dataset, group: int, element: int, vr: str, depth: int, token: str
) -> None:
    """Private tags, unknown ones, attributes with a VR that is not theirs, nested ones."""
    tag = group << 16 | element
    data = copy_of(original)
    if keyword_for_tag(tag) in (*NEEDED, "SOPClassUID"):
        return
    value: Any = token.encode() if vr in ("UN", "OB") else token
    for _ in range(depth if vr != "SQ" else depth + 1):
        item = Dataset()
        item[tag] = DataElement(tag, "SQ" if isinstance(value, list) else vr_of(vr), value)
        value = [item]
    data[tag] = DataElement(tag, "SQ" if isinstance(value, list) else vr_of(vr), value)
    try:
        out = written(deidentified(data, Pseudonyms(KEY)))
    except LeftOut:
        return  # a picture, or a header that lost what it needs: nothing leaves
    assert token.encode() not in out


def vr_of(vr: str) -> str:
    return "LO" if vr in ("SQ", "DS", "UI", "CS") else vr


# ---- whole files, in the child


def exported(
    files: list[Path], out: Path, dates: bool = False
) -> tuple[dict[str, Any], list[Path]]:
    request = {
        **{"files": [str(f) for f in files], "folder": str(out), "key": KEY.hex()},
        **{"dates": dates, "max_bytes": 1 << 28},
    }
    task = "triage.dicom.deidentify_files:deidentify_files"
    answer, _ = child.run(task, request, timeout_s=60, may_write=True)
    return answer, sorted(out.rglob("*.dcm"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, Any]]:
    """Copies of images that say who it is outside the data set, too, and in their pixel data."""
    folder = tmp_path_factory.mktemp("planted")
    common = {"PatientName": f"{NAME}^PHANTOM", "RescaleType": "HU", "BurnedInAnnotation": "NO"}
    image = phantom((24, 20, 1))
    native = write_series(folder / "native", image, **common)
    packed = write_series(folder / "jpeg_2000", image, syntax="jpeg_2000", **common)
    whole = native[0].read_bytes()
    preamble = (NAME * 20).encode()[:128] + whole[128:]  # and bytes behind the pixels
    native[0].write_bytes(preamble)
    data = dcmread(packed[0])
    data.file_meta.SourceApplicationEntityTitle = NAME.upper()
    data.file_meta.PrivateInformationCreatorUID = PLANTED["UI"]
    data.file_meta.PrivateInformation = NAME.encode()
    data.PixelData = with_comment(data.PixelData)
    data.save_as(packed[0])
    data = dcmread(native[0])
    data.PixelData += (NAME * 4).encode()
    data.save_as(native[0])
    out = tmp_path_factory.mktemp("out")
    answer, found = exported([*native, *packed], out)
    assert NAME.encode() in packed[0].read_bytes() and NAME.encode() in native[0].read_bytes()
    return found, answer | {"originals": [*native, *packed]}


def with_comment(encapsulated: bytes) -> bytes:
    """A COM segment behind SOC and SIZ of a JPEG 2000 codestream (ISO 15444-1, A.9.2)."""
    at = encapsulated.index(b"\xff\x4f\xff\x51")
    end = at + 4 + int.from_bytes(encapsulated[at + 4 : at + 6], "big")
    text = NAME.encode() + b"x" * (len(NAME) % 2)
    segment = b"\xff\x64" + (len(text) + 4).to_bytes(2, "big") + b"\x00\x01" + text
    start = at - 4  # the fragment's length
    length = int.from_bytes(encapsulated[start:at], "little") + len(segment)
    return (
        encapsulated[:start]
        + length.to_bytes(4, "little")
        + encapsulated[at:end]
        + segment
        + encapsulated[end:]
    )


def test_no_token_survives_outside_the_data_set(
    files: tuple[list[Path], dict[str, Any]],
) -> None:
    found, answer = files
    assert answer["written"] == len(found) == 2 and not answer["left_out"]
    for path in found:
        assert NAME.lower().encode() not in path.read_bytes().lower()
        assert not any(path.read_bytes()[:128])
        if shutil.which("dcmdump"):
            dump = subprocess.run(["dcmdump", "+L", path], capture_output=True, check=True)
            assert NAME.lower().encode() not in dump.stdout.lower()


def test_pixels_are_the_same_and_uncompressed(files: tuple[list[Path], dict[str, Any]]) -> None:
    found, answer = files
    for path in found:
        new = dcmread(path)
        assert new.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        same = [
            dcmread(old)
            for old in answer["originals"]
            if answer["uids"][str(dcmread(old).SOPInstanceUID)] == new.SOPInstanceUID
        ]
        assert len(same) == 1
        assert np.array_equal(new.pixel_array, same[0].pixel_array)


def test_dciodvfy_finds_no_error(files: tuple[list[Path], dict[str, Any]]) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    for path in files[0]:
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "CTImage" in done.stderr
        assert [x for x in done.stderr.splitlines() if x.startswith("Error")] == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"RecognizableVisualFeatures": "YES"}, "burned_in"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "secondary"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "secondary"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not_ct"),
        ({"PixelSpacing": None}, "unreadable"),
    ],
)
def test_what_may_show_a_name_is_left_out(
    original: Dataset, change: dict[str, Any], code: str
) -> None:
    data = copy_of(original)
    for keyword, value in change.items():
        setattr(data, keyword, value)
    with pytest.raises(LeftOut, match=code):
        deidentified(data, Pseudonyms(KEY))


def test_images_of_another_patient_are_left_out(tmp_path: Path) -> None:
    def other(k: int, item: Dataset) -> None:
        item.PatientID = "T-2" if k == 2 else "T-1"

    made = write_series(tmp_path / "in", phantom((16, 16, 3)), change=other)
    answer, found = exported(made, tmp_path / "out")
    assert answer["left_out"] == {"other_patient": 1} and len(found) == 2


# ---- pseudonyms


def test_uids_are_consistent_valid_and_not_to_be_found_without_the_key() -> None:
    names, others = Pseudonyms(KEY), Pseudonyms(KEY[::-1])
    uid = names.uid("1.2.3.4")
    assert uid == names.uid("1.2.3.4\0") != names.uid("1.2.3.5")
    assert uid != others.uid("1.2.3.4") and uid.startswith("2.25.") and len(uid) <= 64
    assert names.uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"  # registered
    assert names.uid("1.2.840.10008.4711.0815") != "1.2.840.10008.4711.0815"  # only looks like it
    assert names.patient("P1") == names.patient("P1") != others.patient("P1")
    with pytest.raises(ValueError, match="32"):
        Pseudonyms(b"short")


@given(st.dates(), st.integers(1, MOST_DAYS), st.sampled_from(["", "120000", "120000.5+0100"]))
def test_intervals_between_dates_hold(day: Any, days: int, clock: str) -> None:
    text = f"{day.year:04d}{day.month:02d}{day.day:02d}{clock}"
    moved = shifted(text, days)
    if day.toordinal() > days:
        assert moved[8:] == clock.partition("+")[0]
        back = type(day)(int(moved[:4]), int(moved[4:6]), int(moved[6:8]))
        assert (day - back).days == days
    else:
        assert moved == ""


def test_dates_of_a_patient_move_together(original: Dataset) -> None:
    data = copy_of(original)
    data.StudyDate, data.AcquisitionDate, data.PatientBirthDate = "20200101", "20200103", "19700101"
    new = deidentified(data, Pseudonyms(KEY), dates=True)
    study, acquired = (date.fromisoformat(d) for d in (new.StudyDate, new.AcquisitionDate))
    assert (acquired - study).days == 2 and study < date(2020, 1, 1)
    assert new.PatientBirthDate in (None, "")


# ---- the table


def test_another_program_reads_the_standard_alike() -> None:
    """dicom-anonymizer, edition 2024b of the standard: the same action for every attribute."""
    fields = pytest.importorskip(
        "dicomanonymizer.dicom_anonymization_databases.dicomfields_2024b",
        reason="dicom-anonymizer is not installed",
    )
    names = {
        **{"D": "D", "Z": "Z", "X": "X", "U": "U", "Z/D": "Z_D", "X/Z": "X_Z", "X/D": "X_D"},
        **{"X/Z/D": "X_Z_D", "X/Z/U*": "X_Z_U_STAR"},
    }
    theirs = {
        tag[0] << 16 | tag[1]: tuple(action.split("/"))
        for action, name in names.items()
        for tag in getattr(fields, f"{name}_TAGS")
        if len(tag) == 2  # the others are repeating groups: curves and overlays
    }
    ours = profile()
    assert len(theirs) > 600
    assert {f"{t:08X}" for t in theirs if t not in ours or ours[t].actions != theirs[t]} == set()


def test_what_stays_is_not_in_the_profile() -> None:
    kept = {k for k in KEPT if int(tag_of(k)) in profile()}
    assert not kept
    assert set(TYPE_2C).isdisjoint(TYPE_2)


def tag_of(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    return tag_for_keyword(keyword) or 0

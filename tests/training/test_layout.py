"""The reader of the RSNA-2023 layout: nothing is guessed, every contradiction has file and row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small_layout import write_layout
from triage.training.layout import read_layout
from triage.training.layout_tables import LayoutError
from triage.types import TARGETS, Target

HEAD = "patient_id,liver_healthy,liver_low,liver_high"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "data", [True, False, True], slices=2)


def labels(folder: Path, text: str, name: str = "train.csv") -> Path:
    (folder / name).write_text(text)
    return folder


def test_patients_with_their_labels_and_images(folder: Path) -> None:
    data = read_layout(folder)
    assert [p.grades[Target.LIVER] for p in data.patients] == [1, 0, 1]
    assert data.targets == TARGETS
    files = data.patients[0].series[0].files
    assert [f.name for f in files] == ["1.png", "11.png"]
    assert not data.simulated
    assert data.notes == ()


def test_the_names_of_the_public_release_are_known(folder: Path) -> None:
    (folder / "train.csv").rename(folder / "train_2024.csv")
    table = "patient_id,series_id,instance_number,injury_name\n"
    (folder / "image_level_labels_2024.csv").write_text(table)
    assert len(read_layout(folder).patients) == 3
    (folder / "train.csv").write_text((folder / "train_2024.csv").read_text())
    with pytest.raises(LayoutError, match="which one counts"):
        read_layout(folder)


def test_patients_without_images_are_counted_and_named_once(folder: Path) -> None:
    with (folder / "train.csv").open("a") as file:
        file.write("777,1,0,1,0,1,0,0,1,0,0,1,0,0,0\n")
    data = read_layout(folder)
    assert len(data.patients) == 3
    assert data.notes == ("1 labelled patients have no images: 777",)
    with pytest.raises(LayoutError, match="777"):
        read_layout(folder, strict=True)


def test_some_targets_are_enough(folder: Path) -> None:
    text = f"{HEAD}\n100,0,0,1\n101,1,0,0\n102,0,1,0\n"
    data = read_layout(labels(folder, text))
    assert data.targets == (Target.LIVER,)
    assert [p.grades[Target.LIVER] for p in data.patients] == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD},colour\n100,1,0,0,red\n", "train.csv, row 1: columns colour"),
        (f"{HEAD}\n100,1,1,0\n", "row 2: patient 100: exactly one must be 1"),
        (f"{HEAD}\n100,0,0,0\n", "row 2: patient 100: exactly one must be 1"),
        (f"{HEAD}\n100,1,0,0\n100,0,1,0\n", "row 3: patient 100 has other labels in row 2"),
        (f"{HEAD}\n100,1,0,x\n", "row 2: expected 0 or 1 in liver_high, got 'x'"),
        (f"{HEAD}\n100,1,0\n", "row 2: 3 values for 4 columns"),
        ("patient_id,liver_healthy\n100,1\n", "row 1: .*liver"),
        (f"{HEAD},any_injury\n100,0,1,0,0\n", "row 2: patient 100 has an injury, and any_injury"),
        (f"{HEAD}\n../x,1,0,0\n", "row 2: '../x' is no patient_id"),
        ("", "row 1"),
    ],
)
def test_contradictions_name_file_and_row(folder: Path, text: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        read_layout(labels(folder, text))


def test_image_labels_must_fit_the_patients(folder: Path) -> None:
    head = "patient_id,series_id,instance_number,injury_name\n"
    labels(folder, head + "101,9001,1,Bowel\n", "image_level_labels.csv")
    with pytest.raises(LayoutError, match="row 2: patient 101 has no bowel injury"):
        read_layout(folder)
    labels(folder, head + "101,9001,1,Head\n", "image_level_labels.csv")
    with pytest.raises(LayoutError, match="row 2: injury_name 'Head'"):
        read_layout(folder)


def test_nobody_may_be_in_two_folds(folder: Path) -> None:
    labels(folder, "patient_id,fold\n100,0\n101,1\n100,1\n", "folds.csv")
    with pytest.raises(LayoutError, match=r"folds.csv, row 4: .*100 is in fold 1, and in fold 0"):
        read_layout(folder)
    text = "patient_id,fold,person\n100,0,ann\n101,1,ann\n102,1,bob\n"
    with pytest.raises(LayoutError, match="row 3: person ann is in fold 1"):
        read_layout(labels(folder, text, "folds.csv"))


def test_the_real_tables_can_be_read(shared: Path) -> None:
    data = read_layout(shared / "rsna2023")
    assert len(data.patients) == 41
    assert sum(len(s.files) for p in data.patients for s in p.series) == 543
    assert sum(p.grades[Target.SPLEEN] > 0 for p in data.patients) == 13
    assert data.notes[0].startswith("3106 labelled patients have no images")

"""The written data set: layout, bytes, masks, resuming, refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from tests.simulate.conftest import COARSE, SEED
from triage.dicom import decode, open_study
from triage.settings import settings
from triage.simulate.study import SEGMENTATION, write_dataset
from triage.types import Organ, Stack

COLUMNS = {
    "train.csv": "patient_id,bowel_healthy,bowel_injury,extravasation_healthy,"
    "extravasation_injury,kidney_healthy,kidney_low,kidney_high,liver_healthy,liver_low,"
    "liver_high,spleen_healthy,spleen_low,spleen_high,any_injury",
    "image_level_labels.csv": "patient_id,series_id,instance_number,injury_name",
    "train_series_meta.csv": "patient_id,series_id,aortic_hu,incomplete_organ",
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def truths(out: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted(out.glob("train_images/*/truth.json"))]


def hashes(out: Path) -> dict[str, str]:
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def read(out: Path, truth: dict) -> Stack:
    with open_study(out / "train_images" / str(truth["patient_id"]), settings()) as study:
        return decode(study.series[0], settings())


def mask(path: Path, stack: Stack) -> np.ndarray:
    image = nib.load(path)
    assert image.shape == stack.hu.shape
    np.testing.assert_allclose(image.affine, stack.affine, atol=1e-3)
    return np.asarray(image.dataobj)


def world_x(found: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (affine[:3, :3] @ np.argwhere(found).T)[0] + affine[0, 3]


def test_columns_are_those_of_the_challenge(dataset: Path, shared: Path) -> None:
    for name, columns in COLUMNS.items():
        assert (dataset / name).read_text().splitlines()[0] == columns
        with (shared / "rsna2023" / name).open() as file:
            assert file.readline().strip() == columns


def test_labels_agree_with_truth_and_masks(dataset: Path) -> None:
    labels = {row["patient_id"]: row for row in rows(dataset / "train.csv")}
    images = rows(dataset / "image_level_labels.csv")
    for truth in truths(dataset):
        row = labels[str(truth["patient_id"])]
        assert row["any_injury"] == str(int(any(truth["grades"].values())))
        stack = read(dataset, truth)
        for target, grade in truth["grades"].items():
            levels = [c for c in row if c.startswith(f"{target}_")]
            assert [int(row[c]) for c in levels] == [int(i == grade) for i in range(len(levels))]
            path = dataset / "lesions" / f"{truth['series_id']}_{target}.nii.gz"
            assert path.exists() == bool(grade)
            name = {"bowel": "Bowel", "extravasation": "Active_Extravasation"}.get(target)
            if grade and name:
                injured = np.flatnonzero(mask(path, stack).any((0, 1)))
                expected = {stack.instances[k].instance_number for k in injured}
                listed = {
                    int(i["instance_number"])
                    for i in images
                    if i["patient_id"] == row["patient_id"] and i["injury_name"] == name
                }
                assert listed == expected


def test_reader_knows_the_patient_is_simulated(dataset: Path) -> None:
    truth = truths(dataset)[0]
    with open_study(dataset / "train_images" / str(truth["patient_id"]), settings()) as study:
        (series,) = study.series
        assert series.simulated
        assert study.study_instance_uid == truth["uid"]["study"]
        assert len(series.instances) == truth["matrix"][2]


def test_the_header_has_the_sex_of_the_body(dataset: Path) -> None:
    for truth in truths(dataset):
        folder = dataset / "train_images" / str(truth["patient_id"]) / str(truth["series_id"])
        header = dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True)
        assert header.PatientSex == ("F" if truth["person"]["female"] else "M")
        assert header.SyntheticData == "YES"


def test_aorta_is_where_its_label_is(dataset: Path) -> None:
    meta = {row["patient_id"]: row for row in rows(dataset / "train_series_meta.csv")}
    for truth in truths(dataset):
        stack = read(dataset, truth)
        organs = mask(dataset / "segmentations" / f"{truth['series_id']}.nii.gz", stack)
        aorta = float(stack.hu[organs == SEGMENTATION[Organ.AORTA]].mean())
        assert float(meta[str(truth["patient_id"])]["aortic_hu"]) == pytest.approx(aorta, abs=0.01)


def test_sides_are_the_patients(dataset: Path) -> None:
    for truth in truths(dataset):
        stack = read(dataset, truth)
        organs = mask(dataset / "segmentations" / f"{truth['series_id']}.nii.gz", stack)

        def x(*wanted: Organ, organs: np.ndarray = organs, stack: Stack = stack) -> float:
            labels = [SEGMENTATION[o] for o in wanted]
            return float(world_x(np.isin(organs, labels), stack.affine).mean())

        spine = x(Organ.SPINE)
        assert x(Organ.SPLEEN) < x(Organ.KIDNEY_LEFT) < spine  # RAS+: left is negative
        assert spine < x(Organ.KIDNEY_RIGHT) < spine + 120 and x(Organ.LIVER) > spine


def test_left_kidney_injury_lies_on_the_left(dataset: Path) -> None:
    seen = 0
    for truth in truths(dataset):
        sides = {i["organ"] for i in truth["lesions"] if i["target"] == "kidney"}
        if len(sides) != 1:
            continue
        seen += 1
        stack = read(dataset, truth)
        organs = mask(dataset / "segmentations" / f"{truth['series_id']}.nii.gz", stack)
        lesion = mask(dataset / "lesions" / f"{truth['series_id']}_kidney.nii.gz", stack)
        spine = world_x(organs == SEGMENTATION[Organ.SPINE], stack.affine).mean()
        left = world_x(lesion > 0, stack.affine) < spine
        assert left.mean() == (sides == {"kidney_left"})
    assert seen, "the seed of this test must give at least one kidney injury"


def test_same_seed_same_bytes_even_when_interrupted(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"

    def stop(done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(out, 3, SEED, **COARSE, progress=stop)
    number = SEED * 100_000 + 2
    (out / "train_images" / f".{number}.part").mkdir()  # what a killed run leaves
    with (out / "train.csv").open("a") as file:
        file.write(f"{number},1,0")
    made = (out / "train_images" / str(number - 1) / "truth.json").stat().st_mtime_ns
    write_dataset(out, 3, SEED, **COARSE)
    assert (out / "train_images" / str(number - 1) / "truth.json").stat().st_mtime_ns == made
    assert hashes(out) == hashes(dataset)


def test_other_settings_and_foreign_data_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="other settings"):
        write_dataset(dataset, 1, SEED, **{**COARSE, "injured": None})
    (tmp_path / "train.csv").write_text(COLUMNS["train.csv"] + "\n10004" + ",0" * 14 + "\n")
    before = (tmp_path / "train.csv").read_bytes()
    with pytest.raises(FileExistsError, match="10004"):
        write_dataset(tmp_path, 1, SEED, **COARSE)
    assert (tmp_path / "train.csv").read_bytes() == before
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train_images" / str(SEED * 100_000 + 1)).mkdir(parents=True)
    with pytest.raises(FileExistsError, match="not simulated"):
        write_dataset(tmp_path, 1, SEED, **COARSE)


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"seed": -1}, {"matrix": 8}])
def test_senseless_settings_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match="Expected 1 to"):
        write_dataset(**{"out": tmp_path, "patients": 1, "seed": 1, **wrong})


def test_a_real_background_keeps_its_own_voxels(shared: Path, tmp_path: Path) -> None:
    ct = shared / "ct"
    (row,) = write_dataset(
        tmp_path,
        1,
        5,
        background=ct / "portal_abdomen_dicom",
        labels=ct / "portal_abdomen_organs.nii.gz",
        **COARSE,
    )
    (truth,) = truths(tmp_path)
    stack = read(tmp_path, truth)
    organs = mask(tmp_path / "segmentations" / f"{truth['series_id']}.nii.gz", stack)
    assert row["any_injury"] == 1
    assert truth["phase"] == "portal_venous" and "aorta" not in truth["known_organs"]
    assert rows(tmp_path / "train_series_meta.csv")[0]["aortic_hu"] == ""
    assert 60 < np.median(stack.hu[organs == SEGMENTATION[Organ.LIVER]]) < 150
    shutil.rmtree(tmp_path)

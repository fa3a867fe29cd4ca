"""Options of `triage simulate`: what they do to the patients, and what wrong use answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from triage.cli.common import Exit, target_shares
from triage.cli.main import call
from triage.cli.simulate import read_spacing
from triage.types import Target

QUICK = ["--spacing", "8,8,10", "--matrix", "64"]


def truths(out: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted(out.glob("train_images/*/truth.json"))]


def test_options_reach_the_patients(tmp_path: Path) -> None:
    options = ["--patients", "2", "--phase", "delayed", "--prevalence", "liver=1", "--workers", "2"]
    assert call(["simulate", str(tmp_path), "--seed", "4", *options, *QUICK]) == Exit.OK
    found = truths(tmp_path)
    assert [t["phase"] for t in found] == ["delayed", "delayed"]
    assert all(t["case"]["liver"] for t in found)
    assert all(t["matrix"][0] == 64 and t["settings"]["spacing"] == [8, 8, 10] for t in found)
    with (tmp_path / "train.csv").open() as file:
        ids = [int(row["patient_id"]) for row in csv.DictReader(file)]
    assert ids == [400001, 400002]


def test_workers_change_no_byte(tmp_path: Path) -> None:
    for name, workers in (("alone", "0"), ("crew", "2")):
        options = ["--patients", "2", "--seed", "5", "--enriched", "0.8", "--workers", workers]
        assert call(["simulate", str(tmp_path / name), *options, *QUICK]) == Exit.OK
    one, two = (
        {
            str(p.relative_to(tmp_path / n)): p.read_bytes()
            for p in (tmp_path / n).rglob("*.*")
            if p.is_file()
        }
        for n in ("alone", "crew")
    )
    assert one == two


def test_a_protocol_is_named_in_the_truth(tmp_path: Path) -> None:
    options = ["--protocol", "test", "--uninjured"]
    assert call(["simulate", str(tmp_path), *options, *QUICK]) == Exit.OK
    (truth,) = truths(tmp_path)
    assert truth["protocol"] == "1" and truth["settings"]["protocol_version"] == "1"
    assert not any(truth["grades"].values())


def labels(path: Path, value: int) -> str:
    nib.save(nib.Nifti1Image(np.full((40, 40, 30), value, np.uint8), np.diag([5, 5, 5, 1.0])), path)
    return str(path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prevalence", "liver=2"], "one share from 0 to 1"),
        (["--prevalence", "pancreas=0.5"], "Expected TARGET=SHARE such as liver=0.5"),
        (["--prevalence", "liver=0.5", "--enriched", "0.5"], "got both"),
        (["--prevalence", "liver"], "Expected TARGET=SHARE"),
        (["--enriched", "0", "--injured"], "every injury has a prevalence of 0"),
        (["--enriched", "0.4", "--uninjured"], "leave it out"),
        (["--phase", "late"], "plain"),
        (["--protocol", "9"], "no test protocol"),
        (["--spacing", "2,3"], "one or three spacings"),
        (["--spacing", "0"], "0.5 to 10 mm"),
        (["--matrix", "8"], "32"),
        (["--background", "."], "needs the labels"),
    ],
)
def test_wrong_use_is_said(
    tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["simulate", str(tmp_path / "out"), *options]) == Exit.USAGE
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path).rglob("*.dcm"))


def test_backgrounds_that_cannot_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(np.full((40, 40, 31), 60, np.int16), np.diag([5, 5, 5, 1.0])), ct)
    for value, background, says in (
        (5, ct, "same shape"),
        (200, None, "Unknown label 200"),
        (52, None, "No liver, spleen or kidney"),
        (5, None, "too few to render"),
        (5, tmp_path / "empty", "cannot serve as a background"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        options = ["--labels", labels(tmp_path / "labels.nii.gz", value)]
        options += ["--background", str(background)] if background else []
        assert call(["simulate", str(tmp_path / "out"), *options]) == Exit.USAGE
        assert says in " ".join(capsys.readouterr().err.split())


def test_rates_and_spacings_are_read() -> None:
    assert target_shares(["liver=0.5", "bowel=0"]) == {Target.LIVER: 0.5, Target.BOWEL: 0.0}
    assert read_spacing("2") == (2, 2, 2) and read_spacing("1.2,1.2,2.5") == (1.2, 1.2, 2.5)
    with pytest.raises(ValueError, match="one share"):
        target_shares(["liver=0.5", "liver=0.4"])

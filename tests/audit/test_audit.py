"""Planted faults in a small set are found, and a stopped audit goes on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from triage.audit import hashes
from triage.audit.examine import Eyes
from triage.audit.run import RECORDS, audit
from triage.audit.sheet import write_csv, write_html
from triage.audit.suspicions import Suspicion, suspicions
from triage.audit.tables import Tables, read
from triage.inference.quality import installed
from triage.settings import Settings
from triage.training.pose import limbs

HEADER = (
    "patient_id,bowel_healthy,bowel_injury,extravasation_healthy,extravasation_injury,"
    "liver_healthy,liver_low,liver_high,any_injury\n"
)


def draw(path: Path, make: Callable[[np.random.Generator], np.ndarray], seed: int) -> None:
    """One windowed slice as a picture, as readers see it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = make(np.random.default_rng(seed))
    grey = ((hu.clip(-160, 240) + 160) / 400 * 255).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(grey.T[::-1, ::-1])).resize((192, 192)).save(path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for patient, make in (("1", limbs.thighs), ("2", limbs.head), ("3", limbs.thighs)):
        for k in range(3):
            seed = 10 * (1 if make is limbs.thighs else 2) + k  # 1 and 3 are the same person
            draw(root / "train_images" / patient / f"{patient}0" / f"{k + 1}.png", make, seed)
    (root / "train.csv").write_text(
        HEADER + "1,1,0,1,0,1,0,0,0\n2,1,0,0,1,1,1,0,0\n3,1,0,1,0,1,0,0,0\n"
    )
    (root / "image_level_labels.csv").write_text(
        "patient_id,series_id,instance_number,injury_name\n1,10,2,Bowel\n"
    )
    return root


def test_planted_faults_are_found_and_nothing_is_looked_at_twice(
    archive: Path, tmp_path: Path
) -> None:
    nets = installed()
    if nets is None:
        pytest.skip("models/quality is not there")
    eyes, out, steps = Eyes(nets, None, Settings()), tmp_path / "out", []
    first = audit(archive, out, eyes, lambda stage, share: steps.append(share))
    assert (first.looked, first.reused, first.unreadable) == (3, 0, 0)
    assert steps[0] == 0 and steps == sorted(steps)
    rows = list(csv.DictReader(first.csv.open()))
    kinds = {(r["kind"], r["patient"]) for r in rows}
    assert {("not_abdomen", "1"), ("not_abdomen", "2"), ("duplicate_patient", "1")} <= kinds
    said = " ".join(r["detail"] for r in rows if r["kind"] == "contradiction")
    assert "image 2 is labelled bowel" in said and "liver do not sum to 1" in said
    assert "labelled extravasation, no image" in said and "any_injury" in said
    assert ("duplicate_patient", "2") not in kinds
    with (out / RECORDS).open("a") as stream:
        stream.write('[{"key": "cut of')  # killed while writing
    draw(archive / "train_images" / "2" / "20" / "1.png", limbs.head, 99)
    again = audit(archive, out, eyes)
    assert (again.looked, again.reused) == (3, 2)


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    nets = installed()
    if nets is None:
        pytest.skip("models/quality is not there")
    place = tmp_path / "set" / "7" / "70"
    place.mkdir(parents=True)
    (place / "1.png").write_bytes(b"no picture")
    (tmp_path / "set" / "x.nii.gz").write_bytes(b"no volume")
    found = audit(tmp_path / "set", tmp_path / "out", Eyes(nets, None, Settings()))
    assert [s.kind for s in found.found] == ["unreadable", "unreadable"]


def test_phase_and_organs_are_held_against_tables_and_words(tmp_path: Path) -> None:
    (tmp_path / "train_series_meta.csv").write_text(
        "patient_id,series_id,aortic_hu,incomplete_organ\n1,10,310,0\n1,11,-1000,0\n"
    )
    base = {"patient": "1", "path": "p", "kind": "dicom"}
    one = {**base, "series": "10", "key": "a", "phase": "portal_venous", "aorta_hu": 150.0}
    one |= {"incomplete": ["liver"], "description": "ARTERIAL abdomen"}
    two = {**base, "series": "11", "key": "b", "phase": "arterial", "aorta_hu": 300.0}
    found = suspicions([one, two], read(tmp_path))
    assert sorted(s.kind for s in found) == ["contradiction", "incomplete_organ", "phase", "phase"]
    assert suspicions([{**two, "description": "CTA"}], Tables()) == []


def test_hashes_know_the_same_body_and_no_other() -> None:
    one, other = (torch.from_numpy(limbs.head(np.random.default_rng(k))) for k in (3, 5))
    same = hashes.picture_hash(one)
    noisy = hashes.picture_hash(one + 8 * torch.randn(one.shape))
    assert hashes.differ(same, noisy) < 0.1 < hashes.differ(same, hashes.picture_hash(other))
    assert np.array_equal(hashes.parsed(hashes.text(same)), same)
    table = np.stack([same, hashes.picture_hash(other), same])
    assert [(i, j) for i, j, _ in hashes.alike(table, 0.02)] == [(0, 2)]


def test_what_a_header_says_is_no_formula_and_no_markup(tmp_path: Path) -> None:
    bad = Suspicion("phase", 0.5, "=cmd()", "<b>s</b>", "", "<script>x</script>", "p")
    text = write_csv([bad], tmp_path / "a.csv").read_text()
    assert "'=cmd()" in text
    page = write_html([bad], tmp_path / "a.html", tmp_path, 1, 0).read_text()
    assert "<script>" not in page and "<b>s</b>" not in page

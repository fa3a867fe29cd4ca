"""`triage evaluate` on tables of scores and on a folder of images."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_evaluation import rows
from triage.cli.common import Exit
from triage.cli.main import call
from triage.nets.bundle import find_bundle


def write(path: Path, volume: bool = True) -> Path:
    some = [{**row, "score": row["ensemble"]} for row in rows(60, 2, volume=volume)]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(some[0]))
        writer.writeheader()
        writer.writerows(some)
    return path


def evaluate(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "out"
    assert call(["evaluate", *arguments, "--out", str(out)]) == Exit.OK
    assert (out / "index.html").is_file() and (out / "roc_liver.png").is_file()
    return dict(json.loads((out / "metrics.json").read_text()))


@pytest.fixture(scope="module")
def bundle() -> str:
    try:
        return str(find_bundle("reference"))
    except Exception:
        pytest.skip("no reference bundle in this tree")


def test_a_table_with_a_bundles_cutoffs(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate(tmp_path, str(write(tmp_path / "s.csv")), "--model", bundle)
    assert metrics["bundle"]["name"] and metrics["targets"]["liver"]["rule_out"]["sensitivity"]
    assert metrics["cutoffs"]["targets"].keys() == metrics["targets"].keys()
    assert metrics["source"] == {"data": "s.csv", "prevalence": "as-is"}
    assert "AUC" in capsys.readouterr().out


def test_a_table_of_slices_only(tmp_path: Path, bundle: str) -> None:
    scores = write(tmp_path / "s.csv", volume=False)
    metrics = evaluate(tmp_path, str(scores), "--model", bundle)
    assert metrics["data"]["input"] == "slices only, 2D branch"
    assert "slices only, 2D branch" in (tmp_path / "out" / "index.html").read_text()


def test_a_table_with_cutoffs_of_its_own(tmp_path: Path) -> None:
    scores, own = str(write(tmp_path / "s.csv")), tmp_path / "cutoffs.json"
    assert call(["cutoffs", scores, "--out", str(own)]) == Exit.OK
    metrics = evaluate(tmp_path, scores, "--cutoffs", str(own), "--prevalence", "natural")
    assert metrics["targets"]["liver"]["rule_out"]["missed"] == 0
    assert metrics["data"]["prevalence"]["bowel"] < 0.03


@pytest.mark.parametrize("wrong", ["model", "both", "json", "row"])
def test_wrong_use_is_said_in_one_line(
    tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, out, bad = write(tmp_path / "s.csv"), tmp_path / "out", tmp_path / "bad.json"
    bad.write_text("[]" if wrong == "both" else "{")
    if wrong == "row":
        scores.write_text(scores.read_text().replace("liver", "lung", 1))
    more = {
        "model": ["--model", "nowhere"],
        "both": ["--model", "reference", "--cutoffs", str(bad)],
        "json": ["--cutoffs", str(bad)],
        "row": [],
    }[wrong]
    assert call(["evaluate", str(scores), "--out", str(out), *more]) == Exit.USAGE
    assert "Traceback" not in capsys.readouterr().err and not out.exists()


def test_a_folder_of_real_single_images(tmp_path: Path, bundle: str, shared: Path) -> None:
    source, data = shared / "rsna2023", tmp_path / "data"
    if not source.is_dir():
        pytest.skip(f"real images not found at {source}")
    (data / "train_images").mkdir(parents=True)
    labels = (source / "train.csv").read_text().splitlines()
    wanted = sorted(p.name for p in (source / "train_images").iterdir())[:3]
    kept = [line for line in labels[1:] if line.split(",")[0] in wanted]
    (data / "train.csv").write_text("\n".join([labels[0], *kept]) + "\n")
    for name in wanted:
        shutil.copytree(source / "train_images" / name, data / "train_images" / name)
        for series in (data / "train_images" / name).iterdir():
            for image in sorted(series.iterdir())[4:]:  # a few will do
                image.unlink()
    out = tmp_path / "out"
    assert call(["evaluate", str(data), "--model", bundle, "--out", str(out)]) == Exit.OK
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["data"]["patients"] == 3
    assert metrics["data"]["input"] == "slices only, 2D branch"
    assert metrics["targets"]["bowel"]["patients"] == 3
    assert len(list(out.glob("scores_*.csv"))) == 1

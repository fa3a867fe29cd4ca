"""`triage cutoffs`: from a table to cutoffs.json, and one clear line for what cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from triage.cli.common import Exit
from triage.cli.main import call


def write(path: Path, patients: int = 200, seed: int = 0, target: str = "liver") -> Path:
    rng = np.random.default_rng(seed)
    lines = ["patient_id,target,label,score"]
    for i in range(patients):
        label = int(rng.random() < 0.3)
        lines += [
            f"p{i},{target},{label},{rng.normal() * 30 + 60 * label:.6f}" for _ in range(1 + i % 2)
        ]
        lines.append(f"p{i},spleen,{label},{rng.normal() + label:.6f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def fit(tmp_path: Path, scores: Path, *more: str) -> dict[str, Any]:
    out = tmp_path / "new" / "cutoffs.json"
    assert call(["cutoffs", str(scores), "--out", str(out), *more]) == Exit.OK
    return dict(json.loads(out.read_text()))


def test_cutoffs_are_in_the_scale_of_the_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write(tmp_path / "scores.csv")
    found = fit(tmp_path, scores, "--calibrated-on", "real", "--plots", str(tmp_path / "plots"))
    assert found["calibrated_on"] == "real" and found["scale"] == "score (logit)"
    worst: dict[str, tuple[int, float]] = {}
    for line in scores.read_text().splitlines()[1:]:
        patient, target, label, score = line.split(",")
        if target == "liver":
            before = worst.get(patient, (0, -np.inf))[1]
            worst[patient] = (int(label), max(before, float(score)))
    positive = [score for label, score in worst.values() if label]
    liver = found["targets"]["liver"]
    assert liver["rule_out"] == {
        "cutoff": min(positive),
        "sensitivity_lower_bound": pytest.approx(0.05 ** (1 / len(positive))),
        "positives": len(positive),
    }
    assert liver["certified"] and liver["rule_in"]["cutoff"] > 10
    assert 0 < liver["calibration"]["slope"] < 0.2
    assert liver["prevalence"] == len(positive) / 200
    printed = capsys.readouterr()
    assert "free of the judged targets (liver, spleen)" in printed.out and not printed.err
    for name in ("roc_liver.png", "roc_spleen.png"):
        assert Image.open(tmp_path / "plots" / name).size[0] > 500


def test_nobody_said_where_the_patients_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fit(tmp_path, write(tmp_path / "scores.csv"), "--prevalence", "natural")
    assert found["calibrated_on"] == "simulated"
    assert found["targets"]["liver"]["prevalence"] == pytest.approx(0.1, abs=0.01)
    assert "--calibrated-on was not given" in capsys.readouterr().err


def test_few_or_no_positives_certify_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.csv"
    lines = [f"p{i},liver,{int(i < 5)},{i % 7}" for i in range(60)]
    lines += [f"p{i},spleen,0,{i % 5}" for i in range(60)]
    path.write_text("\n".join(["patient_id,target,label,score", *lines]) + "\n")
    found = fit(tmp_path, path, "--calibrated-on", "real")["targets"]
    assert found["liver"]["certified"] is False and found["liver"]["rule_out"]["positives"] == 5
    assert found["spleen"]["rule_out"] is None and found["spleen"]["certified"] is False
    assert found["spleen"]["rule_in"]["cutoff"] > 0 and found["spleen"]["calibration"] is None
    printed = capsys.readouterr().out
    assert "liver: 5 positives are too few" in printed and "uncertified" in printed
    assert "spleen: no positives: no rule-out cutoff" in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient_id,target,label,score\na,liver,1,nan\n", "row 2: no score"),
        ("patient_id,target,label,score\na,lung,1,1\n", "row 2: unknown target"),
        ("patient_id,target,label,score\na,liver,1,1\na,liver,0,1\n", "row 3: patient"),
        ("patient_id,target,label,score\na,liver,0,1\n", "at least one positive"),
        ("patient_id,target,label,score,lable\na,liver,1,1,0\n", "unknown column"),
        ("patient,target,label,score\na,liver,1,1\n", "missing column patient_id"),
        ("", "missing column"),
    ],
)
def test_what_cannot_be_used_is_wrong_use_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path, out = tmp_path / "scores.csv", tmp_path / "cutoffs.json"
    path.write_text(text)
    assert call(["cutoffs", str(path), "--out", str(out)]) == Exit.USAGE
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert said in printed and "Traceback" not in printed and not out.exists()


def test_a_bad_prevalence_is_wrong_use(tmp_path: Path) -> None:
    scores, out = write(tmp_path / "s.csv"), tmp_path / "c.json"
    for wrong in ("liver=2", "half"):
        code = call(["cutoffs", str(scores), "--out", str(out), "--prevalence", wrong])
        assert code == Exit.USAGE


def test_it_needs_no_torch(tmp_path: Path) -> None:
    scores, out = write(tmp_path / "s.csv"), tmp_path / "c.json"
    program = (
        "import sys; from triage.cli.main import call; "
        f"code = call(['cutoffs', {str(scores)!r}, '--out', {str(out)!r}]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

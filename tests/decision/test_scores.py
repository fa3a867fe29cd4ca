"""Score tables: a patient counts once, and what contradicts itself is refused by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triage.decision.score_cells import ScoreError
from triage.decision.scores import ScoreTable, from_rows, read_scores
from triage.types import TARGETS, Target

HEAD = "patient_id,target,label,score"


def read(tmp_path: Path, *lines: str) -> ScoreTable:
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_scores(path)


def test_the_worst_series_counts_and_targets_keep_their_order(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "\ufeffpatient_id,series_id,target,label,score,assessed,grade",
        "b,1,spleen,1,0.3,1,2",
        "b,2,spleen,1,0.9,1,1",
        "b,3,spleen,1,0.99,0,1",
        "a,1,Liver,0,-2,1,",
        "a,1,spleen,0,,0,0",
    )
    assert table.patients == ("b", "a") and table.targets == (Target.LIVER, Target.SPLEEN)
    np.testing.assert_array_equal(table.scores, [[np.nan, 0.9], [-2, np.nan]])
    np.testing.assert_array_equal(table.labels, [[np.nan, 1], [0, 0]])
    np.testing.assert_array_equal(table.highest("grade"), [[np.nan, 2], [np.nan, 0]])
    assert table.healthy.tolist() == [False, True]
    assert table.persons == ("b", "a")


def test_an_injury_that_was_not_judged_makes_nobody_healthy(tmp_path: Path) -> None:
    lines = ["a,liver,0,0.5,1", "b,liver,0,0.5,0", "c,liver,1,0.5,1", "d,liver,0,0.5,0"]
    table = read(tmp_path, HEAD + ",any_injury", *lines)
    assert table.healthy.tolist() == [False, True, False, True]
    assert table.healthy_means == "without any injury"
    unknown = read(tmp_path, HEAD + ",any_injury", *lines[:3], "d,liver,0,0.5,")
    assert unknown.healthy.tolist() == [False, True, False, True]
    assert unknown.healthy_means == "free of the judged targets (liver)"
    rows = [f"{p},{t},0,0.5" for p in "ab" for t in TARGETS]
    assert read(tmp_path, HEAD, *rows).healthy_means == "without any injury"


def test_weights_are_of_patients(tmp_path: Path) -> None:
    lines = ["a,liver,0,0.5,2.5", "b,liver,1,0.5,0.1", "a,spleen,0,0.5,2.5"]
    assert read(tmp_path, HEAD + ",weight", *lines).weights.tolist() == [2.5, 0.1]  # type: ignore[union-attr]
    assert read(tmp_path, HEAD + ",weight", "a,liver,0,0.5,").weights is None
    assert read(tmp_path, HEAD, "a,liver,0,0.5").weights is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEAD], "rows below the header"),
        ([HEAD.replace("score", "scores"), "a,liver,1,0.5"], "row 1: missing column score"),
        ([HEAD + ",lesion", "a,liver,1,0.5,3"], "row 1: unknown column 'lesion'"),
        ([HEAD + ",score", "a,liver,1,0.5,3"], "row 1: a column occurs twice"),
        ([HEAD, "a,liver,1,0.5", "a,lung,0,0.1"], "row 3: unknown target 'lung'"),
        (
            [HEAD, "a,liver,1,0.5", "a,liver,0,0.4"],
            "row 3: patient 'a' has label 0 for liver.*row 2",
        ),
        ([HEAD + ",any_injury", "a,liver,1,0.5,2"], "row 2: expected any_injury 0 or 1"),
        ([HEAD + ",any_injury", "a,liver,1,0.5,0"], "row 2: label 1 contradicts any_injury 0"),
        (
            [HEAD + ",any_injury", "a,liver,0,0.5,0", "a,spleen,0,0.5,1"],
            "row 3: patient 'a' has another any_injury in row 2",
        ),
        ([HEAD + ",weight", "a,liver,0,0.5,0"], "row 2: expected a weight above 0, got 0"),
        (
            [HEAD + ",weight", "a,liver,0,0.5,1", "a,spleen,0,0.5,2"],
            "row 3: patient 'a' has another weight in row 2",
        ),
        (
            [HEAD + ",weight", "a,liver,0,0.5,1", "b,liver,0,0.5,"],
            "row 3: patient 'b' has no weight, but others have one",
        ),
        ([HEAD, "a,liver,1,nan"], "row 2: no score"),
        ([HEAD, "a,liver,1,"], "row 2: no score"),
        ([HEAD, "a,liver,1,inf"], "row 2: expected a finite number as score"),
        ([HEAD, "a,liver,1,high"], "row 2: expected a number as score"),
        ([HEAD, "a,liver,2,0.1"], "row 2: expected label 0 or 1"),
        ([HEAD, "a,liver,,0.1"], "row 2: expected label 0 or 1"),
        ([HEAD, "a,liver,1"], "row 2: more or fewer cells"),
        ([HEAD, "a,liver,1,0.1,7"], "row 2: more or fewer cells"),
        ([HEAD, " ,liver,1,0.1"], "row 2: no patient_id"),
        ([HEAD + ",grade", "a,liver,1,0.1,0"], "row 2: label 1 contradicts grade 0"),
        ([HEAD + ",grade", "a,liver,1,0.1,3"], "row 2: expected grade 0, 1"),
        ([HEAD + ",assessed", "a,liver,1,0.1,maybe"], "row 2: expected a number as assessed"),
        ([HEAD + ",person", "a,liver,1,0.1,x", "a,spleen,1,0.1,y"], "row 3: patient 'a' is person"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_row(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(ScoreError, match=said):
        read(tmp_path, *lines)


def test_labels_may_differ_between_series_and_that_is_said(tmp_path: Path) -> None:
    table = read(
        tmp_path, "patient_id,series_id,target,label,score", "a,1,liver,0,0.1", "a,2,liver,1,0.2"
    )
    assert table.labels.tolist() == [[1.0]] and "different labels" in table.notes[0]


def test_no_csv_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ScoreError, match="UTF-8"):
        read_scores(path)


def test_rows_in_memory_may_hold_branches_alone() -> None:
    row = {"patient_id": 1, "target": Target.LIVER, "label": 1, "ensemble": -1.5, "volume": None}
    assert from_rows([row]).scores.tolist() == [[-1.5]]

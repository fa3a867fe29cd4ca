"""`triage explain`: what it says of a folder that it cannot explain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triage.cli.main import call


def test_a_folder_without_a_report_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["explain", str(tmp_path), "--method", "gradcam"]) == 2
    assert "report folder" in capsys.readouterr().err
    (tmp_path / "report.json").write_text(json.dumps({"status": "not_analysed"}))
    assert call(["explain", str(tmp_path), "--method", "gradcam"]) == 2
    assert "not_analysed" in capsys.readouterr().err


def test_methods_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["explain", str(tmp_path), "--method", "magic"]) == 2
    assert "occlusion" in capsys.readouterr().err

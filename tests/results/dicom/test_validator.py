"""PixelMed's DicomSRValidator and the SRs. `scripts/orthanc-round-trip` runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Java limits XPath by default to less than the validator's stylesheet needs.
LIMITS = " ".join(f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp"))


@pytest.mark.long
@pytest.mark.parametrize("name", ["sr.dcm", "sr_hot_spots.dcm"])
def test_no_error_against_the_templates(objects: list[Path], name: str) -> None:
    if shutil.which("DicomSRValidator") is None:
        pytest.skip("DicomSRValidator is not installed (Debian: pixelmed-apps)")
    path = next(p for p in objects if p.name == name)
    done = subprocess.run(
        ["DicomSRValidator", path],
        capture_output=True,
        text=True,
        env=os.environ | {"JAVA_TOOL_OPTIONS": LIMITS},
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Found Root Template TID_1500" in said
    assert "Root Template Validation Complete" in said
    assert [line for line in said.splitlines() if line.startswith("Error")] == []

"""Weights that were exchanged or cut short: no verdict, and the service says so."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.dicom import write
from triage.nets.bundle import BundleError, find_bundle, read_manifest
from triage.service.ready import Bundle
from triage.service.workflow import analysis
from triage.settings import Settings


def swapped(
    folder: Path, rounds: int, seed: int = 8, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """A file of the shipped bundle is damaged, cut or exchanged; the worker's own analysis runs."""
    dice = random.Random(seed)  # noqa: S311 - which file, no secret
    figures = {"rounds": rounds, "refused": 0, "verdicts": 0}
    series = folder / "series"
    write.write_series(series, write.turned(write.phantom(), "LPS"))
    good = find_bundle("reference")
    files = sorted(
        f for f in read_manifest(good).files if f.endswith((".safetensors", "cutoffs.json"))
    )
    for number in range(rounds):
        bad = folder / "bundle"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        _damage(bad / dice.choice(files), files, bad, dice)
        settings = Settings(home=folder / "home", model=str(bad), prewarm=False, threads=1)
        out = folder / f"out{number}"
        out.mkdir()
        try:
            analysis.load(settings)(series, out, lambda stage, share: None)
        except BundleError:
            figures["refused"] += 1
        report = out / "report.json"
        if report.exists() and json.loads(report.read_text())["targets"]:
            figures["verdicts"] += 1
        assert Bundle(str(bad)).check() != "ok", "/readyz would be green"
    tell(str(figures))
    assert figures["refused"] == rounds and not figures["verdicts"], figures
    return figures


def _damage(path: Path, files: list[str], bundle: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    how = dice.choice(("flip", "cut", "exchange"))
    if how == "flip":
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif how == "cut":
        del content[dice.randrange(len(content)) :]
    else:
        other = dice.choice([f for f in files if bundle / f != path])
        content = bytearray((bundle / other).read_bytes())
    path.write_bytes(bytes(content))

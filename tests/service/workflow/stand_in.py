"""A quick stand-in for the pipeline: the study's images are JSON and say what shall happen.

Keys: `verdict` of every target; `once` and `always`: "crash", "hang", "error", "full" (at the first
try, at each); `wait_for`: a file that must appear before the analysis ends. Every start is noted as
a line in `log`, so that a test can count them.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from triage.results.report import write_report
from triage.service.workflow.child import Analyse, Progress
from triage.settings import Settings
from triage.types import (
    TARGETS,
    BundleRef,
    Cutoff,
    Finding,
    Phase,
    Priority,
    Report,
    SeriesUsed,
    Status,
    Target,
    Verdict,
)

SERIES = "1.2.3.4"
PROBABILITY = {Verdict.SUSPECTED: 0.9, Verdict.NOT_EXCLUDED: 0.3, Verdict.NO_FINDING: 0.01}


def load(settings: Settings) -> Analyse:
    return run


def run(source: Path, out: Path, progress: Progress) -> None:
    orders: dict[str, Any] = {}
    for path in sorted(source.iterdir()):
        orders |= json.loads(path.read_text())
    with Path(orders["log"]).open("a") as file:
        file.write(f"{orders['name']}\n")
    progress("reading", 0.1)
    tries = Path(orders["log"]).read_text().splitlines().count(orders["name"])
    _misbehave(orders.get("always") or (orders.get("once") if tries == 1 else None))
    if wait_for := orders.get("wait_for"):
        while not Path(wait_for).exists():
            time.sleep(0.01)
    time.sleep(orders.get("seconds", 0.0))
    progress("slices", 0.5)
    write_report(report(orders["name"], Verdict(orders.get("verdict", "no_finding"))), out)
    (out / "overlays").mkdir()
    (out / "overlays" / "liver.png").write_bytes(b"picture")


def _misbehave(how: str | None) -> None:
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hang":
        signal.pause()
    elif how == "error":
        raise ValueError("as ordered")
    elif how == "full":
        raise OSError(errno.ENOSPC, "as ordered")
    elif how == "memory":
        hoard = bytearray(400 << 20)
        hoard[::4096] = b"x" * len(hoard[::4096])
        signal.pause()


def report(uid: str, verdict: Verdict) -> Report:
    """A sound report that says `verdict` of every target."""
    rule_out, rule_in = Cutoff(0.1, 0.95, 59), Cutoff(0.5, specificity=0.95)
    findings = {
        target: Finding(
            target,
            verdict,
            PROBABILITY[verdict],
            SERIES,
            side="left" if target is Target.KIDNEY and verdict is Verdict.SUSPECTED else None,
            rule_out=rule_out,
            rule_in=rule_in,
            overlays=("overlays/liver.png",),
        )
        for target in TARGETS
    }
    return Report(
        Status.ANALYSED,
        uid,
        series=(SeriesUsed(SERIES, Phase.PORTAL_VENOUS, 20, "the only one"),),
        bundle=BundleRef("stand-in", "1", "0" * 64, "simulated"),
        priority=Priority.STAT if verdict is Verdict.SUSPECTED else Priority.ROUTINE,
        findings=findings,
    )

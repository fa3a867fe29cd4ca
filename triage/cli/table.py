"""The report as a table for people."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triage.cli.common import plain
from triage.types import TARGETS, Finding, Report, Verdict

COLOUR = {
    Verdict.SUSPECTED: "bold red",
    Verdict.NOT_EXCLUDED: "yellow",
    Verdict.NO_FINDING: "green",
    Verdict.UNCERTIFIED: "yellow",
    Verdict.NOT_ASSESSED: "magenta",
}


def print_report(report: Report, out: Path) -> None:
    """Five verdicts, what they rest on, and where the report lies."""
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 110, highlight=False, soft_wrap=not terminal)
    simulated = report.bundle is not None and report.bundle.calibrated_on == "simulated"
    console.print(_table(report, "score" if simulated else "probability"))
    console.print(f"Suggested priority: [bold]{report.priority.value}[/bold]")
    if report.bundle is not None:
        console.print(f"Bundle: {_safe(report.bundle.name)} {_safe(report.bundle.version)}")
    if simulated:
        console.print("The bundle learned from simulated patients: a score is no probability.")
    for warning in report.warnings:
        console.print(f"Warning: {_safe(warning)}")
    console.print(f"Report: {_safe(out / 'report.json')}")
    overlays = [name for finding in report.findings.values() for name in finding.overlays]
    if overlays:
        console.print(f"Overlays: {_safe(out / Path(overlays[0]).parent)} ({len(overlays)})")
    console.print(report.disclaimer)


def _table(report: Report, score: str) -> Table:
    table = Table()
    for heading in ("target", "verdict", score, "side", "reason", "key slice"):
        table.add_column(heading, justify="right" if heading == score else "left")
    for target in TARGETS:
        finding = report.findings[target]
        colour = COLOUR[finding.verdict]
        table.add_row(
            target.value,
            f"[{colour}]{finding.verdict.value}[/{colour}]",
            "-" if finding.probability is None else f"{finding.probability:.3f}",
            finding.side or "",
            _safe(finding.reason or ""),
            _key_slice(finding),
        )
    return table


def _key_slice(finding: Finding) -> str:
    """The first key slice: its number in the series, or its index where there is none."""
    if not finding.key_slices:
        return ""
    first = finding.key_slices[0]
    number = first.instance_number
    return f"index {first.index}" if number is None else f"image {number} (index {first.index})"


def _safe(text: object) -> str:
    return escape(plain(text))

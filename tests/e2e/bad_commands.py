"""The malformed set through `triage run`: each case alone, and in a folder with a good study.

The command is the real one with the real networks, in a fork of a process that has imported it;
what it prints, its exit code and its files are judged.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.bad_cases import GOOD, Case, Row, row_of
from tests.e2e.gate_only import digest, read
from tests.fuzz.run import warm_child
from triage.reasons import REASONS, NotAnalysed
from triage.settings import Settings

NAME = "triage run"
LIMIT_S = 300
EXIT = {"analysed": 0, "not_analysed": 3}


@dataclass
class Ended:
    code: int
    stderr: str
    peak_mb: int


def command(source: Path, out: Path) -> Ended:
    """`triage run SOURCE --out OUT`. A code below 0: ended by that signal."""
    log = out.with_suffix(".stderr")
    pid = os.fork()
    if not pid:
        _run(source, out, log)
    handle = os.pidfd_open(pid)
    if not select.select([handle], [], [], LIMIT_S)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(handle)
    _, status, used = os.wait4(pid, 0)
    text = log.read_text(errors="replace") if log.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), text, used.ru_maxrss // 1024)


def _run(source: Path, out: Path, log: Path) -> None:
    code = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115 - for this process
        sys.argv = ["triage", "run", str(source), "--out", str(out)]
        from triage.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def alone(folder: Path, chosen: Sequence[Case]) -> tuple[list[Row], int]:
    """Rows, and the largest peak of a command in MB."""
    from triage.cli.main import main  # noqa: F401 - imported once, for all forks
    from triage.pipeline import analyse  # noqa: F401

    rows, peak = [], 0
    with warm_child():
        for case in chosen:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            ended = command(case.path, out)
            peak = max(peak, ended.peak_mb)
            rows.append(_judged(case, out, ended))
    return rows, peak


def _judged(case: Case, out: Path, ended: Ended) -> Row:
    report = out / "report.json"
    if not report.is_file():
        row = row_of(NAME, "alone", case, f"exit code {ended.code}", ())
        row.wrong, row.note = "no report", ended.stderr[-200:]
        return row
    said = json.loads(report.read_bytes())
    code = (said.get("reason") or {}).get("code", "")
    row = row_of(NAME, "alone", case, said["status"], (code,) if code else ())
    lines = [line for line in ended.stderr.splitlines() if line.split(":")[0] in REASONS]
    if "Traceback" in ended.stderr:
        row.wrong = "a traceback"
    elif ended.code != EXIT.get(said["status"]):
        row.wrong = f"exit code {ended.code}"
    elif code and (said["targets"] or [p.name for p in out.iterdir()] != ["report.json"]):
        row.wrong = "not analysed, but with results"
    elif code and len(lines) != 1:
        row.wrong = f"{len(lines)} lines say why"
    return row


def in_a_good_folder(folder: Path, chosen: Sequence[Case], way: str) -> tuple[list[Row], int]:
    """Good slices and a case in one folder, as the gate judges it: refused, or the good study whole
    and what was left out is said. `inside`: with the identity of the case."""
    from tests.e2e.bad_inside import inside

    rows, settings, work = [], Settings(home=folder / "home", threads=1), folder / "work"
    good = [path.read_bytes() for path in sorted(GOOD.rglob("*.dcm"))]
    with warm_child():
        want = digest(read(GOOD, settings).stacks[0])
        for case in chosen:
            files = inside(case) if way == "inside" else [*good, *case.files()]
            if files:
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir(parents=True)
                for number, data in enumerate(files):
                    (work / f"{number:04d}.dcm").write_bytes(data)
                rows.append(_of_folder(case, work, settings, want, way))
    return rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _of_folder(case: Case, work: Path, settings: Settings, want: str, way: str) -> Row:
    row = Row(NAME, way, case.name, case.expected, "analysed")
    try:
        found = read(work, settings)
    except NotAnalysed as refusal:
        row.answer, row.reasons = "not_analysed", (refusal.code,)
        row.wrong = "" if refusal.code in REASONS else "no reason"
        return row
    row.reasons = tuple(sorted({text.partition(":")[0][:60] for text in found.warnings}))
    if want not in map(digest, found.stacks):
        row.wrong = "the good study has other voxels"
    elif not found.warnings:
        row.wrong = "something was left out, and nothing said"
    return row

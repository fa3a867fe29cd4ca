"""A worker in a process of its own, for drills: HOME URL NAME [SECONDS UNTIL DEAD]."""

from __future__ import annotations

import sys
from pathlib import Path

from clinic import STAND_IN, drill_settings

from triage.service.workflow.worker import run
from triage.service.workflow.workflow import Timing

if __name__ == "__main__":
    home, url, name, dead_s = sys.argv[1:]
    timing = Timing(pulse_s=float(dead_s) / 10, dead_s=float(dead_s), check_s=0.2)
    settings = drill_settings(Path(home), url or None, worker_id=name)
    run(settings, load=STAND_IN, timing=timing, started=lambda executor: print("up", flush=True))

"""What may be said of a study that is not wholly there: a suspicion, and nothing else.

What was seen may look normal while the injury lies in the images still to come.
"""

from __future__ import annotations

from typing import Any

from triage.types import Priority, Verdict

CODE = "INCOMPLETE_SERIES"
_NOTHING_SEEN: dict[str, Any] = {
    "probability": None,
    "verdict": Verdict.NOT_ASSESSED.value,
    "flagged": False,
    "key_slices": [],
    "saliency": None,
    "overlays": [],
}


def as_partial(report: dict[str, Any]) -> dict[str, Any]:
    """`report` (as report.json) as it may be shown while images are missing.

    Suspected targets stay; every other one is `not_assessed` (INCOMPLETE_SERIES) without a
    probability, and the priority follows. A report without answers stays as it is.
    """
    if not report.get("targets"):
        return report
    targets = {name: _shown(target) for name, target in report["targets"].items()}
    flagged = any(target["flagged"] for target in targets.values())
    warning = f"{CODE}: more images were announced or arrived than were analysed"
    return {
        **report,
        "targets": targets,
        "priority": (Priority.STAT if flagged else Priority.URGENT).value,
        "warnings": list(dict.fromkeys([*report.get("warnings", ()), warning])),
    }


def _shown(target: dict[str, Any]) -> dict[str, Any]:
    if target["verdict"] == Verdict.SUSPECTED:
        return target
    kept = {key: value for key, value in target.items() if key not in ("side", "grade")}
    return {**kept, **_NOTHING_SEEN, "reason": target.get("reason") or CODE}

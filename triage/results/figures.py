"""The figures of one answer that a watch looks at, and how many answers look together.

Numbers and terms alone: nothing here says who the patient is, or which study it was.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triage.types import TARGETS, Status

SCHEMA_VERSION = "1"
INPUTS = "evaluation/inputs.json"  # in a bundle: what its calibration patients looked like
QUANTILES = 101  # 0 %, 1 %, ... 100 %
# What an image is like, and what was answered. The latter follows the networks.
INPUT_NUMBERS = (
    *("noise_hu", "liver_hu", "spleen_hu", "kidney_hu", "aorta_hu"),
    *("pixel_mm", "slice_mm", "slices"),
)
INPUT_SHARES = ("phase", "outcome")
ANSWER_NUMBERS = tuple(f"score.{t}" for t in TARGETS)
ANSWER_SHARES = tuple(f"verdict.{t}" for t in TARGETS)
NUMBERS, SHARES = (*INPUT_NUMBERS, *ANSWER_NUMBERS), (*INPUT_SHARES, *ANSWER_SHARES)


@dataclass(frozen=True)
class Figures:
    """Of one study. `numbers`: HU, mm, slices, scores; `terms`: figure -> term."""

    numbers: dict[str, float] = field(default_factory=dict)
    terms: dict[str, str] = field(default_factory=dict)


def figures_of(report: Mapping[str, Any]) -> Figures:
    """From report.json. The first series counts; what was not measured is left out.

    `outcome` is `analysed`, or the code of the reason why not.
    """
    status = str(report.get("status") or "")
    code = str((report.get("reason") or {}).get("code") or status)
    terms = {"outcome": status if status == Status.ANALYSED else code}
    numbers: dict[str, Any] = {}
    for used in (report.get("series") or ())[:1]:
        numbers["slices"] = used.get("slices")
        terms["phase"] = str(used.get("phase") or "unknown")
    for seen in (report.get("quality") or ())[:1]:
        numbers["noise_hu"] = seen.get("noise_hu")
        spacing = seen.get("spacing_mm") or (None, None, None)
        numbers["pixel_mm"], numbers["slice_mm"] = spacing[0], spacing[2]
        for tissue, hu in (seen.get("tissue_hu") or {}).items():
            numbers[f"{tissue}_hu"] = hu
    for name, finding in (report.get("targets") or {}).items():
        numbers[f"score.{name}"] = finding.get("probability")
        terms[f"verdict.{name}"] = str(finding.get("verdict"))
    return Figures(
        {k: round(float(v), 4) for k, v in numbers.items() if k in NUMBERS and _is_number(v)},
        {k: v for k, v in terms.items() if k in SHARES and v},
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class Many:
    """Of many studies. `numbers`: figure -> sorted values, or quantiles of them; `sizes`: how many
    studies stand behind; `counts`: figure -> term -> studies."""

    studies: int
    numbers: dict[str, list[float]]
    sizes: dict[str, int]
    counts: dict[str, dict[str, int]]

    @staticmethod
    def of(every: Iterable[Figures]) -> Many:
        numbers: dict[str, list[float]] = {}
        counts: dict[str, Counter[str]] = {}
        studies = 0
        for one in every:
            studies += 1
            for name, value in one.numbers.items():
                numbers.setdefault(name, []).append(value)
            for name, term in one.terms.items():
                counts.setdefault(name, Counter())[term] += 1
        ordered = {name: sorted(values) for name, values in numbers.items()}
        sizes = {name: len(values) for name, values in numbers.items()}
        return Many(studies, ordered, sizes, {k: dict(v) for k, v in counts.items()})

    def to_bytes(self) -> bytes:
        """The file `INPUTS` of a bundle: quantiles, of single patients only the extremes."""
        levels = np.linspace(0, 1, QUANTILES)
        data = {
            "schema_version": SCHEMA_VERSION,
            "studies": self.studies,
            "numbers": {
                name: {
                    "studies": self.sizes[name],
                    "quantiles": [round(float(q), 4) for q in np.quantile(values, levels)],
                }
                for name, values in sorted(self.numbers.items())
            },
            "shares": {name: self.counts[name] for name in sorted(self.counts)},
        }
        return (json.dumps(data, indent=1) + "\n").encode("ascii")

    @staticmethod
    def from_bytes(content: bytes) -> Many:
        """Raises ValueError for anything but what `to_bytes` writes."""
        try:
            data = json.loads(content)
            if data["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {data['schema_version']!r}")
            numbers = {
                str(k): sorted(float(q) for q in v["quantiles"]) for k, v in data["numbers"].items()
            }
            sizes = {str(k): int(v["studies"]) for k, v in data["numbers"].items()}
            counts = {
                str(k): {str(t): int(n) for t, n in v.items()} for k, v in data["shares"].items()
            }
            whole = all(v and all(map(math.isfinite, v)) for v in numbers.values())
            if not whole or any(n < 1 for n in sizes.values()):
                raise ValueError("a figure without values")
            return Many(int(data["studies"]), numbers, sizes, counts)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"Expected {INPUTS} of a bundle, got something else") from error

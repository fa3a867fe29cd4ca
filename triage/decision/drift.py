"""Does what comes in now look like what came in then? Two samples of one figure, compared.

Two questions, and a warning needs a yes to both:

- How far apart? The population stability index (PSI), sum of (q - p) ln(q / p) over the bins, with
  its usual reading: below 0.1 little, from 0.25 much (Siddiqi, Credit Risk Scorecards, 2006).
- Could it be chance? In small samples the PSI is large by chance alone (Yurdakul and Naranjo,
  Journal of Risk Model Validation 2020;14(4)), so Pearson's chi-squared test of homogeneity on the
  same bins, Fisher's exact test where two are left, and over all figures together the correction of
  Holm (Scand J Statist 1979;6:65-70).

Bins of numbers are the reference's tenths, and values that a tenth or more of it has; fewer for a
small sample: neighbours are joined until each expects `LEAST_EXPECTED` of the new studies (Cochran,
Biometrics 1954;10:417-451).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 10
LEAST_EXPECTED = 5.0
MUCH = 0.25  # PSI from which a warning may begin
LITTLE = 0.1  # PSI below which it ends
ALPHA = 0.001  # of all figures together, for a warning to begin
CHANCE = 0.01  # p of a figure alone above which it ends
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Shift:
    """How one figure moved. `psi`: 0 for equal shares; `p`: of chance, uncorrected."""

    psi: float
    p: float
    bins: int

    @property
    def over(self) -> bool:
        """Small enough, or likely enough by chance, for a warning to end."""
        return self.psi < LITTLE or self.p >= CHANCE


NONE = Shift(0.0, 1.0, 1)


def numbers(reference: Sequence[float], size: int, sample: Sequence[float]) -> Shift:
    """`reference`: values of then, or evenly spaced quantiles of them, from `size` studies.
    `sample`: values of now. Neither may be empty."""
    then, now = np.sort(np.asarray(reference, np.float64)), np.asarray(sample, np.float64)
    tenths = np.quantile(then, np.linspace(0, 1, BINS + 1))
    values, times = np.unique(tenths, return_counts=True)
    tied = values[times > 1]  # a tenth or more of all: such a value is a bin of its own
    edges = np.unique(np.concatenate([tenths[1:-1], tied, np.nextafter(tied, -np.inf)]))
    # (bins,) counts; bin k holds values in (edge k - 1, edge k]
    new = np.bincount(np.searchsorted(edges, now, side="left"), minlength=len(edges) + 1)
    old = np.bincount(np.searchsorted(edges, then, side="left"), minlength=len(edges) + 1)
    return _compare(*_joined(old.astype(np.float64) * (size / len(then)), new.astype(np.float64)))


def shares(reference: Mapping[str, int], sample: Mapping[str, int]) -> Shift:
    """Counts by value, then and now; values too rare to be judged count together."""
    names = sorted({*reference, *sample})
    old = np.array([reference.get(n, 0) for n in names], np.float64)
    new = np.array([sample.get(n, 0) for n in names], np.float64)
    common = old / old.sum() * new.sum() >= LEAST_EXPECTED
    if not common.any():
        common[int(old.argmax())] = True
    rest = ~common
    if rest.any():
        old = np.append(old[common], old[rest].sum())
        new = np.append(new[common], new[rest].sum())
    return _compare(old, new)


def _joined(old: Floats, new: Floats) -> tuple[Floats, Floats]:
    """Poor neighbours together until they expect enough; what is left over is one more bin."""
    expected = old / old.sum() * new.sum()
    groups: list[list[int]] = []
    poor: list[int] = []
    rest: list[int] = []
    for k in range(len(old)):
        if expected[k] >= LEAST_EXPECTED:
            groups.append([k])
            rest, poor = rest + poor, []
            continue
        poor.append(k)
        if expected[poor].sum() >= LEAST_EXPECTED:
            groups.append(poor)
            poor = []
    rest += poor
    if rest and (old[rest].sum() or new[rest].sum()):
        groups.append(rest)
    return np.array([old[g].sum() for g in groups]), np.array([new[g].sum() for g in groups])


def _compare(old: Floats, new: Floats) -> Shift:
    """Counts (bins,) of then and of now."""
    bins = len(old)
    if bins < 2 or not old.sum() or not new.sum():
        return NONE
    # half a study in each bin, so that an empty one is no infinity
    p = (old + 0.5) / (old.sum() + 0.5 * bins)
    q = (new + 0.5) / (new.sum() + 0.5 * bins)
    psi = float(((q - p) * np.log(q / p)).sum())
    table = np.stack([np.rint(old), new])  # (2, bins)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return Shift(psi, 1.0, bins)
    return Shift(psi, _by_chance(table), bins)


def _by_chance(table: Floats) -> float:
    """p of the same shares in both rows of (2, bins) counts."""
    from scipy.stats import chi2_contingency, fisher_exact  # two seconds, at a service's start

    if table.shape[1] == 2:
        return float(fisher_exact(table)[1])
    return float(chi2_contingency(table, correction=False).pvalue)


def drifted(shifts: Mapping[str, Shift]) -> frozenset[str]:
    """The figures of `shifts` that moved far, and not by chance: Holm's step-down at `ALPHA`."""
    left = len(shifts)
    found = set()
    for name in sorted(shifts, key=lambda n: shifts[n].p):
        if shifts[name].p > ALPHA / left:
            break
        left -= 1
        if shifts[name].psi >= MUCH:
            found.add(name)
    return frozenset(found)

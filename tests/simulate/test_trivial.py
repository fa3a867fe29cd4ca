"""Trivial features must not tell the injured from the healthy, and the check must notice if so."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from triage.decision.auc import auc
from triage.simulate.fields import Dice
from triage.simulate.trivial import (
    balanced_case,
    cross_validated,
    measure,
    separate,
    standard_error,
)
from triage.types import TARGETS, Target

# 160 patients (4 of each anatomy, for speed): without a leak the AUC has a standard error of 0.057
# here, so that five targets stay below 0.67 in 99 of 100 draws; one feature with an AUC of 0.75 is
# found in more than 9 of 10 (below). `scripts/trivial-features` measures 300 anatomies against
# 0.60.
PATIENTS = 160
LIMIT = 0.67


@pytest.mark.timeout(1500)
@pytest.mark.long  # a minute; scripts/trivial-features prints the same for more patients
def test_trivial_features_do_not_separate() -> None:
    make = partial(measure, seed=2, spacing=(6.0, 6.0, 8.0), variants=4)
    context = get_context("spawn")
    with ProcessPoolExecutor(2, context, torch.set_num_threads, (1,)) as pool:
        found_in = list(chain.from_iterable(pool.map(make, range(PATIENTS // 4))))
    rows, grades = zip(*found_in, strict=True)
    for found in separate(rows, grades):
        assert found.auc <= LIMIT, f"{found.target}: {found.auc:.2f}, {found.worst} tells most"


def synthetic(effect: float, seed: int, n: int = PATIENTS) -> float:
    """AUC of the check on noise features of which one is moved by `effect` sd in positives."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.5
    x = rng.normal(size=(n, 8))
    x[:, 3] += effect * labels
    return cross_validated(x, labels)


def test_the_check_finds_a_leak_and_is_quiet_without() -> None:
    """An AUC of 0.75 in one feature of eight is an effect of 0.95 sd."""
    leaks = [synthetic(0.954, seed) for seed in range(40)]
    quiet = [synthetic(0.0, seed) for seed in range(100)]
    assert np.mean(np.array(leaks) > LIMIT) >= 0.85
    assert np.mean(np.array(quiet) > LIMIT) <= 0.02
    assert np.mean(quiet) == pytest.approx(0.5, abs=0.03)


def test_auc_counts_ties_half() -> None:
    labels = np.array([True, True, False, False])
    assert auc(np.array([2.0, 1.0, 1.0, 0.0]), labels) == 0.875
    assert auc(np.zeros(4), labels) == 0.5
    assert np.isnan(auc(np.zeros(2), np.array([True, True])))


def test_standard_error_is_that_of_hanley_and_mcneil() -> None:
    assert standard_error(0.5, 150, 150) == pytest.approx(0.0334, abs=1e-3)


def test_cases_of_the_check_are_balanced_and_independent() -> None:
    grades = np.array([balanced_case(Dice((n, 9))).key for n in range(2000)])
    assert (grades > 0).mean(0) == pytest.approx(np.full(5, 0.5), abs=0.04)
    assert np.abs(np.corrcoef((grades > 0).T) - np.eye(5)).max() < 0.08


def test_too_few_patients_are_refused() -> None:
    rows = [{"mean_hu": float(n)} for n in range(30)]
    grades = [{t: int(t is Target.LIVER and n < 5) for t in TARGETS} for n in range(30)]
    with pytest.raises(ValueError, match="with and without bowel, got 0, 30"):
        separate(rows, grades)

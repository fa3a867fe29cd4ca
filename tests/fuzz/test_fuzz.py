"""A thousand damaged inputs through the entrances: no crash, no traceback, no verdict on garbage.

`scripts/fuzz` sends 24,000, and more through the dear ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.judge import Find, Watchtower, answered
from tests.fuzz.mutate import damaged, damaged_dicom, elements
from tests.fuzz.run import ENTRANCES, SHARES, fuzz, warm_child
from tests.fuzz.seeds import Seeds

# Inputs of each entrance here; a thousand in all.
COUNTS = {
    **{"RunDicom": 20, "RunZip": 10, "RunFile": 10, "Header": 500, "BundleLoading": 160},
    **{"CStore": 60, "Pdus": 60, "Stow": 50, "Upload": 20, "Folder": 30, "Requests": 80},
}


@pytest.fixture(scope="module", autouse=True)
def readers() -> Iterator[None]:
    with warm_child():
        yield


@pytest.mark.parametrize("name", ENTRANCES)
def test_damaged_input_does_no_harm(name: str, tmp_path: Path) -> None:
    tally = fuzz(name, range(COUNTS[name]), seed=2, folder=tmp_path)
    assert tally.finds == []
    assert sum(tally.answers.values()) == COUNTS[name]


def test_every_entrance_has_its_share() -> None:
    assert set(COUNTS) == set(SHARES) == set(ENTRANCES)
    assert sum(COUNTS.values()) == 1000
    assert sum(SHARES.values()) == 24000


# ---- the fuzzer itself


@given(seed=st.integers(0, 2**32), data=st.binary(max_size=300))
def test_the_same_seed_gives_the_same_damage(seed: int, data: bytes) -> None:
    once, twice = (damaged(random.Random(seed), data, (b"other",)) for _ in range(2))  # noqa: S311
    assert once == twice


def test_damage_is_rarely_none(tmp_path: Path) -> None:
    slices = Seeds(tmp_path).series("explicit").slices
    dice = random.Random(1)  # noqa: S311 - damage, no secret
    changed = sum(damaged_dicom(dice, slices[0], slices) != slices[0] for _ in range(200))
    assert changed > 180
    assert len(elements(slices[0])) > 30  # the whole data set is understood


def test_a_fault_is_found(tmp_path: Path) -> None:
    """What the judges look for they do see."""
    with pytest.raises(Find, match="crash"):
        answered("{}", 500, (200,))
    with pytest.raises(Find, match="traceback"):
        answered('Traceback (most recent call last): File "/x.py", line 1', 400, (400,))
    tower = Watchtower()
    with tower.watching():
        import threading

        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    with pytest.raises(Find, match="ZeroDivisionError"):
        tower.raise_if_any()

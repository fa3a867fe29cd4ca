"""The quality networks on disk: small, whole, and refused when changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from triage.nets.bundle import BundleError
from triage.nets.quality_bundle import MANIFEST, WEIGHTS, find_quality, load_quality


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = find_quality()
    if folder is None:
        pytest.skip("models/quality is not there")
    shutil.copytree(folder, tmp_path / "quality")
    return tmp_path / "quality"


def test_it_is_small_and_loads(copy: Path) -> None:
    assert sum(f.stat().st_size for f in copy.iterdir()) <= 2 << 20
    assert load_quality(copy).whiten.shape[0] == 128


@pytest.mark.parametrize("file", [WEIGHTS, MANIFEST])
def test_what_was_changed_is_refused(copy: Path, file: str) -> None:
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(BundleError):
        load_quality(copy)


def test_a_missing_file_and_a_link_are_refused(copy: Path) -> None:
    (copy / WEIGHTS).rename(copy / "other")
    with pytest.raises(BundleError):
        load_quality(copy)
    (copy / WEIGHTS).symlink_to(copy / "other")
    with pytest.raises(BundleError):
        load_quality(copy)

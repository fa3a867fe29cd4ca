"""Bundles: what is written comes back, and whatever was tampered with is refused."""

from __future__ import annotations

import hashlib
import importlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from triage.nets import bundle, bundle_writer
from triage.nets.bundle import BundleError
from triage.types import TARGETS

WEIGHTS = "slices/liver.safetensors"


def write(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "name": "reference",
        "version": "1.0.0",
        "calibrated_on": "simulated",
        "prevalence": dict.fromkeys(TARGETS, 0.1),
        "networks": {"liver": {"kind": "mobilenet_v2", "trunk_blocks": 14, "file": WEIGHTS}},
        "preprocessing": {"hu_windows": [[-150, 250]], "size": 224},
        "tensors": {
            WEIGHTS: {
                "conv.weight": torch.randn(4, 3, 3, 3),
                "norm.running_var": torch.full((4,), 1e-9),
                "steps": torch.tensor(7),
            }
        },
        "cutoffs": {"calibrated_on": "simulated", "targets": {}},
        "provenance": {"seed": 1},
        "card": "# Reference\n",
        "extra": {"evaluation/metrics.json": b"{}"},
    }
    return bundle_writer.write_bundle(folder, **(content | changes))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((folder / bundle.MANIFEST).read_bytes())
    change(data)
    (folder / bundle.MANIFEST).write_text(json.dumps(data))


@pytest.mark.parametrize("half", [False, True])
def test_round_trip(tmp_path: Path, half: bool) -> None:
    tensors = {
        "a.weight": torch.randn(3, 4),
        "a.bias": torch.tensor([1e-9, 1.0]),
        "n": torch.ones(1).int(),
    }
    networks = {"a": {"file": "a.safetensors"}}
    folder = write(tmp_path / "b", tensors={"a.safetensors": tensors}, networks=networks, half=half)
    manifest = bundle.verify(folder)
    assert manifest.calibrated_on == "simulated" and set(manifest.prevalence) == set(TARGETS)
    assert set(manifest.files) == {
        "a.safetensors", "cutoffs.json", "MODEL_CARD.md", "evaluation/metrics.json",
    }  # fmt: skip
    loaded = bundle.load_tensors(folder, "a.safetensors")
    expected = tensors["a.weight"].half().float() if half else tensors["a.weight"]
    assert loaded["a.weight"].dtype == torch.float32
    assert torch.equal(loaded["a.weight"], expected)
    assert torch.equal(loaded["a.bias"], tensors["a.bias"]) and loaded["n"].dtype == torch.int32
    assert json.loads(bundle.read_bytes(folder, "cutoffs.json"))["targets"] == {}
    digest = hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    assert bundle.reference(folder).sha256 == bundle.manifest_sha256(folder) == digest


@pytest.mark.parametrize("file", [WEIGHTS, "cutoffs.json", "MODEL_CARD.md"])
def test_changed_and_truncated_files_are_refused(tmp_path: Path, file: str) -> None:
    folder = write(tmp_path / "b")
    path = folder / file
    good = path.read_bytes()
    for bad in (good[:-1], bytes([good[0] ^ 1]) + good[1:], b""):
        path.write_bytes(bad)
        with pytest.raises(BundleError, match="sha256"):
            bundle.verify(folder)
    path.unlink()
    with pytest.raises(BundleError, match="readable file"):
        bundle.verify(folder)


@pytest.mark.parametrize(
    "path",
    ["../w.safetensors", "/etc/w.safetensors", "a/../w.safetensors", "a//w.safetensors",
     "./w.safetensors", "a\\w.safetensors", "w.safetensors\n", "w.pt", "w.pkl", "w", ".safetensors",
     "bundle.json"],
)  # fmt: skip
def test_other_paths_and_formats_are_refused(tmp_path: Path, path: str) -> None:
    folder = write(tmp_path / "b")
    edit(folder, lambda data: data["files"].update({path: "0" * 64}))
    with pytest.raises(BundleError, match="valid"):
        bundle.read_manifest(folder)
    with pytest.raises(BundleError):
        write(tmp_path / "c", extra={path: b"x"})
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("link_folder", [False, True])
def test_links_are_refused_though_the_hash_fits(tmp_path: Path, link_folder: bool) -> None:
    folder = write(tmp_path / "b")
    inner = folder / "slices" if link_folder else folder / WEIGHTS
    outside = tmp_path / "outside"
    inner.rename(outside)
    inner.symlink_to(outside)
    with pytest.raises(BundleError, match="link"):
        bundle.load_tensors(folder, WEIGHTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(schema_version="2"),
        lambda data: data.update(calibrated_on="perhaps"),
        lambda data: data.update(name="../x"),
        lambda data: data.update(surprise=1),
        lambda data: data.pop("prevalence"),
        lambda data: data["prevalence"].update(liver=0.0),
        lambda data: data["prevalence"].update(brain=0.1),
        lambda data: data["preprocessing"].update(size=float("nan")),
        lambda data: data["files"].pop("cutoffs.json"),
        lambda data: data["files"].pop(WEIGHTS),
        lambda data: data["files"].update({WEIGHTS: "xyz"}),
    ],
)
def test_invalid_manifests_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    folder = write(tmp_path / "b")
    edit(folder, change)
    with pytest.raises(BundleError):
        bundle.read_manifest(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 200_000, b" " * 2_000_000])
def test_damaged_manifests_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "b")
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError):
        bundle.read_manifest(folder)


def test_a_pickle_in_disguise_is_never_unpickled(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    content = pickle.dumps(Payload())
    (folder / WEIGHTS).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    edit(folder, lambda data: data["files"].update({WEIGHTS: digest}))
    with pytest.raises(BundleError, match="safetensors"):
        bundle.load_tensors(folder, WEIGHTS)
    assert not marker.exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for value, half in ((float("nan"), False), (1e6, True)):  # 1e6 overflows fp16
        with pytest.raises(BundleError, match="finite"):
            write(tmp_path / "b", tensors={WEIGHTS: {"w": torch.full((2, 2), value)}}, half=half)


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    before = bundle.manifest_sha256(folder)
    with pytest.raises(BundleError, match="exists"):
        write(folder, version="2.0.0")
    with pytest.raises(BundleError):
        write(folder, version="2.0.0", cutoffs={"x": float("nan")}, overwrite=True)
    assert bundle.manifest_sha256(folder) == before
    write(folder, version="2.0.0", overwrite=True)
    assert bundle.verify(folder).version == "2.0.0"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    other = tmp_path / "data"
    other.mkdir()
    with pytest.raises(BundleError, match="exists"):
        write(other, overwrite=True)  # no bundle: never replaced


def test_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, wheel, cwd = tmp_path / "models", tmp_path / "site", tmp_path / "cwd"
    monkeypatch.setattr(bundle, "REPOSITORY_MODELS", shipped)
    monkeypatch.setattr(bundle, "INSTALLED", "models_in_a_wheel")  # the real one is installed
    monkeypatch.syspath_prepend(str(wheel))
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    with pytest.raises(BundleError, match="models/reference"):
        bundle.find_bundle("reference")
    write(cwd / "reference")
    assert bundle.find_bundle("reference") == cwd / "reference"
    installed = write(wheel / bundle.INSTALLED / "reference")
    importlib.invalidate_caches()
    assert bundle.find_bundle("reference") == installed
    write(shipped / "reference")
    assert bundle.find_bundle("reference") == shipped / "reference"
    assert bundle.find_bundle("./reference") == bundle.find_bundle(cwd / "reference")


def test_bundle_modules_import_no_torch() -> None:
    code = "import sys, triage.nets.bundle_writer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

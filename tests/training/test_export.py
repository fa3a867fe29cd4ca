"""Exported networks run in plain MONAI, where this package cannot be imported, and agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor
from typer.testing import CliRunner

from triage.cli.main import app
from triage.inference.crops import HIGH_HU, LOW_HU
from triage.inference.networks import Networks, load_networks
from triage.nets.bundle import find_bundle
from triage.nets.localiser import Localiser, scale
from triage.nets.sequence_head import STEP_MM, SequenceHead, SequenceHeads
from triage.nets.slice_net import SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.training.assemble import neutral_table, write
from triage.training.monai_export import export_bundle
from triage.types import DISCLAIMER, ORGAN_LABEL, TARGETS, Target

STRANGER = """
import sys
sys.modules["triage"] = None  # importing it fails from here on
import warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
import monai.bundle
from monai.bundle import ConfigParser

root, given, out = (Path(p) for p in sys.argv[1:])
answers = {}
for folder in sorted(root.iterdir()):
    parser = ConfigParser()
    parser.read_config(folder / "configs/inference.json")
    parser.read_meta(folder / "configs/metadata.json")
    if folder.name == "localiser":
        kind = {"device": "cpu", "workflow_type": "inference"}
        net = monai.bundle.load(folder.name, bundle_dir=root, **kind)
    else:
        net = monai.bundle.load(folder.name, bundle_dir=root, load_ts_module=True, device="cpu")[0]
    assert not any(k.split(".")[0] == "triage" and m for k, m in sys.modules.items())
    image = str(given / "ct.nii.gz") if folder.name == "localiser" else None
    image = image or torch.load(given / f"{folder.name}.pt", weights_only=True)
    parser["bundle_root"], parser["image"] = str(folder), image
    parser["device"] = "cpu"
    answer = parser.get_parsed_content("run").detach()
    answers[folder.name] = answer.as_tensor() if hasattr(answer, "as_tensor") else answer
    if folder.name == "localiser":
        x = torch.load(given / "localiser.pt", weights_only=True)
        answers["localiser direct"] = net.eval()(x).softmax(1).detach()
torch.save(answers, out)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """A small bundle with every kind of network, written and loaded as the service does it."""
    torch.manual_seed(0)
    slices = SliceEnsembles({t.value: 2 if t is Target.LIVER else 0 for t in TARGETS})
    trained = load_networks(find_bundle("reference"), "cpu").slices  # random weights see nothing
    slices.trunk.load_state_dict(trained.trunk.state_dict())
    for member, like in zip(slices.of(Target.LIVER), trained.of(Target.LIVER), strict=False):
        member.load_state_dict(like.state_dict())
    sequence = SequenceHeads({Target.LIVER.value: 160})
    head = sequence.heads[Target.LIVER.value]
    assert isinstance(head, SequenceHead)
    torch.nn.init.normal_(head.out.weight)
    folder = write(
        tmp_path_factory.mktemp("bundle") / "b",
        version="1",
        localiser=Localiser(4),
        slices=slices,
        volume=VolumeNet(4),
        sequence=sequence,
        cutoffs=neutral_table(),
        provenance={},
        card="A card.",
        extra={},
    )
    return load_networks(folder, "cpu")


@pytest.fixture(scope="module")
def exported(nets: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    done = CliRunner().invoke(app, ["export", str(nets.folder), "--out", str(out)])
    assert done.exit_code == 0 and str(out / "volume") in done.output.splitlines()
    return out


@pytest.fixture(scope="module")
def inputs() -> dict[str, Any]:
    torch.manual_seed(1)
    hu = torch.randn(1, 1, 48, 64, 40) * 80 + 40
    z = -400 + STEP_MM * torch.arange(9.0)[None]
    return {
        "localiser": scale(torch.randn(1, 1, 16, 24, 16) * 100),
        "slices_liver": torch.randn(3, 3, 224, 224) * 120 + 40,
        "volume": [hu, (torch.rand(1, 4, 24, 32, 40) > 0.6).float(), torch.full((1, 5), 70.0)],
        "sequence_liver": [
            *(torch.randn(1, 9, 160), torch.randn(1, 9), z, torch.tensor([0.5])),
            torch.tensor([9]),
        ],
    }


@torch.no_grad()
def expected(nets: Networks, inputs: dict[str, Any], ct: Path, folder: Path) -> dict[str, Tensor]:
    """The same answers by our own networks."""
    parser = ConfigParser()
    parser.read_config(folder / "localiser/configs/inference.json")
    parser["image"] = str(ct)
    grid = parser.get_parsed_content("preprocessing")({"image": str(ct)})["image"].as_tensor()
    pictures = inputs["slices_liver"].clamp(LOW_HU, HIGH_HU)
    pictures = (pictures - LOW_HU) / (HIGH_HU - LOW_HU) * 2 - 1
    assert nets.sequence is not None
    return {
        "localiser": nets.localiser(grid[None]).argmax(1)[0][None],
        "localiser direct": nets.localiser(inputs["localiser"]).softmax(1),
        "slices_liver": nets.slices.logits(
            Target.LIVER, nets.slices.features(pictures)
        ).T.sigmoid(),
        "volume": nets.volume(*inputs["volume"])[0].sigmoid(),
        "sequence_liver": nets.sequence.heads["liver"](*inputs["sequence_liver"]).sigmoid(),
    }


def test_plain_monai_gives_our_probabilities(
    nets: Networks, exported: Path, inputs: dict[str, Any], tmp_path: Path
) -> None:
    assert {f.name for f in exported.iterdir()} == inputs.keys()
    given = tmp_path / "given"
    given.mkdir()
    for name, value in inputs.items():
        torch.save(value, given / f"{name}.pt")
    voxels = np.random.default_rng(0).normal(40, 100, (60, 60, 30)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 3.0, 5.0, 1])), given / "ct.nii.gz")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER)
    done = subprocess.run(
        [sys.executable, str(script), str(exported), str(given), str(tmp_path / "a.pt")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = torch.load(tmp_path / "a.pt", weights_only=True)
    ours = expected(nets, inputs, given / "ct.nii.gz", exported)
    assert answers.keys() == ours.keys()
    for name, answer in answers.items():
        assert answer.shape == ours[name].shape, name
        assert torch.allclose(answer.float(), ours[name].float(), atol=1e-4), name
    assert float(answers["slices_liver"].std()) > 1e-3 and len(answers["localiser"].unique()) > 1


def test_metadata_tells_what_goes_in(nets: Networks, exported: Path) -> None:
    for folder in exported.iterdir():
        told = json.loads((folder / "configs/metadata.json").read_text())
        assert {
            "version",
            "monai_version",
            "pytorch_version",
            "numpy_version",
            "task",
        } <= told.keys()
        assert DISCLAIMER in told["description"]
        formats = told["network_data_format"]
        for entry in [*formats["inputs"].values(), *formats["outputs"].values()]:
            assert {"type", "format", "num_channels", "spatial_shape", "dtype"} <= entry.keys()
        assert told["triage"]["bundle_sha256"] == nets.ref.sha256
        assert told["triage"]["preprocessing"]["views"]["liver"][0]["field_mm"] == 270
        assert (folder / "LICENSE").read_text().strip() and (folder / "docs/README.md").is_file()
    names = json.loads((exported / "localiser/configs/metadata.json").read_text())
    classes = names["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert classes["1"] == "liver" and len(classes) == len(ORGAN_LABEL) + 1


def test_nothing_is_overwritten(nets: Networks, exported: Path) -> None:
    with pytest.raises(FileExistsError, match="volume"):
        export_bundle(nets.folder, exported)
    again = CliRunner().invoke(app, ["export", str(nets.folder), "--out", str(exported)])
    assert again.exit_code == 2

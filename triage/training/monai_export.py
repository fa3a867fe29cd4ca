"""A bundle's networks as MONAI bundles that plain MONAI loads; this package is not needed then.

One folder a network, in the layout of the MONAI bundle format: `configs/metadata.json`,
`configs/inference.json`, `models/`, `docs/README.md`, `LICENSE`. The localiser is a network of
MONAI's own: definition in the config, weights in `model.pt`. The others are TorchScript in
`model.ts` with the metadata inside. Configs are only written here, never read: a MONAI config can
run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from triage import __version__
from triage.decision.table import CutoffTable
from triage.inference.networks import Networks, load_networks
from triage.training.monai_networks import Exported, every_network, preprocessing
from triage.types import DISCLAIMER

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
DEVICE = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"


def export_bundle(bundle: Path, out: Path) -> list[Path]:
    """Write every network of a bundle below `out`, one folder each; returns the folders.

    Raises BundleError for a bundle that cannot be used, FileExistsError where a folder is there.
    """
    nets = load_networks(bundle, "cpu")
    found = every_network(nets)
    if taken := [e.name for e in found if (out / e.name).exists()]:
        raise FileExistsError(f"{out} holds {', '.join(taken)} already: choose another folder")
    return [_write(e, nets, out / e.name) for e in found]


def _metadata(e: Exported, nets: Networks) -> dict[str, Any]:
    """metadata.json: what MONAI wants, and under `triage` what our decision needs."""
    return {
        "schema": SCHEMA,
        "version": nets.manifest.version,
        "changelog": {nets.manifest.version: f"exported by trauma-ct-triage {__version__}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": packages.version("nibabel")},
        "name": f"trauma-ct-triage {e.name}",
        "task": f"Abdominal trauma CT triage: {e.task}",
        "description": f"{e.description} {DISCLAIMER}.",
        "authors": "trauma-ct-triage contributors",
        "copyright": "trauma-ct-triage contributors, Apache-2.0",
        "data_source": f"calibrated on {nets.manifest.calibrated_on} patients",
        "intended_use": DISCLAIMER,
        "network_data_format": {"inputs": dict(e.inputs), "outputs": dict(e.outputs)},
        "triage": {
            "bundle": nets.manifest.name,
            "bundle_sha256": nets.ref.sha256,
            "calibrated_on": nets.manifest.calibrated_on,
            "preprocessing": preprocessing(nets),
            "decision": CutoffTable.from_bundle(nets.folder).to_dict(),
        },
    }


README = """# {name}

{description}

Input and output: `configs/metadata.json`, which also has the preprocessing constants and, under
`triage`, calibration and cutoffs of the bundle {bundle} (sha256 {sha256}).

```python
from monai.bundle import ConfigParser  # a config can run code: read it first

parser = ConfigParser()
parser.read_config("configs/inference.json")
parser["bundle_root"], parser["image"] = ".", ...
answer = parser.get_parsed_content("run")
```

Outputs are not calibrated. {card}
"""
CARD = "The model card of the whole bundle follows.\n\n{card}"


def _write(e: Exported, nets: Networks, folder: Path) -> Path:
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    told = _metadata(e, nets)
    config = {
        "imports": ["$import torch", "$import monai"],
        "bundle_root": ".",
        "device": DEVICE,
        "image": None,
        "inferer": {"_target_": "SimpleInferer"},
        "initialize": [],
        **e.config,
    }
    text = _json(config)
    (folder / "configs/metadata.json").write_text(_json(told))
    (folder / "configs/inference.json").write_text(text)
    if e.model is not None:
        torch.save(e.model.state_dict(), folder / "models/model.pt")
    if e.script is not None:
        monai.data.save_net_with_metadata(
            e.script,
            str(folder / "models/model"),
            meta_values=told,
            more_extra_files={"inference.json": text.encode()},
        )
    card = (nets.folder / "MODEL_CARD.md").read_text()
    page = README.format(
        name=told["name"],
        description=told["description"],
        bundle=nets.manifest.name,
        sha256=nets.ref.sha256,
        card=CARD.format(card=card),
    )
    (folder / "docs/README.md").write_text(page)
    (folder / "LICENSE").write_text(_license())
    return folder


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def _license() -> str:
    """The text of the licence, from the source tree or from the installed package."""
    beside = Path(__file__).resolve().parents[2] / "LICENSE"
    if beside.is_file():
        return beside.read_text()
    text = packages.distribution("trauma-ct-triage").read_text("licenses/LICENSE")
    return text or "SPDX-License-Identifier: Apache-2.0\n"

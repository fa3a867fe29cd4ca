"""What a viewer shows of one series: a small CT, small maps and surfaces, all on the working grid.

    scene/<n>_ct.nii.gz               int16 HU, RAS+ mm, 1.5 x 1.5 x 3 mm
    scene/<n>_saliency_<target>.nii.gz
    meshes/<n>_<organ>.mz3, meshes/<n>_hot_<target>.mz3, meshes/<n>.glb

<n> counts the series of the report from 1. The grid is there from the analysis, so that none of
this decodes or resamples anything.
"""

from __future__ import annotations

import threading
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from monai.data import MetaTensor

from triage.files import write_atomic
from triage.saliency.meshes import Mesh, glb, hot_mesh, hot_name, mz3, organ_meshes
from triage.saliency.names import MESHES, SCENE
from triage.saliency.nifti import write_nifti
from triage.saliency.overlay import saliency_scale
from triage.types import DISCLAIMER, Anatomy, Finding

LOWEST, HIGHEST = -1024, 3071  # HU


class Scene:
    """Writes the scene of series `number` below `out`; `hot` may be called from several threads."""

    def __init__(self, out: Path, number: int) -> None:
        self.number = number
        self.scene, self.meshes = out / SCENE, out / MESHES
        self.scene.mkdir(parents=True, exist_ok=True)
        self.meshes.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, Mesh] = {}
        self._guard = threading.Lock()

    def ct(self, grid: MetaTensor) -> None:
        """The CT (1, X, Y, Z) in HU on the working grid."""
        hu = grid.as_tensor()[0].cpu().numpy()
        whole = np.clip(np.rint(hu), LOWEST, HIGHEST).astype(np.int16)
        image = nib.Nifti1Image(whole, grid.affine.cpu().numpy().astype(np.float64))
        image.header.set_xyzt_units("mm")
        data = igzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
        write_atomic(self.scene / f"{self.number}_ct.nii.gz", data)

    def organs(self, anatomy: Anatomy) -> None:
        """The surface of each organ."""
        for organ, mesh in organ_meshes(anatomy.labels).items():
            self._mesh(organ.value, mesh)

    def hot(self, finding: Finding, grid_map: MetaTensor) -> None:
        """The map of one target, and where it is suspected the surface around its hottest spot."""
        name = f"{self.number}_saliency_{finding.target.value}.nii.gz"
        write_nifti(grid_map, self.scene / name)
        mesh = hot_mesh(grid_map, saliency_scale(grid_map)) if finding.flagged else None
        if mesh is not None:
            self._mesh(hot_name(finding.target), mesh)

    def close(self) -> None:
        """All surfaces as one glTF file."""
        if self._found:
            named = dict(sorted(self._found.items()))
            write_atomic(self.meshes / f"{self.number}.glb", glb(named, DISCLAIMER))

    def _mesh(self, name: str, mesh: Mesh) -> None:
        write_atomic(self.meshes / f"{self.number}_{name}.mz3", mz3(mesh))
        with self._guard:
            self._found[name] = mesh

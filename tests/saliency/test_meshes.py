"""Surfaces: closed, of the right size, where the organ lies, and left is left in every format."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from triage.saliency.meshes import Mesh, glb, hot_mesh, mz3, organ_meshes, surface
from triage.saliency.scene import Scene
from triage.types import ORGAN_LABEL, Anatomy, Cutoff, Finding, Organ, Target, Verdict

GRID = np.diag([1.5, 1.5, 3.0, 1.0])
SHAPE = (96, 80, 40)


def ball(
    centre: tuple[float, float, float], radius: float, affine: NDArray[np.float64] = GRID
) -> NDArray[np.bool_]:
    """A ball (centre and radius in mm) on a grid of `SHAPE`."""
    index = np.indices(SHAPE).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    inside = ((world - np.array(centre)[:, None]) ** 2).sum(0) <= radius**2
    return np.asarray(inside.reshape(SHAPE))


def enclosed(mesh: Mesh) -> float:
    """Volume in mm^3, positive where faces look outwards."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def turned(signs: tuple[int, int, int]) -> NDArray[np.float64]:
    affine = np.diag([1.5 * signs[0], 1.5 * signs[1], 3.0 * signs[2], 1.0])
    affine[:3, 3] = [0.0 if s > 0 else 1.5 * 90 for s in signs]
    return affine


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, 1, -1)])
def test_a_ball_becomes_a_closed_ball_at_its_place(signs: tuple[int, int, int]) -> None:
    affine = turned(signs)
    mesh = surface(ball((60.0, 50.0, 60.0), 24.0, affine), affine)
    assert mesh is not None
    assert enclosed(mesh) == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.08)
    assert mesh.vertices.mean(axis=0) == pytest.approx([60, 50, 60], abs=1.0)
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, times = np.unique(edges, axis=0, return_counts=True)
    assert set(times) == {2}  # every edge has two faces: no hole


def test_an_organ_at_the_edge_of_the_scan_is_closed_too() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:20, :20, :10] = True
    mesh = surface(mask, GRID)
    assert mesh is not None and enclosed(mesh) == pytest.approx(20 * 20 * 10 * 6.75, rel=0.15)


def test_left_is_left() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[ball((110.0, 50.0, 60.0), 15.0)] = ORGAN_LABEL[Organ.KIDNEY_RIGHT]  # RAS+: right is +x
    labels[ball((30.0, 50.0, 60.0), 15.0)] = ORGAN_LABEL[Organ.KIDNEY_LEFT]
    found = organ_meshes(MetaTensor(torch.from_numpy(labels)[None], affine=torch.from_numpy(GRID)))
    right, left = found[Organ.KIDNEY_RIGHT], found[Organ.KIDNEY_LEFT]
    assert set(found) == {Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT}
    assert vertices_of_mz3(mz3(right))[:, 0].mean() == pytest.approx(110, abs=1)
    assert vertices_of_mz3(mz3(left))[:, 0].mean() == pytest.approx(30, abs=1)
    nodes = nodes_of_glb(glb({"kidney_right": right, "kidney_left": left}))
    # glTF: x is the patient's left, so the right kidney has the smaller x; y is up: z of RAS+
    assert nodes["kidney_right"].mean(axis=0) == pytest.approx([-0.110, 0.060, 0.050], abs=1e-3)
    assert nodes["kidney_left"].mean(axis=0) == pytest.approx([-0.030, 0.060, 0.050], abs=1e-3)


def test_hot_spots_are_what_speaks_for_and_never_what_speaks_against() -> None:
    field = np.zeros(SHAPE, dtype=np.float32)
    field[ball((110.0, 50.0, 60.0), 12.0)] = 1.0
    field[ball((30.0, 50.0, 60.0), 12.0)] = -1.0
    saliency = MetaTensor(torch.from_numpy(field)[None], affine=torch.from_numpy(GRID))
    mesh = hot_mesh(saliency, 1.0)
    assert mesh is not None and mesh.vertices[:, 0].min() > 90
    assert hot_mesh(saliency * 0.0, 0.0) is None


def test_nothing_makes_no_surface() -> None:
    assert surface(np.zeros(SHAPE, dtype=bool), GRID) is None
    with pytest.raises(ValueError, match="at least one mesh"):
        glb({})


def test_a_scene_holds_ct_maps_and_surfaces(tmp_path: Path) -> None:
    affine = torch.from_numpy(GRID)
    labels = torch.zeros((1, *SHAPE), dtype=torch.uint8)
    labels[0][torch.from_numpy(ball((60.0, 50.0, 60.0), 20.0))] = ORGAN_LABEL[Organ.LIVER]
    hu = MetaTensor(torch.full((1, *SHAPE), -5000.0), affine=affine)
    hu[0, 10:20] = 60.4
    anatomy = Anatomy(MetaTensor(labels, affine=affine), {}, {})
    cutoff = Cutoff(0.1)
    finding = Finding(Target.LIVER, Verdict.SUSPECTED, 0.9, "1", rule_out=cutoff, rule_in=cutoff)
    scene = Scene(tmp_path, 2)
    scene.ct(hu)
    scene.organs(anatomy)
    scene.hot(finding, MetaTensor(labels.float() / labels.max(), affine=affine))
    scene.close()
    ct = nib.load(tmp_path / "scene" / "2_ct.nii.gz")
    assert np.allclose(ct.affine, GRID) and set(np.unique(ct.dataobj)) == {-1024, 60}
    assert {p.name for p in (tmp_path / "meshes").iterdir()} == {
        "2_liver.mz3",
        "2_hot_liver.mz3",
        "2.glb",
    }
    assert (tmp_path / "scene" / "2_saliency_liver.nii.gz").is_file()


def vertices_of_mz3(data: bytes) -> NDArray[np.float32]:
    raw = gzip.decompress(data)
    magic, attributes, faces, vertices, skip = struct.unpack("<HHIII", raw[:16])
    assert (magic, attributes, skip) == (23117, 7, 0)
    assert len(raw) == 16 + 12 * faces + 12 * vertices + 4 * vertices
    return np.frombuffer(raw, "<f4", 3 * vertices, 16 + 12 * faces).reshape(-1, 3)


def nodes_of_glb(data: bytes) -> dict[str, NDArray[np.float32]]:
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + size])
    binary = data[20 + size + 8 :]
    found = {}
    for node in tree["nodes"]:
        place = tree["meshes"][node["mesh"]]["primitives"][0]["attributes"]["POSITION"]
        accessor = tree["accessors"][place]
        view = tree["bufferViews"][accessor["bufferView"]]
        start = view["byteOffset"]
        count = 3 * accessor["count"]
        found[node["name"]] = np.frombuffer(binary, "<f4", count, start).reshape(-1, 3)
    return found

"""Surfaces of organs and hot spots for the 3D view, in RAS+ mm.

Marching cubes (Lewiner et al. 2003, by scikit-image) on masks that were averaged to about 3 mm and
smoothed by one voxel: an organ needs some ten thousand triangles, not a million. Two formats:

- MZ3 (surf-ice, https://github.com/neurolabusc/surf-ice/tree/master/mz3): vertices in RAS+ mm, as
  NiiVue shows them over the CT;
- glTF 2.0 binary, all surfaces as named nodes of one file, in metres with Y up: x is the patient's
  left, y the head, z the front, so a viewer that looks along -z sees the patient's face and the
  right organs on the image's left, as in the clinic.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import igzip
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from triage.types import ORGAN_LABEL, Organ, Target

COARSE_MM = 3.0  # finer voxels are averaged to about this size
SMOOTH = 0.8  # standard deviation in coarse voxels
MARGIN = 3  # coarse voxels around a mask, so that its surface closes
SMALLEST = 8  # voxels; fewer make no surface
HOT = 0.60  # part of the full scale above which a spot is hot, as in the overlays

Colour = tuple[int, int, int]
ORGAN_COLOUR: dict[Organ, Colour] = {
    Organ.LIVER: (206, 112, 92),
    Organ.SPLEEN: (186, 124, 206),
    Organ.KIDNEY_RIGHT: (238, 176, 96),
    Organ.KIDNEY_LEFT: (238, 176, 96),
    Organ.BOWEL: (222, 196, 164),
    Organ.AORTA: (224, 84, 84),
    Organ.SPINE: (236, 236, 226),
}
HOT_COLOUR: Colour = (255, 40, 20)


@dataclass(frozen=True, slots=True)
class Mesh:
    """`vertices` float32 (N, 3), RAS+ mm; `faces` int32 (M, 3), counter-clockwise from outside."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colour: Colour


def organ_meshes(labels: MetaTensor) -> dict[Organ, Mesh]:
    """The surface of every organ in `labels` (1, X, Y, Z), values of `ORGAN_LABEL`."""
    found = {}
    values = labels.as_tensor()[0].cpu().numpy()
    affine = _affine(labels)
    for organ, label in ORGAN_LABEL.items():
        mesh = surface(values == label, affine, ORGAN_COLOUR[organ])
        if mesh is not None:
            found[organ] = mesh
    return found


def hot_mesh(saliency: MetaTensor, scale: float) -> Mesh | None:
    """The surface around what speaks strongly for a target; None where nothing does.

    `saliency` (1, X, Y, Z), positive for; `scale`: magnitude of full colour.
    """
    if scale <= 0:
        return None
    values = saliency.as_tensor()[0].cpu().numpy()
    return surface(values >= HOT * scale, _affine(saliency), HOT_COLOUR)


def surface(
    mask: NDArray[np.bool_], affine: NDArray[np.float64], colour: Colour = HOT_COLOUR
) -> Mesh | None:
    """The closed surface of a mask (X, Y, Z); `affine` (4, 4) voxel -> RAS+ mm. None if tiny."""
    from skimage.measure import marching_cubes

    if int(mask.sum()) < SMALLEST:
        return None
    box = [_span(mask, axis) for axis in range(3)]
    part = mask[box[0][0] : box[0][1], box[1][0] : box[1][1], box[2][0] : box[2][1]]
    size = np.linalg.norm(affine[:3, :3], axis=0)  # mm
    steps = np.maximum(1, np.round(COARSE_MM / size)).astype(int)
    field = _coarse(part, steps)
    padded = gaussian_filter(np.pad(field, MARGIN), SMOOTH)
    level = 0.5 * min(1.0, float(padded.max()))  # a thin mask does not reach 1
    if level <= 0:
        return None
    index, faces, _, _ = marching_cubes(padded, level)
    # voxel centres of the coarse field, in voxels of the mask
    start = np.array([b[0] for b in box], dtype=np.float64)
    voxel = (index - MARGIN) * steps + (steps - 1) / 2 + start
    world = voxel @ affine[:3, :3].T + affine[:3, 3]  # (N, 3) mm
    faces = np.ascontiguousarray(faces, dtype=np.int32)
    if _volume(world, faces) < 0:  # clockwise: an affine that mirrors turns them round
        faces = np.ascontiguousarray(faces[:, ::-1])
    return Mesh(world.astype(np.float32), faces, colour)


def mz3(mesh: Mesh) -> bytes:
    """One mesh as gzipped MZ3: faces, vertices, one colour a vertex."""
    colours = np.empty((len(mesh.vertices), 4), dtype=np.uint8)
    colours[:] = (*mesh.colour, 255)
    head = struct.pack("<HHIII", 0x5A4D, 1 | 2 | 4, len(mesh.faces), len(mesh.vertices), 0)
    body = mesh.faces.astype("<i4").tobytes() + mesh.vertices.astype("<f4").tobytes()
    return igzip.compress(head + body + colours.tobytes(), compresslevel=1, mtime=0)


# RAS+ mm -> glTF: x = left, y = superior, z = anterior, metres (a rotation: determinant +1e-9)
_TO_GLTF = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]]) / 1000


def glb(meshes: Mapping[str, Mesh], note: str = "") -> bytes:
    """All meshes as one glTF 2.0 binary; names become nodes. ValueError if there is none."""
    if not meshes:
        raise ValueError("Expected at least one mesh")
    parts: list[bytes] = []
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "trauma-ct-triage", "copyright": note},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [],
        "meshes": [],
        "materials": [],
        "accessors": [],
        "bufferViews": [],
    }
    for name, mesh in meshes.items():
        _add(tree, parts, name, mesh)
    binary = b"".join(parts)
    tree["buffers"] = [{"byteLength": len(binary)}]
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    return (
        struct.pack("<4sII", b"glTF", 2, length)
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(binary), b"BIN\x00")
        + binary
    )


def _add(tree: dict[str, Any], parts: list[bytes], name: str, mesh: Mesh) -> None:
    """One mesh: two buffer views, two accessors, a material, a node. All are multiples of 4."""
    points = (mesh.vertices.astype(np.float64) @ _TO_GLTF.T).astype("<f4")  # (N, 3) m
    at = sum(len(p) for p in parts)
    data = (mesh.faces.astype("<u4").tobytes(), points.tobytes())
    first = len(tree["accessors"])
    tree["bufferViews"] += [
        {"buffer": 0, "byteOffset": at, "byteLength": len(data[0]), "target": 34963},
        {"buffer": 0, "byteOffset": at + len(data[0]), "byteLength": len(data[1]), "target": 34962},
    ]
    low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    tree["accessors"] += [
        {"bufferView": first, "componentType": 5125, "count": mesh.faces.size, "type": "SCALAR"},
        {
            "bufferView": first + 1,
            "componentType": 5126,
            "count": len(points),
            "type": "VEC3",
            "min": low,
            "max": high,
        },
    ]
    colour = [*((np.array(mesh.colour) / 255) ** 2.2).round(4).tolist(), 1.0]  # linear
    number = len(tree["nodes"])
    tree["materials"].append(
        {
            "name": name,
            "pbrMetallicRoughness": {
                "baseColorFactor": colour,
                "metallicFactor": 0.0,
                "roughnessFactor": 0.8,
            },
        }
    )
    primitive = {"attributes": {"POSITION": first + 1}, "indices": first, "material": number}
    tree["meshes"].append({"name": name, "primitives": [primitive]})
    tree["nodes"].append({"name": name, "mesh": number})
    parts += data


def hot_name(target: Target) -> str:
    """What the hot spot of a target is called, in files and nodes."""
    return f"hot_{target.value}"


def _span(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and one behind the last voxel of the mask along one axis."""
    others = tuple(a for a in range(3) if a != axis)
    (where,) = np.nonzero(np.any(mask, axis=others))
    return int(where[0]), int(where[-1]) + 1


def _coarse(mask: NDArray[np.bool_], steps: NDArray[np.int_]) -> NDArray[np.float32]:
    """Means over blocks of voxels (X, Y, Z); zeros beyond the end."""
    room = [-n % k for n, k in zip(mask.shape, steps, strict=True)]
    whole = np.pad(mask, [(0, r) for r in room]).astype(np.float32)
    x, y, z = (n // k for n, k in zip(whole.shape, steps, strict=True))
    blocks = whole.reshape(x, steps[0], y, steps[1], z, steps[2])
    return np.asarray(blocks.mean(axis=(1, 3, 5)), dtype=np.float32)


def _volume(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> float:
    """Signed volume (mm^3): positive where faces are counter-clockwise from outside."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def _affine(image: MetaTensor) -> NDArray[np.float64]:
    return np.asarray(image.affine.cpu().numpy(), dtype=np.float64)

"""A received series as NIfTI, made on demand in a process of its own and kept in a cache.

    python -m triage.service.volumes    reads a JSON job on stdin; see `Job`

The process imports no networks, so it starts within a second. Pixels are decoded in the child that
every untrusted file goes through (`triage.dicom.child`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triage.files import write_atomic
from triage.reasons import NotAnalysed
from triage.settings import Settings

PREVIEW_MM = 2.0
AT_ONCE = 2  # a full volume takes about a gigabyte
_REFUSED = 3  # exit code of the job; the reason is on stdout


class Volumes:
    """The cache below `home`/cache/volumes, one folder a study."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.home.expanduser().resolve() / "cache" / "volumes"
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._locks: dict[Path, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, study: str, instances: Sequence[Path], *, preview: bool) -> Path:
        """The NIfTI file of these images, from the cache or new; `study` is our own id.

        Raises NotAnalysed where they are no volume, TIMED_OUT included.
        """
        names = "\n".join(sorted(str(path) for path in instances))
        digest = hashlib.sha256(names.encode()).hexdigest()[:32]  # a late image is another volume
        path = self.folder / study / f"{digest}{'-preview' if preview else ''}.nii.gz"
        with self._guard:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            if not path.is_file():
                with self._slots:
                    self._make(path, instances, preview)
        with self._guard:
            self._locks.pop(path, None)
        return path

    def remove(self, study: str) -> None:
        shutil.rmtree(self.folder / study, ignore_errors=True)

    def _make(self, path: Path, instances: Sequence[Path], preview: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        job = {
            "instances": [str(p) for p in instances],
            "out": str(path),
            "spacing_mm": PREVIEW_MM if preview else None,
        }
        seconds = self.settings.decode_timeout_s * 3
        try:
            done = subprocess.run(
                [sys.executable, "-m", "triage.service.volumes"],
                input=json.dumps(job).encode(),
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotAnalysed("TIMED_OUT", f"after {seconds:g} s") from error
        if done.returncode == _REFUSED:
            answer = json.loads(done.stdout)
            raise NotAnalysed(answer["code"], answer["detail"])
        if done.returncode or not path.is_file():
            raise NotAnalysed("WORKER_FAILED", "no volume could be made")


def main() -> int:
    """The job: decode, turn to RAS+, average down for a preview, write."""
    job: dict[str, Any] = json.load(sys.stdin)
    try:
        write_volume([Path(p) for p in job["instances"]], Path(job["out"]), job["spacing_mm"])
    except NotAnalysed as refusal:
        print(json.dumps({"code": refusal.code, "detail": refusal.detail}))
        return _REFUSED
    return 0


def write_volume(instances: Sequence[Path], out: Path, spacing_mm: float | None) -> None:
    """Write the series in `instances` as NIfTI-1, int16 HU, axes nearest to RAS+, mm.

    `spacing_mm`: voxels are averaged in whole blocks to about this size; None keeps them all.
    Raises NotAnalysed.
    """
    import nibabel as nib
    import numpy as np
    from isal import igzip

    from triage.dicom import decode, open_study

    options = Settings()
    with tempfile.TemporaryDirectory(prefix="triage-volume-") as name:
        folder = Path(name)
        for number, path in enumerate(instances):
            (folder / f"{number:06d}.dcm").symlink_to(path)
        with open_study(folder, options) as study:
            stack = decode(study.series[0], options)
    codes = nib.io_orientation(stack.affine)  # (3, 2): world axis and direction of each voxel axis
    hu = nib.apply_orientation(np.asarray(stack.hu), codes)  # (X, Y, Z) RAS+
    affine = stack.affine @ nib.orientations.inv_ornt_aff(codes, stack.hu.shape)
    if spacing_mm is not None:
        hu, affine = averaged(hu, affine, spacing_mm)
    image = nib.Nifti1Image(np.clip(np.rint(hu), -32768, 32767).astype(np.int16), affine)
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    write_atomic(out, igzip.compress(image.to_bytes(), compresslevel=1))


def averaged(hu: Any, affine: Any, spacing_mm: float) -> tuple[Any, Any]:
    """Means over whole blocks of voxels. `hu` (X, Y, Z); blocks that are cut off are left out."""
    import numpy as np

    size = np.linalg.norm(affine[:3, :3], axis=0)
    # a block is never larger than the volume
    steps = [min(max(1, round(spacing_mm / s)), n) for s, n in zip(size, hu.shape, strict=True)]
    whole = [n // k * k for n, k in zip(hu.shape, steps, strict=True)]
    x, y, z = (n // k for n, k in zip(whole, steps, strict=True))
    blocks = hu[: whole[0], : whole[1], : whole[2]].reshape(x, steps[0], y, steps[1], z, steps[2])
    scaled = affine.copy()
    scaled[:3, :3] = affine[:3, :3] * steps
    scaled[:3, 3] = affine[:3, 3] + affine[:3, :3] @ ((np.asarray(steps) - 1) / 2)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32), scaled


if __name__ == "__main__":
    sys.exit(main())

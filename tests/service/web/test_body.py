"""The CT that the browser shows without the air around it: the same voxels at the same place."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import nibabel as nib
import numpy as np
from looking import window
from running import Running

from triage.service.web import assets

CROP = """async ([address, data, step]) => {
  const { bodyOnly } = await import(address);
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const out = new Uint8Array(await (await bodyOnly(new Blob([bytes]), step)).arrayBuffer());
  return btoa(Array.from(out, (b) => String.fromCharCode(b)).join(''));
}"""
AFFINE = np.array([[-1.5, 0.1, 0, 90], [0.05, 1.5, 0, -80], [0, 0, 3, -50], [0, 0, 0, 1.0]])


def cropped(page: Any, image: nib.Nifti1Image, step: int = 1) -> nib.Nifti1Image:
    data = base64.b64encode(gzip.compress(image.to_bytes())).decode()
    answer = page.evaluate(CROP, [assets.address("js/body.js"), data, step])
    return nib.Nifti1Image.from_bytes(base64.b64decode(answer))


def test_the_body_stays_where_it_is_and_the_air_goes(browser: Any, quick: Running) -> None:
    hu = np.full((60, 50, 12), -1000, np.int16)
    hu[20:40, 15:30, 3:10] = np.random.default_rng(1).integers(-100, 300, (20, 15, 7))
    with window(browser, quick.base) as page:
        page.goto("/")
        found = cropped(page, nib.Nifti1Image(hu, AFFINE))
        coarse = cropped(page, nib.Nifti1Image(hu, AFFINE), 2)
        air = cropped(page, nib.Nifti1Image(np.full_like(hu, -1000), AFFINE))
        map_of = cropped(page, nib.Nifti1Image(hu.astype(np.float32), AFFINE))
    shown = np.asarray(found.dataobj)
    assert shown.shape == (28, 23, 12)
    assert np.array_equal(shown, hu[16:44, 11:34])
    assert np.allclose(found.affine @ [0, 0, 0, 1], AFFINE @ [16, 11, 0, 1], atol=1e-4)
    assert np.allclose(found.affine[:3, :3], AFFINE[:3, :3], atol=1e-6)
    mean = hu[16:44, 11:33].reshape(14, 2, 11, 2, 12).mean((1, 3))
    assert np.abs(np.asarray(coarse.dataobj) - mean).max() <= 0.5
    assert np.allclose(coarse.affine @ [3, 4, 5, 1], AFFINE @ [22.5, 19.5, 5, 1], atol=1e-4)
    assert np.allclose(coarse.header.get_zooms()[:2], 2 * np.array(found.header.get_zooms()[:2]))
    assert air.shape == map_of.shape == hu.shape  # what is no body, or no HU, stays whole

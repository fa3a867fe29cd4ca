"""The tensor code on another device, checked without one: which tensors would lie on the host?

`Elsewhere` pretends that everything lies on an accelerator: what comes from numpy or from `.cpu()`
is on the host until `.to(...)` moves it, `.numpy()` needs the host, and an operation must not mix
both (but for single numbers and for indices, as torch allows).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from triage.simulate import tubes
from triage.simulate.patient import simulate
from triage.simulate.plan import Case
from triage.types import Phase

Tensor = torch.Tensor
FROM_NUMPY = torch.from_numpy
MADE = {torch.as_tensor, torch.tensor}  # on the default device
NUMPY = {Tensor.numpy, Tensor.__array__}
INDEXING = {Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put_}


def from_numpy(array: Any) -> Tensor:
    """`torch.from_numpy` with a note that its result is on the host: modes do not see the call."""
    made = FROM_NUMPY(array)
    made._on_host = True  # type: ignore[attr-defined]
    return made


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the branch for accelerators where a function has one for the CPU."""
    monkeypatch.setattr(torch, "from_numpy", from_numpy)

    def dense(distance: Tensor, grid: Any, path: Any, radius: Any, reach_mm: float = 3.0) -> None:
        radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),))
        tubes._paint_dense(distance, grid, path, radii, reach_mm)

    for name, module in sys.modules.items():
        if not (name.startswith("triage.simulate.") and hasattr(module, "paint_tube")):
            continue
        monkeypatch.setattr(module, "paint_tube", dense)


def on_host(value: Any) -> bool:
    return bool(getattr(value, "_on_host", False))


def is_device(value: Any) -> bool:
    return isinstance(value, str | torch.device | Tensor)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for part in value for t in tensors(part)]
    if isinstance(value, dict):
        return tensors(list(value.values()))
    return []


class Elsewhere(TorchFunctionMode):
    """Pretends that tensors are made on an accelerator; raises where host and device meet."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors([args, kwargs])
        moves = func in MADE or (func is Tensor.to and any(map(is_device, [*args[1:], *kwargs])))
        if func in NUMPY and not on_host(given[0]):
            raise AssertionError(f"{func} of a tensor on the device: .cpu() first")
        if func in INDEXING:
            given = given[:1]
        elif len({on_host(t) for t in given if t.dim()}) == 2 and not moves:
            raise AssertionError(f"{func} mixes tensors of host and device")
        out = func(*args, **kwargs)
        if any(out is t for t in given) and (moves or func is Tensor.cpu):
            out = out.detach()  # on a CPU nothing moves: a name of its own for what would be a copy
        host = func is Tensor.cpu or (not moves and any(on_host(t) for t in given if t.dim()))
        for made in tensors(out):
            if host or on_host(made):
                made._on_host = host  # type: ignore[attr-defined]
        return out


@pytest.mark.usefixtures("_elsewhere")
def test_the_pretence_finds_what_a_gpu_would_refuse() -> None:
    host = np.zeros(3)
    with Elsewhere():
        made = torch.zeros(3)
        with pytest.raises(AssertionError, match=r"\.cpu\(\) first"):
            made.numpy()
        with pytest.raises(AssertionError, match="mixes"):
            made + torch.from_numpy(host)
        assert (made + torch.from_numpy(host).to(made.device)).sum() == 0
        assert made.cpu().numpy().sum() == 0 and made.cpu()[1:].numpy().sum() == 0
        assert (made * torch.from_numpy(host).sum()).sum() == 0  # one number may come from the host


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_patient_is_made_on_one_device(seed: int) -> None:
    case = Case(bowel=1, extravasation=1, kidney=2, liver=2, spleen=1)
    with Elsewhere():
        simulate(seed, spacing=(6.0, 6.0, 8.0), case=case, phase=Phase.ARTERIAL)

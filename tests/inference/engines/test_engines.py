"""Engines compute the same, and what they keep on disk is checked before it is used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from triage.inference.engines import Engine, EngineError, choose_engine, thread_count
from triage.inference.engines.openvino_engine import OpenVINOEngine
from triage.inference.engines.rounded import RoundedEngine, to_bf16
from triage.inference.engines.torch_engine import TorchEngine
from triage.inference.localise import describe, localise
from triage.inference.networks import Networks, load_networks
from triage.inference.score import gather, look_at_slices, to_score
from triage.nets.bundle import find_bundle
from triage.types import ORGAN_LABEL, Anatomy, Organ, Target

CPU = torch.device("cpu")
AFFINE = torch.diag(torch.tensor([1.5, 1.5, 3.0, 1.0], dtype=torch.float64))


class _Small(nn.Module):
    """Free in every side but the channels."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 4, 3, padding=1)
        nn.init.constant_(self.net.weight, 0.1)
        nn.init.constant_(self.net.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x).relu()
        return out


def _run(engine: Engine, net: nn.Module, key: str = "small") -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 3 * 9 * 7).reshape(2, 3, 9, 7)
    return engine.compile(net, [torch.zeros(1, 3, 8, 8)], key)(x)


def test_any_size_runs_and_agrees_with_torch() -> None:
    net = _Small(0.2)
    reference = _run(choose_engine("torch", CPU), net)
    assert torch.allclose(_run(OpenVINOEngine(threads=1), net), reference, atol=1e-5)


def test_a_compiled_network_is_taken_from_the_cache(tmp_path: Path) -> None:
    made = _run(OpenVINOEngine(threads=1, cache=tmp_path), _Small(0.2))
    (stored,) = tmp_path.iterdir()
    again = _run(OpenVINOEngine(threads=1, cache=tmp_path), _Small(5.0))  # the key decides
    assert torch.equal(again, made)
    assert list(tmp_path.iterdir()) == [stored]


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    made = _run(OpenVINOEngine(threads=1, cache=tmp_path), _Small(0.2))
    (stored,) = tmp_path.iterdir()
    whole = stored.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    stored.write_bytes(bytes(changed) if damage is None else damage)
    assert torch.equal(_run(OpenVINOEngine(threads=1, cache=tmp_path), _Small(0.2)), made)
    content = stored.read_bytes()
    assert len(content) > len(b"short") and content != bytes(changed)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = OpenVINOEngine(threads=1, cache=tmp_path / "file" / "below")
    assert torch.isfinite(_run(engine, _Small())).all()


def test_other_precision_other_file(tmp_path: Path) -> None:
    for precision in ("f32", "bf16"):
        _run(OpenVINOEngine(threads=1, cache=tmp_path, precision=precision), _Small())
    assert len(list(tmp_path.iterdir())) == 2


def test_the_telemetry_cannot_be_imported() -> None:
    with pytest.raises(ImportError):
        __import__("openvino_telemetry")
    assert sys.modules["openvino_telemetry"] is None


def test_engines_are_chosen_by_name() -> None:
    assert choose_engine("torch", CPU).name == "torch"
    assert choose_engine("auto", CPU).name == "openvino"
    with pytest.raises(EngineError, match="Expected an engine"):
        choose_engine("abacus", CPU)
    with pytest.raises(EngineError, match="on the CPU"):
        choose_engine("openvino", torch.device("cuda"))


def test_threads_follow_the_setting_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count(5) == 5
    assert thread_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count() >= 1


def _body() -> tuple[MetaTensor, Anatomy]:
    """Two organs in fat, (1, 96, 72, 24) on the working grid."""
    labels = torch.zeros(96, 72, 24, dtype=torch.uint8)
    labels[48:84, 16:56, 4:20] = ORGAN_LABEL[Organ.LIVER]
    labels[12:30, 20:44, 8:18] = ORGAN_LABEL[Organ.SPLEEN]
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    hu = torch.where(labels > 0, 110.0, -90.0) + 15 * noise
    return MetaTensor(hu[None], affine=AFFINE), describe(labels, AFFINE)


def test_the_shipped_networks_answer_alike_on_every_engine() -> None:
    grid, anatomy = _body()
    targets = (Target.LIVER, Target.SPLEEN)

    def scores(networks: Networks) -> torch.Tensor:
        evidence = gather(networks, grid, anatomy, targets)
        found = [to_score(t, evidence, grid) for t in targets]
        return torch.tensor([[s.ensemble, s.volume or 0.0] for s in found if s]).sigmoid()

    folder = find_bundle("reference")
    engines = (choose_engine("torch", CPU), OpenVINOEngine(threads=1))
    one, other = (scores(load_networks(folder, "cpu", engine)) for engine in engines)
    assert one.shape == (2, 2)
    assert float((one - other).abs().max()) < 1e-3


def test_exact_is_fp32_on_every_engine() -> None:
    net = _Small(0.2)
    example, x = [torch.zeros(1, 3, 8, 8)], torch.rand(2, 3, 9, 7)
    with torch.no_grad():
        wanted = net(x)
    half = (TorchEngine(CPU, "bf16"), OpenVINOEngine(threads=1, precision="bf16"))
    for engine in half:
        rounded = engine.compile(net, example, "small")(x)
        assert not torch.allclose(rounded, wanted, atol=1e-5)
        assert torch.allclose(
            engine.compile(net, example, "small", exact=True)(x), wanted, atol=1e-5
        )


def test_rounding_is_that_of_bf16() -> None:
    x = torch.randn(1, 3, 64, 64) * torch.logspace(-6, 4, 64)
    engine = OpenVINOEngine(threads=1, precision="f32")
    found = engine.compile(_Rounding(), [torch.zeros(1, 3, 8, 8)], "rounding")(x)
    assert torch.equal(to_bf16(x), x.bfloat16().float())
    assert torch.equal(found, x.bfloat16().float())


class _Rounding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return to_bf16(x)


def test_organs_are_found_in_fp32_on_every_engine() -> None:
    grid, _ = _body()
    folder = find_bundle("reference")
    engines = (OpenVINOEngine(threads=1, precision=p) for p in ("f32", "bf16"))
    one, other = (localise(load_networks(folder, "cpu", e), grid).labels for e in engines)
    assert one.any() and torch.equal(one, other)


@pytest.mark.parametrize("rounds", [False, True])
def test_sensitive_blocks_keep_the_trunk_near_fp32(rounds: bool) -> None:
    grid, anatomy = _body()
    folder, target = find_bundle("reference"), Target.LIVER
    half = RoundedEngine(threads=1) if rounds else OpenVINOEngine(threads=1, precision="bf16")
    engines = (TorchEngine(CPU, "f32"), half)
    true, found = (
        look_at_slices(load_networks(folder, "cpu", e), grid, anatomy, [target])[target][0].features
        for e in engines
    )
    error = float((found - true).norm() / true.norm())
    assert 0.004 < error < 0.015  # without them 0.023

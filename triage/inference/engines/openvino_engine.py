"""OpenVINO on the CPU.

Networks are traced by torch and converted in memory; what was compiled is kept in a cache folder
(`compiled_cache`), so that the next process starts without converting. No
network is needed or used.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from triage.inference.engines import Compiled
from triage.inference.engines.compiled_cache import CompiledCache
from triage.inference.engines.quiet_openvino import ov

_PRECISIONS = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}


class OpenVINOEngine:
    """See `Engine`. `precision` None: bf16 where the CPU has it in hardware, else f32."""

    name = "openvino"
    device = torch.device("cpu")

    def __init__(
        self, *, threads: int, cache: Path | None = None, precision: str | None = None
    ) -> None:
        self._core = ov.Core()
        native = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = precision or ("bf16" if native else "f32")
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",  # all cores on one batch
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # pinned threads of two processes share one core
        }
        self._cache = CompiledCache(cache, self._identity())

    def _identity(self) -> str:
        """What a compiled network depends on besides the network."""
        processor = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        parts = (ov.__version__, torch.__version__, self.precision, processor, *sorted(able))
        return " ".join(map(str, parts))

    def compile(
        self, module: nn.Module, examples: Sequence[Tensor], key: str, *, exact: bool = False
    ) -> Compiled:
        options = self._options
        if exact:
            key, options = f"{key} exact", options | {"INFERENCE_PRECISION_HINT": ov.Type.f32}
        model = self._from_cache(key, options)
        if model is None:
            model = self._core.compile_model(_convert(module, examples), "CPU", options)
            self._cache.store(key, model.export_model().getvalue)
        return _runner(model)

    def _from_cache(self, key: str, options: dict[str, Any]) -> Any:
        """The stored network, or None: a file that OpenVINO cannot take is as good as none."""
        content = self._cache.load(key)
        if content is None:
            return None
        try:
            return self._core.import_model(io.BytesIO(content), "CPU", options)
        except RuntimeError:
            return None


def _convert(module: nn.Module, examples: Sequence[Tensor]) -> Any:
    """The module as OpenVINO's graph: every side free except that of axis 1."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of checks on shapes, which hold
        traced = torch.jit.trace(module.eval(), tuple(examples), check_trace=False)
        model = ov.convert_model(traced, example_input=tuple(examples))
    shapes = {}
    for i, example in enumerate(examples):
        sides = [-1] * example.ndim
        sides[1] = int(example.shape[1])
        shapes[i] = ov.PartialShape(sides)
    model.reshape(shapes)
    return model


def _runner(model: Any) -> Compiled:
    request = model.create_infer_request()

    def run(*inputs: Tensor) -> Tensor:
        arrays = [np.ascontiguousarray(x.detach().numpy(), dtype=np.float32) for x in inputs]
        out = request.infer(arrays, share_inputs=True, share_outputs=False)
        return torch.from_numpy(out[0])

    return run

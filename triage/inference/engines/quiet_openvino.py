"""The one place where OpenVINO is imported, without its telemetry.

`openvino_telemetry` would report the use of the converter to its makers. With None in its place the
import of it fails, and OpenVINO takes its own stub instead.
"""

from __future__ import annotations

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402

__all__ = ["ov"]

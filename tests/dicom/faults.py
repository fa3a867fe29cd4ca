"""Tasks for the child process that end badly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def echo(request: dict[str, Any], out: Any) -> dict[str, Any]:
    if out is not None:
        out[:5] = b"hello"
    return request


def end_by_signal(_request: dict[str, Any], _out: Any) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def take_memory(_request: dict[str, Any], _out: Any) -> dict[str, Any]:
    return {"size": len(bytearray(1 << 30))}


def never_end(_request: dict[str, Any], _out: Any) -> dict[str, Any]:
    time.sleep(60)
    return {}


def write_file(request: dict[str, Any], _out: Any) -> dict[str, Any]:
    Path(request["path"]).write_text("x" * 10)
    return {}


def print_noise(_request: dict[str, Any], _out: Any) -> dict[str, Any]:
    os.write(1, b"noise")
    return {"fine": True}


def recurse(_request: dict[str, Any], _out: Any) -> dict[str, Any]:
    return recurse(_request, _out)


def end_in_folder_bad(request: dict[str, Any], out: Any) -> dict[str, Any]:
    """Decodes, but ends by a signal where the slices lie in a folder named "bad"."""
    from triage.dicom.pixels import decode_slices

    if Path(request["planes"][0]["path"]).parent.name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_slices(request, out)

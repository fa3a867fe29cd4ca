"""The child that reads may die in any way; the study is then refused and the next one is fine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from triage.dicom import child, decode, open_study, stack
from triage.reasons import NotAnalysed
from triage.settings import Settings

from . import write

FAULTS = "tests.dicom.faults:"


def refused(task: str, memory_bytes: int = 0, timeout_s: float = 20) -> NotAnalysed:
    with pytest.raises(NotAnalysed) as info:
        child.run(FAULTS + task, {}, timeout_s=timeout_s, memory_bytes=memory_bytes)
    return info.value


def test_answer_and_shared_memory() -> None:
    answer, memory = child.run(FAULTS + "echo", {"a": 1}, timeout_s=20, out_bytes=10)
    assert answer == {"a": 1}
    assert memory is not None
    assert memory[:] == b"hello\0\0\0\0\0"


def test_signal() -> None:
    error = refused("end_by_signal")
    assert error.code == "WORKER_FAILED"
    assert "SIGSEGV" in error.detail


def test_memory() -> None:
    assert refused("take_memory", memory_bytes=100 << 20).code == "TOO_LARGE"


def test_timeout() -> None:
    start = time.monotonic()
    assert refused("never_end", timeout_s=1.0).code == "TIMED_OUT"
    assert time.monotonic() - start < 10


def test_unexpected_exception() -> None:
    assert refused("recurse").code == "WORKER_FAILED"


def test_it_can_write_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(NotAnalysed):
        child.run(FAULTS + "write_file", {"path": str(path)}, timeout_s=20)
    assert not path.exists() or path.stat().st_size == 0


def test_noise_on_stdout_does_no_harm() -> None:
    assert child.run(FAULTS + "print_noise", {}, timeout_s=20)[0] == {"fine": True}


@pytest.mark.parametrize(
    ("task", "settings", "code"),
    [
        ("end_by_signal", {}, "WORKER_FAILED"),
        ("take_memory", {"decode_memory_bytes": 100 << 20}, "TOO_LARGE"),
        ("never_end", {"decode_timeout_s": 1.5}, "TIMED_OUT"),
    ],
)
def test_decoding_dies_and_the_next_series_is_fine(
    task: str,
    settings: dict[str, float],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write.write_series(tmp_path, write.turned(write.phantom(), "LPS"))
    with open_study(tmp_path, Settings()) as study:
        (series,) = study.series
        with monkeypatch.context() as patch:
            patch.setattr(stack, "TASK", FAULTS + task)
            with pytest.raises(NotAnalysed) as info:
                decode(series, Settings(**settings))
        assert info.value.code == code
        assert info.value.study_instance_uid == study.study_instance_uid
        assert decode(series, Settings()).hu.shape == write.phantom().shape


def test_a_real_limit_of_memory_and_time(tmp_path: Path) -> None:
    write.write_series(tmp_path, write.turned(write.phantom(), "LPS"), syntax="jpeg_2000")
    with open_study(tmp_path, Settings()) as study:
        with pytest.raises(NotAnalysed) as info:
            decode(study.series[0], Settings(decode_memory_bytes=1 << 16))
        assert info.value.code in ("TOO_LARGE", "WORKER_FAILED", "PIXELS_UNDECODABLE")
        with pytest.raises(NotAnalysed) as info:
            decode(study.series[0], Settings(decode_timeout_s=0.01))
        assert info.value.code == "TIMED_OUT"


def test_import_is_light() -> None:
    heavy = ["torch", "monai", "SimpleITK", "pydicom", "nibabel", "numpy", "pydantic"]
    code = f"import sys, triage.dicom; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

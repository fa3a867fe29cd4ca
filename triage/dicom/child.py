"""Runs one function in a child process that may die: limits, a timeout, and shared memory.

Malformed files can crash a decoder, claim gigabytes or never end. So nothing of a file is parsed
in the caller's process. The request is JSON from us; the answer is JSON from the child and is not
trusted to be anything else (no pickle). Big arrays go through a shared anonymous file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..reasons import NotAnalysed

_MAX_ANSWER = 512 << 20  # bytes of JSON; 100,000 headers are about 150 MB


def run(
    task: str,
    request: dict[str, Any],
    *,
    timeout_s: float,
    memory_bytes: int = 0,
    out_bytes: int = 0,
    may_write: bool = False,
) -> tuple[dict[str, Any], mmap.mmap | None]:
    """Calls `task` ("module:function") as `function(request, out)` in a fresh process.

    `out` is a writable memory map of `out_bytes` zero bytes (None for 0), the second return value
    here. `memory_bytes`: address space the child may add to what its modules take, `out` not
    counted; 0 means no limit. The child can write to no file unless `may_write`.

    Raises NotAnalysed: the child's own refusal, TIMED_OUT, TOO_LARGE (it ran out of its memory) or
    WORKER_FAILED (it ended by a signal or by an unexpected exception).
    """
    shared = _shared_file(out_bytes) if out_bytes else None
    try:
        job = {
            "task": task,
            "request": request,
            "memory_bytes": memory_bytes,
            "cpu_s": cpu_limit(timeout_s),
            "out_fd": shared,
            "out_bytes": out_bytes,
            "may_write": may_write,
            "parent": os.getpid(),
        }
        answer = _converse(json.dumps(job).encode(), timeout_s, [] if shared is None else [shared])
        return answer, None if shared is None else mmap.mmap(shared, out_bytes)
    finally:
        if shared is not None:
            os.close(shared)


def _shared_file(size: int) -> int:
    """A file descriptor of an anonymous file of `size` bytes; pages exist once touched."""
    if hasattr(os, "memfd_create"):
        import fcntl

        fd = os.memfd_create("triage", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        # A child that shrank the file would kill its parent by SIGBUS.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return fd
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return os.dup(file.fileno())


def _converse(job: bytes, timeout_s: float, fds: list[int]) -> dict[str, Any]:
    environment = {
        **{k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR", "HOME")},
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "1",  # each BLAS thread would reserve address space
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "triage.dicom.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        pass_fds=fds,
    )
    try:
        text, _ = process.communicate(job, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise NotAnalysed("TIMED_OUT", f"reading took more than {timeout_s:g} s") from None
    finally:
        process.kill()  # no effect on one that has ended
        process.wait()
    return _understand(text, process.returncode)


def _understand(text: bytes, code: int) -> dict[str, Any]:
    if code == -signal.SIGXCPU:
        raise NotAnalysed("TIMED_OUT", "reading took too much processor time")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        raise NotAnalysed("WORKER_FAILED", f"reader ended by {name}")
    try:
        answer = json.loads(text) if len(text) <= _MAX_ANSWER else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise NotAnalysed("WORKER_FAILED", f"reader ended with code {code} and no answer")
    if "refused" in answer:
        raise NotAnalysed(str(answer["refused"]), str(answer.get("detail", ""))[:500])
    return answer


def cpu_limit(timeout_s: float) -> int:
    """Seconds of CPU that a child may take: all cores for all of its time."""
    return int(timeout_s * (os.cpu_count() or 1)) + 1


# ---- the child's side


def _limit(job: dict[str, Any]) -> None:
    """Limits of this process; those that the system does not know are left out."""

    def lower(kind: int, value: int) -> None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_CPU, job["cpu_s"])
    if not job["may_write"]:
        lower(resource.RLIMIT_FSIZE, 0)
    statm = Path("/proc/self/statm")
    if job["memory_bytes"] and statm.exists():
        now = int(statm.read_text().split()[0]) * mmap.PAGESIZE
        lower(resource.RLIMIT_AS, now + job["memory_bytes"] + job["out_bytes"])


def _die_with_parent(parent: int) -> None:
    """Linux: SIGKILL when the parent ends (prctl PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _refusal(error: BaseException) -> dict[str, Any]:
    if isinstance(error, NotAnalysed):
        return {"refused": error.code, "detail": error.detail}
    if isinstance(error, MemoryError):
        return {"refused": "TOO_LARGE", "detail": "reading needs more memory than allowed"}
    return {"refused": "WORKER_FAILED", "detail": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    """Reads one job from stdin, answers on what was stdout."""
    answer_fd = os.dup(1)
    os.dup2(2, 1)  # C libraries that print must not garble the answer
    job = json.load(sys.stdin)
    _die_with_parent(job["parent"])
    module, _, name = job["task"].partition(":")
    function = getattr(importlib.import_module(module), name)
    out = mmap.mmap(job["out_fd"], job["out_bytes"]) if job["out_fd"] is not None else None
    _limit(job)
    try:
        answer = function(job["request"], out)
    except Exception as error:  # every end of a task is an answer
        answer = _refusal(error)
    with os.fdopen(answer_fd, "wb") as stream:
        stream.write(json.dumps(answer).encode())
    os._exit(0)  # no tidying: `out` may still be referenced by arrays


if __name__ == "__main__":
    main()

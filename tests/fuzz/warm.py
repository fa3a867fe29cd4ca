"""`triage.dicom.child.run` by a fork of a warm process: 5 ms in place of half a second.

The task, its limits, its answer and what is made of it are those of `child`; only the fresh
interpreter is saved, which thousands of inputs would wait for. Tests of `child` itself start it.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from triage.dicom import child

ROOT = Path(__file__).resolve().parents[2]
# What the tasks import when they are first needed.
MODULES = (
    *("numpy", "pydicom", "imagecodecs", "nibabel", "SimpleITK", "zipfile", "triage.dicom.archive"),
    *("triage.dicom.headers", "triage.dicom.pixels", "triage.dicom.codecs", "triage.dicom.files"),
)
_MESSAGE = 1 << 24


class Warm:
    """A server of forks. `run` has the signature of `child.run` and may be put in its place."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = ours
        self._lock = threading.Lock()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.fuzz.warm", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
        )
        theirs.close()

    def run(
        self,
        task: str,
        request: dict[str, Any],
        *,
        timeout_s: float,
        memory_bytes: int = 0,
        out_bytes: int = 0,
        may_write: bool = False,
    ) -> tuple[dict[str, Any], mmap.mmap | None]:
        """See `child.run`."""
        shared = child._shared_file(out_bytes) if out_bytes else None
        job = {
            "task": task,
            "request": request,
            "memory_bytes": memory_bytes,
            "timeout_s": timeout_s,
            "cpu_s": child.cpu_limit(timeout_s),
            "out_bytes": out_bytes,
            "may_write": may_write,
        }
        try:
            answer = child._understand(*self._asked(job, shared))
            return answer, None if shared is None else mmap.mmap(shared, out_bytes)
        finally:
            if shared is not None:
                os.close(shared)

    def _asked(self, job: dict[str, Any], shared: int | None) -> tuple[bytes, int]:
        reading, writing = os.pipe()
        try:
            with self._lock:
                data = json.dumps(job).encode()
                handles = [writing] if shared is None else [writing, shared]
                head = len(data).to_bytes(4, "big")
                socket.send_fds(self._socket, [head], handles)
                self._socket.sendall(data)
                os.close(writing)
                writing = -1
                with os.fdopen(reading, "rb", closefd=False) as stream:
                    text = stream.read()
                code = int.from_bytes(_exactly(self._socket, 4), "big", signed=True)
            if code == -signal.SIGALRM:
                raise child.NotAnalysed(
                    "TIMED_OUT", f"reading took more than {job['timeout_s']:g} s"
                )
            return text, code
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=30)


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            raise EOFError("the server of forks has ended")
        data += more
    return data


# ---- the server


def serve(stream: socket.socket) -> None:
    for name in MODULES:
        importlib.import_module(name)
    import imagecodecs

    for name in (
        "jpeg8_decode",
        "ljpeg_decode",
        "jpegls_decode",
        "jpeg2k_decode",
        "packbits_decode",
    ):
        getattr(imagecodecs, name)
    while True:
        head, handles, _, _ = socket.recv_fds(stream, 4, 2)
        if not head:
            return
        head += _exactly(stream, 4 - len(head)) if len(head) < 4 else b""
        job = json.loads(_exactly(stream, int.from_bytes(head, "big")))
        pid = os.fork()
        if not pid:
            _work(job, *handles)
        for handle in handles:
            os.close(handle)
        stream.sendall(_ended(pid, job["timeout_s"]).to_bytes(4, "big", signed=True))


def _ended(pid: int, timeout_s: float) -> int:
    """How the fork ended, as subprocess says it; one that is late is killed (-SIGALRM)."""
    handle = os.pidfd_open(pid)
    late = not select.select([handle], [], [], timeout_s)[0]
    if late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(handle)
    return -signal.SIGALRM if late else os.waitstatus_to_exitcode(status)


def _work(job: dict[str, Any], writing: int, shared: int | None = None) -> None:
    """The task in the fork; as `child.main`."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        module, _, name = job["task"].partition(":")
        function = getattr(importlib.import_module(module), name)
        out = None if shared is None else mmap.mmap(shared, job["out_bytes"])
        child._limit(job)
        try:
            answer = function(job["request"], out)
        except Exception as error:
            answer = child._refusal(error)
        with os.fdopen(writing, "wb") as stream:
            stream.write(json.dumps(answer).encode())
        os._exit(0)
    except BaseException:
        os._exit(1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

"""Helper of scripts/demo: starts the service, sends it a study over C-STORE, shows the verdicts.

    python scripts/demo_service.py STUDY HOME [--once]

Without --once the service stays until Ctrl-C.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from triage.types import TARGETS

START_S, ANALYSE_S = 120.0, 900.0
QUIET_S = 3


def port(wanted: int) -> int:
    """`wanted` if it is free, else any other."""
    for candidate in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            return int(probe.getsockname()[1])
    raise SystemExit("error: no port is free on 127.0.0.1")


def start(home: Path, http_port: int, dicom_port: int) -> subprocess.Popen[bytes]:
    """`triage serve`, its log beside the home."""
    settings = {
        "TRIAGE_HOME": str(home),
        "TRIAGE_HTTP_PORT": str(http_port),
        "TRIAGE_DICOM_PORT": str(dicom_port),
        "TRIAGE_SERIES_QUIET_S": str(QUIET_S),
    }
    with home.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "triage.cli.main", "serve"],
            env=os.environ | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us; we end it
        )


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own  # nosec B310
        return json.load(answer)


def wait_until_it_answers(service: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if service.poll() is not None:
            break
        with suppress(OSError):
            ask(f"{url}/healthz")
            return
        time.sleep(0.2)
    raise SystemExit(
        f"error: the service did not start:\n{log.read_text(errors='replace')[-2000:]}"
    )


def dicom_files(study: Path) -> list[Path]:
    files = [study] if study.is_file() else sorted(p for p in study.rglob("*") if p.is_file())
    return [p for p in files if _is_dicom(p)]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def send(files: list[Path], dicom_port: int) -> None:
    """C-STORE by DCMTK's storescu where it is installed, else by pynetdicom."""
    program = shutil.which("storescu", path=os.pathsep.join(("/usr/bin", "/usr/local/bin")))
    if program is not None:
        command = [program, "-R", "-aec", "TRIAGE", "-aet", "DEMO", "127.0.0.1", str(dicom_port)]
        for some in _chunks(files, 500):
            environment = os.environ | {"TCP_NODELAY": "1"}
            subprocess.run([*command, *map(str, some)], env=environment, check=True)
        return
    from pydicom import dcmread
    from pynetdicom import AE

    entity = AE(ae_title="DEMO")
    first = dcmread(files[0], stop_before_pixels=True)
    entity.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", dicom_port, ae_title="TRIAGE")
    if not association.is_established:
        raise SystemExit("error: the DICOM port did not answer")
    for path in files:
        status = association.send_c_store(dcmread(path))
        if "Status" not in status or status.Status != 0:
            raise SystemExit(f"error: {path.name} was not taken: {status}")
    association.release()


def _chunks(files: list[Path], size: int) -> Iterator[list[Path]]:
    for start_at in range(0, len(files), size):
        yield files[start_at : start_at + size]


def follow(service: subprocess.Popen[bytes], url: str, uid: str) -> dict[str, Any]:
    """The study once it is finished; tells each stage."""
    end, told = time.monotonic() + ANALYSE_S, ""
    while time.monotonic() < end and service.poll() is None:
        with suppress(OSError):
            study: dict[str, Any] = ask(f"{url}/api/v1/studies/{uid}")
            stage = study["stage"] or study["status"]
            if study["finished_at"] is not None:
                return study
            if stage != told:
                told = stage
                print(f"    {stage} ({study['fraction']:.0%})", file=sys.stderr, flush=True)
        time.sleep(0.25)
    raise SystemExit("error: the service gave no verdict")


def show(study: dict[str, Any], seconds: float) -> None:
    """The verdicts as a table, with what they mean."""
    if study["status"] != "analysed":
        reason = study["reason"] or {"code": "", "message": "", "fix": ""}
        print(f"{study['status']}: {reason['code']} {reason['message']} {reason['fix']}")
    bundle = (study["report"] or {}).get("bundle") or {}
    simulated = bundle.get("calibrated_on") == "simulated"
    for name in TARGETS:
        answer = study["targets"].get(name)
        if answer is None:
            continue
        value = "-" if answer["probability"] is None else f"{answer['probability']:.3f}"
        extra = answer["side"] or answer["reason"] or ""
        print(f"  {name:<14} {answer['verdict']:<13} {value:>6}  {extra}")
    print(f"suggested priority: {study['priority']}")
    if simulated:
        print("The bundle learned from simulated patients: a score is no probability.")
    print(f"verdict {seconds:.1f} s after the last image ({QUIET_S} s of them quiet time)")
    print("Research use only - not for clinical use")


def main() -> None:
    once = "--once" in sys.argv
    source, home = (Path(a) for a in sys.argv[1:] if not a.startswith("--"))
    files = dicom_files(source)
    if not files:
        raise SystemExit(f"error: no DICOM file in {source}")
    from pydicom import dcmread

    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    http_port, dicom_port = port(8765), port(11112)
    url = f"http://127.0.0.1:{http_port}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    service = start(home, http_port, dicom_port)
    try:
        wait_until_it_answers(service, url, home.with_suffix(".log"))
        say(f"the service runs: {url}/ and AE TRIAGE on 127.0.0.1:{dicom_port}")
        say(f"sending {len(files)} images over C-STORE")
        send(files, dicom_port)
        sent = time.monotonic()
        study = follow(service, url, uid)
        show(study, time.monotonic() - sent)
        print(f"list: {url}/")
        print(f"report: {url}/api/v1/studies/{uid}", flush=True)
        if not once:
            say("the service stays; Ctrl-C ends it")
            service.wait()
    except KeyboardInterrupt:
        pass
    finally:
        service.terminate()
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            service.wait(timeout=30)
        if service.poll() is None:
            service.kill()


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

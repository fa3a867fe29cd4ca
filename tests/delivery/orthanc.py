"""A real Orthanc for tests: only where nothing but the loopback can be reached."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def needed() -> None:
    """Skips, with the reason, where there is no Orthanc or it could be reached from elsewhere."""
    if not Path(PROGRAM).exists() or not DICOMWEB.exists():
        pytest.skip("no Orthanc: apt-get install orthanc orthanc-dicomweb")
    names = {name for _, name in socket.if_nameindex()}
    if os.environ.get("TRIAGE_ISOLATED") != "1" or names != {"lo"}:
        pytest.skip("Orthanc listens on every interface: scripts/orthanc-round-trip")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """One Orthanc with its storage below `folder`; may be stopped, started, frozen."""

    def __init__(self, folder: Path, our_port: int) -> None:
        self.folder = folder
        self.dicom_port, self.http_port = free_port(), free_port()
        self.our_port = our_port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.dicom_port}"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def start(self, **options: Any) -> None:
        config = {
            "Name": "test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": True,
            "AuthenticationEnabled": False,
            "DicomModalities": {"triage": ["TRIAGE", "127.0.0.1", self.our_port]},
            "Plugins": [str(DICOMWEB)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "StableAge": 1,
            **options,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(config))
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, path], stdout=log, stderr=log)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                self.get("/system")
                return
            except httpx.HTTPStatusError:
                return  # it wants a password
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError("Orthanc does not start: " + (self.folder / "orthanc.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def freeze(self, frozen: bool) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def get(self, path: str) -> Any:
        answer = httpx.get(f"http://127.0.0.1:{self.http_port}{path}", timeout=10, trust_env=False)
        answer.raise_for_status()
        kind = answer.headers["content-type"]
        return answer.json() if kind.startswith("application/json") else answer.content

    def put(self, folder: Path) -> None:
        for path in folder.glob("*.dcm"):
            where = f"http://127.0.0.1:{self.http_port}/instances"
            content = path.read_bytes()
            httpx.post(where, content=content, timeout=10, trust_env=False).raise_for_status()

    def instances(self, study_instance_uid: str) -> dict[str, tuple[str, str]]:
        """SOP Instance UID -> (modality, Orthanc's id) of everything in one study."""
        found = {}
        for study in self.get("/studies?expand"):
            if study["MainDicomTags"]["StudyInstanceUID"] != study_instance_uid:
                continue
            for series in self.get(f"/studies/{study['ID']}/series"):
                modality = series["MainDicomTags"]["Modality"]
                for instance in self.get(f"/series/{series['ID']}/instances"):
                    uid = instance["MainDicomTags"]["SOPInstanceUID"]
                    found[uid] = (modality, instance["ID"])
        return found

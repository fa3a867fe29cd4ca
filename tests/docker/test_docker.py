"""No engine is here: the files are held to the program, their commands run in a plain folder."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from triage.service import probe
from triage.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
KNOWN = {f"TRIAGE_{name.upper()}" for name in Settings.model_fields}


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of the Dockerfile, lines joined."""
    text = (DOCKER / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [(w, rest.strip()) for w, _, rest in (x.partition(" ") for x in text.splitlines()) if w]


DOCKERFILE = instructions()
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def lines(instruction: str) -> list[str]:
    return [rest for word, rest in DOCKERFILE if word == instruction]


# ---- reading


def test_the_image_runs_as_somebody_without_rights() -> None:
    assert lines("USER") == ["10001:10001"]
    words = [word for word, _ in DOCKERFILE]
    assert words.index("USER") > max(k for k, word in enumerate(words) if word == "RUN")
    (home,) = re.findall(r"TRIAGE_HOME=(\S+)", " ".join(lines("ENV")))
    assert home in lines("VOLUME")
    assert re.search(rf"-o triage .*-m 0700 {home}", " ".join(lines("RUN")))


def test_what_is_copied_exists_and_may_be_seen_by_the_build() -> None:
    seen = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in seen
    for line in lines("COPY"):
        if line.startswith("--from"):
            continue
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in seen, name


def test_ports_and_commands_are_those_of_the_program() -> None:
    defaults = {str(Settings().http_port), str(Settings().dicom_port)}
    assert set(lines("EXPOSE")[0].split()) == defaults
    assert {p.split(":")[-1] for p in SERVICES["service"]["ports"]} == defaults
    assert json.loads(lines("ENTRYPOINT")[0]) == ["triage"]
    from triage.cli.main import app

    named = {c.callback.__name__ for c in app.registered_commands if c.callback}
    commands = {SERVICES[name]["command"][0] for name in ("service", "worker")}
    assert {*commands, *json.loads(lines("CMD")[0])} <= named


def test_every_health_check_is_one_that_the_program_has() -> None:
    (image,) = lines("HEALTHCHECK")
    commands = [json.loads(image[image.index("CMD") + 4 :])]
    commands += [SERVICES[name]["healthcheck"]["test"][1:] for name in ("service", "worker")]
    for command in commands:
        assert command[:3] == ["python", "-m", "triage.service.probe"]
        assert command[3] in probe.CHECKS
    assert all("healthcheck" in service for service in SERVICES.values())


def test_settings_that_are_named_exist() -> None:
    used = " ".join(p.read_text() for p in DOCKER.iterdir() if p.is_file())
    assert set(re.findall(r"TRIAGE_[A-Z_]*[A-Z]", used)) <= KNOWN


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_up(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    uid = str(service["user"]).split(":")[0]
    assert uid.isdigit() and int(uid) > 0
    assert not {"privileged", "network_mode", "pid", "devices"} & set(service)


def test_nothing_secret_is_inside() -> None:
    for path in DOCKER.iterdir():
        if path.is_file():
            assert not re.search(r"BEGIN .*KEY|PASSWORD\s*[:=]\s*\S|://\w+:\w+@", path.read_text())
    assert "secrets" in (ROOT / ".gitignore").read_text()
    environment = SERVICES["postgres"]["environment"]
    assert environment["POSTGRES_PASSWORD_FILE"].startswith("/run/secrets/")
    for service in SERVICES.values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for value in (service.get("environment") or {}).values():
            if str(value).startswith("/run/secrets/"):
                assert str(value).removeprefix("/run/secrets/") in service["secrets"]


def test_the_composed_service_may_start() -> None:
    """Its environment passes the rules for addresses that others can reach."""
    from triage.service.access.bind import refusal

    values = {
        name.removeprefix("TRIAGE_").lower(): re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for name, value in SERVICES["service"]["environment"].items()
        if name.startswith("TRIAGE_")
    }
    assert refusal(Settings(**values)) is None  # type: ignore[arg-type]
    assert refusal(Settings(**{**values, "senders": ""})) is not None  # type: ignore[arg-type]


def test_orthanc_and_the_service_know_each_other() -> None:
    orthanc = json.loads((DOCKER / "orthanc.json").read_text())
    title, host, port = orthanc["DicomModalities"]["triage"].values()
    assert (title, host, port) == (Settings().ae_title, "service", Settings().dicom_port)
    environment = SERVICES["service"]["environment"]
    assert environment["TRIAGE_PACS"] == f"{orthanc['DicomAet']}@orthanc:{orthanc['DicomPort']}"
    assert orthanc["DicomAet"] in environment["TRIAGE_SENDERS"]
    assert SERVICES["orthanc"]["ports"] == [f"127.0.0.1:8042:{orthanc['HttpPort']}"]


def test_the_unit_is_hardened_and_starts_the_program() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DOCKER / "triage.service")
    service = unit["Service"]
    assert service["ExecStart"].split()[1:] == ["serve"]
    assert "triage.service.probe serve" in service["ExecStartPost"]
    assert service["User"] != "root" and service["CapabilityBoundingSet"] == ""
    for name in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "RestrictNamespaces"):
        assert service[name] == "true"
    assert service["ProtectSystem"] == "strict"
    if analyser := shutil.which("systemd-analyze"):
        said = subprocess.run(
            [analyser, "verify", DOCKER / "triage.service"],
            capture_output=True,
            text=True,
            check=False,
        )
        wrong = [x for x in said.stderr.splitlines() if "triage.service:" in x]
        assert not [x for x in wrong if "not executable" not in x], wrong


def test_prepare_makes_secrets_that_fit(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", DOCKER / "prepare"], check=True)
    if os.geteuid() != 0 or shutil.which("openssl") is None:
        pytest.skip("docker/prepare gives files to other users: needs root and openssl")
    shutil.copy(DOCKER / "prepare", tmp_path)
    for _ in range(2):
        subprocess.run([tmp_path / "prepare", "triage.example"], check=True, capture_output=True)
    folder = tmp_path / "secrets"
    for name, file in COMPOSE["secrets"].items():
        path = folder / Path(file["file"]).name
        reader = "postgres" if name == "postgres-password" else "service"
        uid = int(SERVICES[reader]["user"].split(":")[0])
        assert path.stat().st_uid == uid and path.stat().st_mode & 0o777 == 0o600, name
    password = (folder / "postgres-password").read_text().strip()
    url = SERVICES["service"]["environment"]["TRIAGE_DATABASE_URL"]
    user, host, database = re.fullmatch(r"postgresql://(\w+)@(\w+)/(\w+)", url).groups()  # type: ignore[union-attr]
    assert (folder / "pgpass").read_text() == f"{host}:5432:{database}:{user}:{password}\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls-cert.pem", folder / "tls-key.pem")


# ---- running


@pytest.mark.long
def test_the_same_install_and_start_commands_work_in_a_plain_folder(tmp_path: Path) -> None:
    """Only what the Dockerfile copies is there; its own pip line installs it. Takes minutes."""
    source, prefix, home = tmp_path / "source", tmp_path / "opt", tmp_path / "home"
    source.mkdir()
    for line in lines("COPY"):
        if not line.startswith("--from"):
            *names, _target = line.split()
            for name in names:
                copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", prefix], check=True)
    (pip,) = (line for line in lines("RUN") if "pip install" in line)
    # the index of PyTorch's CPU builds is that of this machine, as for scripts/test
    pip = pip.replace("/opt/triage", str(prefix)).replace('--extra-index-url "$TORCH_INDEX"', "")
    subprocess.run(shlex.split(pip), cwd=source, check=True, timeout=1500)
    ports = {"TRIAGE_HTTP_PORT": free_port(), "TRIAGE_DICOM_PORT": free_port()}
    environment = {
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "MPLCONFIGDIR": str(tmp_path),
        "TRIAGE_HOME": str(home),
        **{name: str(port) for name, port in ports.items()},
    }
    command = [*json.loads(lines("ENTRYPOINT")[0]), *json.loads(lines("CMD")[0])]
    (check,) = lines("HEALTHCHECK")
    health = json.loads(check[check.index("CMD") + 4 :])
    process = subprocess.Popen(
        [str(prefix / "bin" / command[0]), *command[1:]], env=environment, cwd=home.parent
    )
    try:
        end = time.monotonic() + 240
        health[0] = str(prefix / "bin" / health[0])
        while subprocess.run(health, env=environment, check=False, cwd=tmp_path).returncode:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(1)
        url = f"http://127.0.0.1:{ports['TRIAGE_HTTP_PORT']}"
        assert httpx.get(f"{url}/readyz", timeout=30).json()["ready"] is True
        assert httpx.get(f"{url}/", timeout=30).status_code == 200  # templates are in the wheel
    finally:
        process.terminate()
        assert process.wait(60) == 0


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port

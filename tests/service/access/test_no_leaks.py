"""After a whole run no patient, password or token is in logs, metrics, URLs and error bodies."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from house import PASSWORD, ROLES, until
from instances import ct, study_uid

from triage.service.access import audit, fhir, tokens, users
from triage.service.access.principal import Role
from triage.service.logs import Lines, configure
from triage.service.records import Database
from triage.settings import Settings

# What must show nowhere. Header values, and what people type.
NAME, NUMBER, ACCESSION, BIRTH = "QUAGGA^ZEBRINA", "PID-998877", "ACC-554433", "19510417"
WRONG = "hunter2 hunter2"
PATIENT = ("QUAGGA", "ZEBRINA", NUMBER, ACCESSION, BIRTH)
HEADER = {
    "PatientName": NAME,
    "PatientID": NUMBER,
    "AccessionNumber": ACCESSION,
    "PatientBirthDate": BIRTH,
}
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Run:
    """What a whole run left behind."""

    log: str
    said: str  # stdout
    metrics: str
    bodies: list[tuple[str, str]]  # (what was asked, body of an error)
    urls: list[str]  # that the service made
    rows: str  # the audit log as FHIR
    secrets: list[str]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("leaks")
    home = folder / "home"
    home.mkdir()
    token = people(home)
    port, dicom = free_port(), free_port()
    settings = {
        "HOME": home,
        "HTTP_PORT": port,
        "DICOM_PORT": dicom,
        "SERIES_QUIET_S": 0.5,
        "TLS_CERT": certificates / "server.pem",
        "TLS_KEY": certificates / "server.key",
        "SENDERS": "CT1",
        "THREADS": 1,
    }
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "service")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment |= {f"TRIAGE_{name}": str(value) for name, value in settings.items()}
    out, log = folder / "out", folder / "log"
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve_quick"], env=environment, stdout=stdout, stderr=stderr
        )
    trust = ssl.create_default_context(cafile=str(certificates / "server.pem"))
    try:
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, timeout=30) as client:
            until(lambda: answers(client, process), 60, 0.3)
            metrics, bodies, urls, cookie = work(client, token, dicom, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    database = Database.at_home(home)
    with database.reading() as session:
        rows = [json.dumps(fhir.audit_event(row)) for row in audit.rows(session)]
    database.close()
    secrets = [PASSWORD, WRONG, "hunter2", *token.values(), cookie]
    yield Run(log.read_text(), out.read_text(), metrics, bodies, urls, "\n".join(rows), secrets)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def people(home: Path) -> dict[str, str]:
    database = Database.at_home(home)
    database.upgrade()
    with database.session() as session:
        for name, roles in ROLES.items():
            users.add(session, name, PASSWORD, roles, "console")
        found = {r.value: tokens.new(session, f"for-{r}", {r}, "console")[0] for r in Role}
    database.close()
    return found


def answers(client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "serve ended"
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def zip_with(number: int, comment: str) -> bytes:
    from asking import zip_of

    slices = range(1, 4)
    files = {f"{k}.dcm": ct(number, number=k, PatientComments=comment, **HEADER) for k in slices}
    return zip_of({**files, f"{NAME}.txt": b"no image", f"{NUMBER}.dcm": b"\0" * 128 + b"DICM?"})


def work(
    client: httpx.Client, token: dict[str, str], dicom: int, folder: Path
) -> tuple[str, list[tuple[str, str]], list[str], str]:
    """Everything that people and machines do, well and badly."""
    bodies: list[tuple[str, str]] = []
    urls: list[str] = []

    def ask(method: str, url: str, role: str | None = "admin", **options: Any) -> httpx.Response:
        headers = options.pop("headers", {})
        if role is not None:
            headers = {"authorization": f"Bearer {token[role]}", **headers}
        answer = client.request(method, url, headers=headers, **options)
        if answer.status_code >= 400:
            bodies.append((f"{method} {url.partition('?')[0]}", answer.text))
        if "search=" not in url:  # a page keeps what somebody typed: docs/ACCESS.md says so
            urls.extend(made_urls(answer))
        return answer

    session = "/api/v1/session"
    for name, password in (("vera", WRONG), (WRONG, "x"), (NAME, PASSWORD), ("vera", PASSWORD)):
        answer = ask("POST", session, None, json={"name": name, "password": password})
    cookie = client.cookies["triage_session"]
    csrf = answer.json()["csrf"]
    ask("POST", session, None, json={"name": {WRONG: WRONG}, "password": [WRONG]})
    ask("POST", session, None, content=WRONG)
    ask("GET", "/api/v1/studies", headers={"authorization": f"Bearer {WRONG}"})
    # images; one analysis raises an error
    zipped = {"content-type": "application/zip"}
    for number, comment in ((31, "suspected"), (32, "error")):
        ask("POST", "/api/v1/studies", "sender", content=zip_with(number, comment), headers=zipped)
    store(dicom, folder, "CT1")
    store(dicom, folder, "QUAGGA")  # refused
    form = {"content-type": 'multipart/related; type="application/dicom"; boundary=b'}
    image = ct(35, **HEADER)[:-400]
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + image + b"\r\n--b--"
    ask("POST", "/dicom-web/studies", "sender", content=part, headers=form)
    ask("POST", f"/dicom-web/studies/{NAME}", "sender", content=part[:-9], headers=form)
    for number in (31, 32):
        path = f"/api/v1/studies/{study_uid(number)}"
        until(lambda path=path: ask("GET", path).json().get("finished_at"), 60, 0.3)
        for page in (path, f"/studies/{study_uid(number)}", f"{path}/overlays/{NAME}"):
            ask("GET", page)
    # mistakes that hold the name
    for url in ("/", "/?search=QUAGGA", "/admin", f"/studies/{NAME}", f"/nothing/{NAME}"):
        ask("GET", url)
        ask("GET", url, None)
    for query in (f"search={NAME}", f"limit={NAME}", f"status={NAME}"):
        ask("GET", f"/api/v1/studies?{query}")
    ask("GET", f"/api/v1/pacs/studies?patient_name={NAME}")
    ask("POST", f"/api/v1/pacs/studies/{NAME}")
    ask("POST", f"/api/v1/studies/{NAME}/acknowledge")
    ask("GET", f"/api/v1/studies/{study_uid(31)}/saliency/{NAME}")
    ask("PUT", session, json={"mask": NAME})
    ask("DELETE", f"/api/v1/studies/{study_uid(32)}")
    metrics = ask("GET", "/metrics").text
    ask("DELETE", session, None, headers={"X-CSRF-Token": csrf})
    return metrics, bodies, urls, cookie


def store(port: int, folder: Path, title: str) -> None:
    """C-STORE of one image and one that is none, with DCMTK where it is there."""
    program = Path("/usr/bin/storescu")
    if not program.is_file():
        return
    (folder / "a.dcm").write_bytes(ct(34, **HEADER))
    subprocess.run(
        [program, "-aet", title, "localhost", str(port), folder / "a.dcm"],
        capture_output=True,
        timeout=60,
        check=False,
    )


def made_urls(answer: httpx.Response) -> list[str]:
    """Addresses in an answer: where it leads, and what its page or its JSON points at."""
    found = [answer.headers[n] for n in ("location", "content-location") if n in answer.headers]
    if "html" in answer.headers.get("content-type", ""):
        found += re.findall(r"(?:href|src|action|data-\w*url\w*|hx-\w+)=\"([^\"]*)\"", answer.text)
    if "json" in answer.headers.get("content-type", ""):
        found += re.findall(r"\"(/(?:api|studies|dicom-web)[^\"]*)\"", answer.text)
    return found


def test_the_run_was_a_whole_one(whole_run: Run) -> None:
    """Else nothing could have leaked."""
    assert 'triage_studies{status="analysed"}' in whole_run.metrics
    assert len(whole_run.bodies) > 15 and len(whole_run.urls) > 10
    actions = re.findall(r"\"outcomeDesc\": \"([a-z.]+): ", whole_run.rows)
    for action in ("login", "logout", "image.received", "study.opened", "study.deleted"):
        assert action in actions
    assert "CT1" in whole_run.rows or not Path("/usr/bin/storescu").is_file()


def test_no_patient_password_or_token_is_in_the_logs(whole_run: Run) -> None:
    for secret in (*PATIENT, *whole_run.secrets):
        assert secret not in whole_run.log + whole_run.said, secret


def test_every_log_line_is_json(whole_run: Run) -> None:
    lines = whole_run.log.splitlines()
    entries = [json.loads(line) for line in lines if line != "Stopped."]
    assert len(entries) > 5
    assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)


def test_nor_in_metrics_and_the_audit_log(whole_run: Run) -> None:
    for secret in (*PATIENT, *whole_run.secrets):
        assert secret not in whole_run.metrics, secret
    allowed = {"QUAGGA"}  # the AE title that was refused
    for secret in {*PATIENT, *whole_run.secrets} - allowed:
        assert secret not in whole_run.rows, secret


def test_nor_in_the_urls_that_the_service_makes(whole_run: Run) -> None:
    for url in whole_run.urls:
        for secret in (*PATIENT, *whole_run.secrets):
            assert secret not in url, (secret, url)


def test_nor_in_the_bodies_of_errors(whole_run: Run) -> None:
    for asked, body in whole_run.bodies:
        for secret in (*PATIENT, *whole_run.secrets):
            assert secret not in body, (asked, secret)


# ---- lines


def written(record: logging.Logger, as_json: bool = True, whole: bool = False) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(as_json, whole))
    record.addHandler(handler)
    record.propagate = False
    try:
        try:
            try:
                raise KeyError(NAME)
            except KeyError as error:
                raise ValueError(f"no {NAME}") from error
        except ValueError:
            record.exception("study %s", "a1b2")
    finally:
        record.removeHandler(handler)
        record.propagate = True
    return stream.getvalue()


def test_an_exception_is_logged_by_type_and_place() -> None:
    entry = json.loads(written(logging.getLogger("triage.service.x")))
    assert entry["message"] == "study a1b2"
    assert [e["type"] for e in entry["exception"]] == ["ValueError", "KeyError"]
    assert "test_no_leaks.py" in entry["exception"][0]["at"][0]
    assert "QUAGGA" not in json.dumps(entry)
    assert "QUAGGA" in written(logging.getLogger("triage.service.x"), whole=True)
    people = written(logging.getLogger("triage.service.x"), as_json=False)
    assert "ValueError" in people and "QUAGGA" not in people


def test_what_a_library_says_is_only_placed() -> None:
    entry = json.loads(written(logging.getLogger("pydicom.x")))
    assert re.fullmatch(r"test_no_leaks:\d+", entry["message"])


def test_configuring_takes_over_every_logger(capsys: pytest.CaptureFixture[str]) -> None:
    root, dbos = logging.getLogger(), logging.getLogger("dbos")
    before = root.handlers[:], root.level, dbos.handlers[:], dbos.propagate
    try:
        configure(Settings(), sys.stderr)
        logging.getLogger("dbos").error("%s", NAME)
        logging.getLogger("triage.x").info("line\nbreak \x1b[31m")
    finally:
        root.handlers[:], root.level, dbos.handlers[:], dbos.propagate = before
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["logger"] for line in lines] == ["dbos", "triage.x"]
    assert "QUAGGA" not in "".join(lines) and "\x1b" not in "".join(lines)

"""The commands as a user calls them: exit codes, what is printed where, what is left on disk."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from jsonschema import Draft202012Validator

from triage import __version__
from triage.cli.common import Exit
from triage.cli.doctor import CHECKS
from triage.cli.info import PACKAGES
from triage.dicom.syntax import SYNTAXES
from triage.reasons import REASONS
from triage.results.report import report_schema
from triage.types import TARGETS

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "triage.cli.main"]
LIGHT = ("torch", "monai", "SimpleITK", "nibabel", "pydicom", "numpy", "fastapi", "uvicorn")


def triage(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | env,
        timeout=280,
        check=False,
    )


def needs_bundle() -> None:
    if not (ROOT / "models" / "reference" / "bundle.json").is_file():
        pytest.skip("there is no bundle in models/reference")


def only_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    return line


# ---- info and help: light


@pytest.mark.parametrize("arguments", [["info", "--json"], ["--help"], ["--version"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom triage.cli.main import call\n"
        f"code = call({arguments!r})\n"
        f"print([m for m in {LIGHT!r} if m in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "[]\n"


def test_info_takes_less_than_a_second_of_processor_time() -> None:
    before = os.times()
    done = triage("info", "--json")
    after = os.times()
    assert done.returncode == 0, done.stderr
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 1
    facts = json.loads(done.stdout)
    assert facts["version"] == __version__
    assert set(facts["packages"]) == set(PACKAGES)
    assert None not in facts["packages"].values()


def test_info_describes_the_bundle() -> None:
    needs_bundle()
    bundle = json.loads(triage("info", "--json").stdout)["bundle"]
    assert set(bundle["targets"]) == {target.value for target in TARGETS}
    assert bundle["calibrated_on"] in ("simulated", "real")
    assert len(bundle["sha256"]) == 64


# ---- wrong use: 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["run"],
        ["run", "/no/such/folder", "--out", "{tmp}/out"],
        ["run", "{tmp}"],
        ["run", "{tmp}", "--out", "{tmp}/out", "--model", "no-such-bundle"],
        ["run", "{tmp}", "--out", "{tmp}/out", "--device", "abacus"],
        ["run", "{tmp}", "--out", "{tmp}/file"],
        ["run", "{tmp}", "--out", "{tmp}/file/below"],
        ["simulate", "{tmp}/out", "--patients", "0"],
        ["simulate", "{tmp}/out", "--background", "{tmp}"],
        ["serve", "--port", "99999"],
    ],
)
def test_wrong_use_is_2_and_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = triage(*(a.format(tmp=tmp_path) for a in arguments))
    assert done.returncode == Exit.USAGE, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_a_senseless_setting_is_wrong_use_and_is_named() -> None:
    done = triage("info", TRIAGE_MAX_SLICES="many")
    assert done.returncode == Exit.USAGE
    assert "TRIAGE_MAX_SLICES" in done.stderr


# ---- not analysed: 3


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "letter.txt"
    path.write_text("no image in here")
    return path


def test_not_analysed_is_3_with_one_line_and_a_report(text_file: Path, tmp_path: Path) -> None:
    needs_bundle()
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text('{"status": "analysed"}')  # of an earlier run
    done = triage("run", text_file, "--out", out)
    assert done.returncode == Exit.NOT_ANALYSED, done.stderr
    assert done.stdout == ""
    report = json.loads((out / "report.json").read_text())
    Draft202012Validator(report_schema()).validate(report)
    assert report["status"] == "not_analysed"
    line = only_line(done.stderr)
    code = report["reason"]["code"]
    assert line.startswith(f"{code}: ")
    assert REASONS[code].fix in line


def test_not_analysed_as_json(text_file: Path, tmp_path: Path) -> None:
    needs_bundle()
    done = triage("run", text_file, "--out", tmp_path / "out", "--json")
    assert done.returncode == Exit.NOT_ANALYSED
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())


# ---- our own fault: 1


BROKEN = """
import sys, triage.pipeline
def analyse(*args, **kwargs):
    raise {error}
triage.pipeline.analyse = analyse
from triage.cli.main import call
sys.exit(call(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        ("RuntimeError('one\\n\\x1b[31mtwo')", Exit.FAULT, "WORKER_FAILED"),
        ("KeyboardInterrupt", Exit.STOPPED, "CANCELLED"),
    ],
)
def test_a_fault_is_one_line_and_the_folder_says_not_analysed(
    error: str, code: int, reason: str, text_file: Path, tmp_path: Path
) -> None:
    needs_bundle()
    out = tmp_path / "out"
    call = [sys.executable, "-c", BROKEN.format(error=error), "run", text_file, "--out", out]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert "\x1b" not in only_line(done.stderr)
    report = json.loads((out / "report.json").read_text())
    assert (report["status"], report["reason"]["code"]) == ("not_analysed", reason)


def test_debug_shows_the_traceback(text_file: Path, tmp_path: Path) -> None:
    needs_bundle()
    call = [sys.executable, "-c", BROKEN.format(error="RuntimeError('one')")]
    done = subprocess.run(
        [*call, "run", text_file, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=os.environ | {"TRIAGE_DEBUG": "1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == Exit.FAULT
    assert "Traceback" in done.stderr


# ---- analysed: 0


@pytest.fixture(scope="module")
def analysed(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    needs_bundle()
    out = tmp_path_factory.mktemp("run") / "out"
    return triage("run", shared / "ct" / "portal_slab_dicom", "--out", out), out


def test_analysed_is_0_with_a_table_and_is_quiet_in_a_pipe(analysed: Any) -> None:
    done, out = analysed
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads((out / "report.json").read_text())
    Draft202012Validator(report_schema()).validate(report)
    for target, answer in report["targets"].items():
        (row,) = (line for line in done.stdout.splitlines() if f" {target} " in line)
        assert answer["verdict"] in row
        for name in answer["overlays"]:
            assert (out / name).read_bytes().startswith(b"\x89PNG")
    heading = "score" if report["bundle"]["calibrated_on"] == "simulated" else "probability"
    assert heading in done.stdout
    assert str(out / "report.json") in done.stdout
    assert report["disclaimer"] in done.stdout


def test_a_terminal_sees_the_stages(text_file: Path, tmp_path: Path) -> None:
    needs_bundle()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", text_file, "--out", tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    process.communicate(timeout=60)
    assert b"starting" in seen


# ---- simulate, doctor, serve


@pytest.mark.long
def test_simulate_says_what_it_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = triage("simulate", out, "--patients", 1, "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("1 simulated patient")
    for target in TARGETS:
        assert target.value in done.stdout
    assert list((out / "train_images").glob("*/*/*.dcm"))


def test_doctor_tries_every_codec_and_names_what_fails() -> None:
    done = triage("doctor", "--json", TRIAGE_MODEL="no-such-bundle")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == Exit.FAULT
    assert checks["bundle"]["level"] == "FAIL"
    assert checks["bundle"]["fix"]
    for syntax in SYNTAXES.values():
        if syntax.codec is not None:
            assert checks[f"codec {syntax.name}"]["level"] == "OK", checks
    for name in CHECKS:
        assert any(check.startswith(name.removesuffix("s")) for check in checks)


def test_doctor_finds_a_changed_weight(tmp_path: Path) -> None:
    needs_bundle()
    bundle = tmp_path / "bundle"
    subprocess.run(["cp", "-r", ROOT / "models" / "reference", bundle], check=True)
    weights = max(bundle.rglob("*.safetensors"), key=lambda p: p.stat().st_size)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = triage("doctor", TRIAGE_MODEL=str(bundle))
    assert done.returncode == Exit.FAULT
    (line,) = (line for line in done.stdout.splitlines() if "bundle" in line.split(":")[0])
    assert line.startswith("FAIL")
    assert "sha256" in line


def test_serve_answers_on_loopback_and_ends_on_request(tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", str(port)],
        env=os.environ | {"TRIAGE_HOME": str(tmp_path), "TRIAGE_DICOM_PORT": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:  # uvicorn says when it listens
            if "startup complete" in line:
                break
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=20) as answer:
            assert json.load(answer)["status"] == "ok"
        began = time.monotonic()
        process.terminate()
        process.communicate(timeout=20)
        assert time.monotonic() - began < 15
    finally:
        process.kill()
        process.wait()

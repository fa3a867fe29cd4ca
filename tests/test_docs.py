"""README and docs/ document every command, option, setting, reason code, endpoint and verdict."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer

from triage.cli.common import Exit
from triage.cli.main import app
from triage.reasons import REASONS
from triage.service.app import create_app
from triage.settings import Settings
from triage.types import DISCLAIMER, Verdict

ROOT = Path(__file__).resolve().parents[1]
PAGES = {p: p.read_text(encoding="utf-8") for p in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
README = PAGES[ROOT / "README.md"]
DOCUMENTS = "\n".join(PAGES.values())
TABLES = "\n".join(
    PAGES[ROOT / name]
    for name in (
        "README.md",
        *(f"docs/{n}.md" for n in ("COMMANDS", "SERVICE", "SETTINGS", "REASONS")),
    )
)


def row(start: str) -> str:
    """The one row of a table that starts with `start`."""
    whole = re.compile(re.escape(f"| {start}") + r"(?![\w-])")  # `audit` is not `audit-log`
    rows = [line for line in TABLES.splitlines() if whole.match(line)]
    assert len(rows) == 1, f"expected one row for {start}, got {rows}"
    return rows[0]


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_and_option_is_documented(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    text = row(f"`triage {name}")
    inner = getattr(command, "commands", {})  # of a group: `triage user add`
    for one in (command, *inner.values()):
        for parameter in one.params:
            long = next((o for o in parameter.opts if o.startswith("--")), None)
            assert (long or parameter.metavar) in text
    assert all(name in text for name in inner)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    assert row(f"`TRIAGE_{name.upper()}`").split("|")[2].strip() == f"`{default}`"


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_code_is_documented_with_its_message_and_fix(code: str) -> None:
    message, fix = REASONS[code]
    assert row(f"`{code}`") == f"| `{code}` | {message} | {fix} |"


def test_every_endpoint_is_documented_and_no_other(tmp_path: Path) -> None:
    paths = create_app(Settings(home=tmp_path)).openapi()["paths"]
    real = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert set(re.findall(r"^\| `((?:GET|POST|PUT|DELETE|PATCH) [^`]+)`", TABLES, re.M)) == real


@pytest.mark.parametrize("code", [int(code) for code in Exit])
def test_every_exit_code_is_documented(code: int) -> None:
    assert row(f"{code} |")


@pytest.mark.parametrize("verdict", [v.value for v in Verdict])
def test_every_verdict_is_documented(verdict: str) -> None:
    assert row(f"`{verdict}`")


def test_no_documented_name_is_unknown() -> None:
    script_variables = {"TRIAGE_VENV", "TRIAGE_TEST_DATA", "TRIAGE_STRICT_TIMES"}
    known = {f"TRIAGE_{name.upper()}" for name in Settings.model_fields} | script_variables
    assert set(re.findall(r"TRIAGE_[A-Z0-9_]+", DOCUMENTS)) <= known


def test_the_disclaimer_stands_at_the_top() -> None:
    assert DISCLAIMER in " ".join(README.split("## Set up")[0].split())


def test_every_linked_file_exists() -> None:
    # what git does not know yet (the bundle, a picture) may be missing in a source tree, not here
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_document_is_named_in_the_readme() -> None:
    named = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", README))
    assert named == {f"docs/{p.name}" for p in PAGES if p.parent.name == "docs"}


@pytest.mark.parametrize("script", ["scripts/demo", "scripts/test", ".ci/run"])
def test_scripts_can_be_run(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ROOT / script], check=True)

"""`triage user`, `triage token`, `triage audit-log`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import PASSWORD

from triage.cli.main import call
from triage.service.access import audit, heads, tokens, users
from triage.service.records import Database
from triage.service.records.models import now
from triage.settings import settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Exit code, stdout and stderr of one command; `typed`: what comes through the pipe."""
    monkeypatch.setenv("TRIAGE_HOME", str(home))
    settings.cache_clear()

    def command(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = call(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    yield command
    settings.cache_clear()


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    home.mkdir()
    database = Database.at_home(home)
    database.upgrade()
    yield database
    database.close()


def test_users_come_and_go(run: Run, database: Database) -> None:
    code, out, _ = run(
        "user", "add", "Ada", "--role", "viewer", "--role", "admin", typed=PASSWORD + "\n"
    )
    assert (code, out) == (0, "ada: viewer admin\n")
    assert run("user", "add", "ada", "--role", "viewer", typed=PASSWORD)[0] == 2
    assert run("user", "role", "ada", "--role", "viewer")[0] == 0
    assert run("user", "password", "ada", typed="another " + PASSWORD)[0] == 0
    assert run("user", "disable", "ada")[0] == 0
    assert "disabled" in run("user", "list")[1]
    assert run("user", "disable", "ada", "--undo")[0] == 0
    with database.reading() as session:
        ada = users.existing(session, "ada")
        assert users.right_password(ada.password_hash, "another " + PASSWORD)
        assert (ada.roles, ada.disabled_at) == ("viewer", None)
        told = [(row["action"], row["object"]) for row in audit.rows(session)]
        rows = str(list(audit.rows(session)))
    assert told == [("user.added", "ada")] + [("user.changed", "ada")] * 4
    assert PASSWORD not in rows


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        (("user", "add", "bob", "--role", "viewer"), "short"),
        (("user", "add", "bob", "--role", "owner"), PASSWORD),
        (("user", "add", "bob"), PASSWORD),
        (("user", "add", "local", "--role", "viewer"), PASSWORD),
        (("user", "role", "nobody", "--role", "viewer"), ""),
        (("user", "password", "nobody"), PASSWORD),
        (("user", "disable", "nobody"), ""),
        (("token", "revoke", "nothing"), ""),
        (("token", "new", "x", "--role", "viewer", "--days", "0"), ""),
        (("audit-log", "verify", "--head", "nonsense"), ""),
        (("audit-log", "export", "--syslog", "logs:x"), ""),
    ],
)
def test_wrong_use_is_said_in_one_line(run: Run, arguments: tuple[str, ...], typed: str) -> None:
    code, out, err = run(*arguments, typed=typed)
    assert code == 2 and out == "" and "Error: " in err
    assert "Traceback" not in err and PASSWORD not in err


def test_no_command_takes_a_password_as_argument() -> None:
    from triage.cli.user import app

    for command in app.registered_commands:
        names = command.callback.__annotations__ if command.callback else {}
        assert not {"password", "secret"} & set(names)


def test_info_shows_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIAGE_DATABASE_URL", "postgresql://me:s3cret@db/triage")
    monkeypatch.setenv("TRIAGE_DELIVER_WEBHOOK_SECRET", "s3cret" * 6)
    code, out, _ = run("info", "--json")
    assert code == 0 and "s3cret" not in out
    shown = json.loads(out)["settings"]
    assert shown["database_url"] == "postgresql://***@db/triage"
    assert shown["deliver_webhook_secret"] == "(set)"  # noqa: S105


def test_a_token_is_shown_once(run: Run, database: Database) -> None:
    code, out, _ = run("token", "new", "scanner", "--role", "sender", "--days", "3")
    token = out.strip()
    assert code == 0 and token.startswith(tokens.PREFIX) and len(token) > 40
    assert run("token", "new", "scanner", "--role", "sender")[0] == 2
    listed = run("token", "list")[1]
    assert "scanner" in listed and token not in listed
    with database.reading() as session:
        assert tokens.find(session, token, now()) is not None
    assert run("token", "revoke", "scanner")[0] == 0
    with database.reading() as session:
        assert tokens.find(session, token, now()) is None
    assert "revoked" in run("token", "list")[1]


def test_the_audit_log_is_verified_and_exported(
    run: Run, database: Database, home: Path, tmp_path: Path
) -> None:
    run("token", "new", "one", "--role", "sender")
    run("token", "new", "two", "--role", "sender")
    code, out, _ = run("audit-log", "verify")
    assert code == 0 and "0 faults" in out
    head = out.strip().rpartition(" ")[2]
    assert [str(h) for h in heads.noted(home)] == [head]
    assert run("audit-log", "verify", "--head", head)[0] == 0
    assert run("audit-log", "verify", "--head", "2:" + "0" * 64)[0] == 1
    file = tmp_path / "audit.ndjson"
    assert run("audit-log", "export", "--out", str(file))[0] == 0
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [e["resourceType"] for e in events] == ["AuditEvent"] * 2
    out = run("audit-log", "export", "--after", "2")[1]
    later = [json.loads(line) for line in out.splitlines()]
    assert [e["type"]["display"] for e in later] == ["Audit Log Used"]
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_no_delete")
        connection.exec_driver_sql("DELETE FROM audit WHERE id = 2")
    code, out, _ = run("audit-log", "verify")
    assert code == 1 and "row 2: missing" in out

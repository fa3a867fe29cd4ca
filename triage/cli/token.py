"""`triage token`: API tokens, for programs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from triage.cli import people

app = typer.Typer(help="API tokens.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")]


@app.command()
def new(
    name: Name,
    role: Annotated[
        list[str], typer.Option("--role", help="viewer, sender or admin; repeat it for several.")
    ],
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How long it lives.")] = 90,
) -> None:
    """A new token, printed this once: only its hash is kept."""
    from triage.service.access import tokens

    roles = people.checked_roles(role)
    with people.records() as database, database.session() as session:
        token, row = tokens.new(session, name, roles, people.me(), days)
        until = f"{row.expires_at:%Y-%m-%d}"
    print(token)
    print(f"valid until {until}; send it as Authorization: Bearer", file=sys.stderr)


@app.command("list")
def list_tokens() -> None:
    """All tokens, without what is secret."""
    from triage.service.access import tokens
    from triage.service.records.models import now

    with people.records() as database, database.reading() as session:
        rows = []
        for token in tokens.every(session):
            state = "expired" if token.expires_at <= now() else ""
            state = "revoked" if token.revoked_at else state
            rows.append((token.name, token.roles, f"until {token.expires_at:%Y-%m-%d}", state))
    people.columns(rows)


@app.command()
def revoke(name: Name) -> None:
    """Void from the next request on."""
    from triage.service.access import tokens

    with people.records() as database, database.session() as session:
        tokens.revoke(session, name, people.me())

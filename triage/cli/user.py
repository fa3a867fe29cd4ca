"""`triage user`: who may log in."""

from __future__ import annotations

from typing import Annotated

import typer

from triage.cli import people

app = typer.Typer(help="Users of the service.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME")]
Roles = Annotated[
    list[str], typer.Option("--role", help="viewer, sender or admin; repeat it for several.")
]


@app.command()
def add(name: Name, role: Roles) -> None:
    """A new user; the password comes from a prompt or from stdin."""
    from triage.service.access import users

    roles = people.checked_roles(role)
    with people.records() as database:
        users.checked_name(name)
        password = people.ask_password()
        with database.session() as session:
            user = users.add(session, name, password, roles, people.me())
        print(f"{user.name}: {user.roles}")


@app.command("list")
def list_users() -> None:
    """All users with their roles."""
    from triage.service.access import users

    with people.records() as database, database.reading() as session:
        rows = [
            (
                user.name,
                user.roles,
                f"added {user.created_at:%Y-%m-%d}",
                "disabled" if user.disabled_at else "",
            )
            for user in users.every(session)
        ]
    people.columns(rows)


@app.command()
def disable(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Let the user log in again.")] = False,
) -> None:
    """The user cannot log in any more, and is logged out everywhere."""
    from triage.service.access import users

    with people.records() as database, database.session() as session:
        users.set_disabled(session, name, not undo, people.me())


@app.command()
def password(name: Name) -> None:
    """A new password, from a prompt or from stdin; the user is logged out everywhere."""
    from triage.service.access import users

    with people.records() as database:
        with database.reading() as session:
            users.existing(session, name)
        secret = people.ask_password()
        with database.session() as session:
            users.set_password(session, name, secret, people.me())


@app.command()
def role(name: Name, role: Roles) -> None:
    """Other roles, from the next request on."""
    from triage.service.access import users

    roles = people.checked_roles(role)
    with people.records() as database, database.session() as session:
        users.set_roles(session, name, roles, people.me())

"""`triage audit-log`: verify it, and take it elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triage.cli import people
from triage.cli.common import Exit, load_settings, plain

if TYPE_CHECKING:
    from triage.service.records import Database

app = typer.Typer(help="The audit log.", no_args_is_help=True, rich_markup_mode=None)
AT_ONCE = 500  # rows of one connection to a log server


@app.command()
def verify(
    head: Annotated[
        list[str] | None,
        typer.Option("--head", help="COUNT:HASH that an earlier call printed; repeatable."),
    ] = None,
) -> None:
    """Was a row changed, removed or moved? Exit code 1 then. Prints the head: note it elsewhere."""
    from triage.service.access import audit, heads

    home = load_settings().home.expanduser()
    try:
        wanted = [audit.parse_head(text) for text in head or []]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with people.records() as database:
        noted = [*heads.noted(home), *wanted]
        with database.reading() as session:
            found = audit.verify(session, noted)
        if not found.faults:
            heads.note(home, found.head)
    for fault in found.faults:
        print(plain(fault))
    print(f"{found.head.count} rows, {len(noted)} noted heads, {len(found.faults)} faults")
    print(f"head {found.head}")
    if found.faults:
        raise typer.Exit(Exit.FAULT)


@app.command()
def export(
    out: Annotated[
        Path | None, typer.Option("--out", help="File for FHIR AuditEvents, one a line [stdout].")
    ] = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Only rows after this number.")] = 0,
    syslog: Annotated[
        str, typer.Option("--syslog", help="HOST:PORT of a log server: RFC 5424 over TLS instead.")
    ] = "",
    ca: Annotated[
        Path | None, typer.Option("--ca", help="CA (PEM) of the log server [the machine's].")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Ours with its key (PEM), if it asks.")
    ] = None,
) -> None:
    """All rows as FHIR AuditEvent, to a file or a log server."""
    from triage.service.access import audit

    with people.records() as database:
        if syslog:
            number = _to_server(database, after, syslog, ca, certificate)
        else:
            number = _to_file(database, after, out)
        with database.session() as session:
            details = {"rows": number, "after": after, "to": syslog or str(out or "stdout")}
            audit.record(session, "audit.exported", people.me(), "audit", details=details)
    print(f"{number} rows", file=sys.stderr)


def _rows(database: Database, after: int) -> Iterator[Mapping[str, Any]]:
    from triage.service.access import audit

    with database.reading() as session:
        yield from audit.rows(session, after)


def _to_file(database: Database, after: int, out: Path | None) -> int:
    from triage.service.access.fhir import audit_event

    number = 0
    stream = sys.stdout if out is None else out.expanduser().open("x", encoding="ascii")
    try:
        for row in _rows(database, after):
            print(json.dumps(audit_event(row), ensure_ascii=True), file=stream)
            number += 1
    finally:
        if out is not None:
            stream.close()
    return number


def _to_server(
    database: Database, after: int, to: str, ca: Path | None, certificate: Path | None
) -> int:
    from triage.service.access import syslog

    try:
        address = syslog.address(to)
        context = syslog.tls(ca, certificate)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    host, rows, number = syslog.host_name(), _rows(database, after), 0
    while page := list(islice(rows, AT_ONCE)):
        try:
            syslog.send((syslog.message(row, host) for row in page), address, context)
        except OSError as error:
            print(f"triage: the log server did not take it: {plain(error)}", file=sys.stderr)
            print(f"triage: go on with --after {page[0]['id'] - 1}", file=sys.stderr)
            raise typer.Exit(Exit.FAULT) from error
        number += len(page)
    return number

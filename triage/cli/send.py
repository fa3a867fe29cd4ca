"""`triage send`: a report folder to a PACS. `triage outbox`: what the service sends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from triage.cli.common import load_settings, plain


def send(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Report folder that `triage run --dicom` wrote.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="PACS", help="AE@host:port, or the address of a STOW-RS server."
        ),
    ],
) -> None:
    """Send the DICOM objects of one report folder to a PACS."""
    from triage.delivery.destinations import Destination, peer
    from triage.delivery.errors import DeliveryError
    from triage.delivery.sending import Payload
    from triage.delivery.sending import send as deliver

    settings = load_settings()
    files = sorted((folder / "dicom").glob("*.dcm"))
    if not files:
        raise typer.BadParameter("holds no DICOM objects: triage run --dicom", param_hint="FOLDER")
    web = to.startswith(("http://", "https://"))
    try:
        if not web:
            peer(to)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--to") from error
    kind = "stow" if web else "dicom"
    where = Destination(kind, to.rstrip("/"), settings.deliver_stow_token if web else "")
    try:
        deliver(
            where,
            Payload(files=files),
            ae_title=settings.ae_title,
            timeout_s=settings.deliver_timeout_s,
        )
    except DeliveryError as error:
        print(plain(f"triage: not sent: {error}"), file=sys.stderr)
        raise typer.Exit(1) from error
    typer.echo(f"{len(files)} objects sent to {plain(to)}")


def outbox(
    state: Annotated[
        str, typer.Option("--state", help="waiting, done, dead or superseded; empty: all.")
    ] = "",
    resend: Annotated[
        str, typer.Option("--resend", metavar="ID", help="Send this one again; `dead`: all dead.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10000, help="Rows shown.")] = 50,
) -> None:
    """What the service sends to PACS and hospital systems: list it, or send it once more."""
    from triage.cli import people
    from triage.service.access import audit
    from triage.service.records import deliveries

    if state and state not in deliveries.STATES:
        raise typer.BadParameter(f"one of {', '.join(deliveries.STATES)}", param_hint="--state")
    with people.records() as database:
        if resend:
            with database.session() as session:
                found = deliveries.resend(session, resend) if resend != "dead" else None
                number = int(found is not None)
                if resend == "dead":
                    number = deliveries.resend_dead(session)
                if not number and resend != "dead":
                    raise typer.BadParameter("there is no such delivery", param_hint="--resend")
                about = {"by hand": True, "number": number}
                audit.record(session, "delivery.sent", people.me(), resend, details=about)
            typer.echo(f"{number} due again")
            return
        with database.reading() as session:
            rows = [
                (d.id, d.state, f"v{a.version}", str(d.attempts), d.destination, d.last_error)
                for d, a in deliveries.newest(session, state or None, limit=limit)
            ]
    people.columns(rows)

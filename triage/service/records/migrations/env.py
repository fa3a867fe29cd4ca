"""How Alembic runs our migrations: on the connection that `Database.upgrade` hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from triage.service.records.models import Base, UtcDateTime


def plain(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Migrations must not import what may change later: our time type is a plain column there."""
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime) else False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_item=plain,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()

"""What came in, and whether it changed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "drift_figures",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("analysis_id", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("bundle_sha256", sa.Text(), nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_drift_figures")),
    )
    op.create_index("ix_drift_figures_at", "drift_figures", ["at"])
    op.create_table(
        "drift_warnings",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("figure", sa.Text(), nullable=False),
        sa.Column("against", sa.Text(), nullable=False),
        sa.Column("begun_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_warnings")),
    )
    op.create_index(op.f("ix_drift_warnings_begun_at"), "drift_warnings", ["begun_at"])
    op.create_index(
        "uq_drift_warnings_open",
        "drift_warnings",
        ["figure", "against"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )

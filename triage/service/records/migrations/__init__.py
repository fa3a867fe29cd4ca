"""Alembic migrations: `database.Database.upgrade` applies them."""

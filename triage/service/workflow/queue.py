"""The durable queue: DBOS on SQLite (a file in the home) or in the schema `dbos` of PostgreSQL.

DBOS lives in the process that works; it opens no port, reports to nobody and needs no other
program. Arguments and results are JSON: nothing in its tables runs code when it is read.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, Serializer, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import make_url

from triage.settings import Settings

NAME = "studies"
APPLICATION = "triage"
# The order and names of the steps. Change it when they change: studies under way in the old shape
# are then begun anew by the check for studies without a living workflow.
SHAPE = "1"
POLL_S = 0.25
DEAD_ENDS = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "SUCCESS")
_in_use = threading.Lock()  # DBOS is one a process


class Json(Serializer):
    """JSON; an exception is kept as its text."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=_as_text)

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805 - as in the base class
        return json.loads(serialized_data)

    def name(self) -> str:
        return "triage_json"


def _as_text(value: Any) -> Any:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    raise TypeError(f"Expected plain values, got {type(value).__name__}")


class Queue:
    """DBOS of this process, from `open` to `close`."""

    def __init__(self, settings: Settings, executor: str, poll_s: float = POLL_S) -> None:
        self.settings = settings
        self.executor = executor
        self.poll_s = poll_s
        self._open = False

    def open(self) -> None:
        """Connect, resume what this executor had begun, and take studies from now on.

        RuntimeError if this process already runs one.
        """
        if not _in_use.acquire(blocking=False):
            raise RuntimeError("This process already works on a queue.")
        self._open = True
        try:
            self._write_ahead()
            DBOS(config=self._config())
            DBOS.launch()
            DBOS.register_queue(
                NAME,
                worker_concurrency=self.settings.worker_concurrency,
                polling_interval_sec=self.poll_s,
                on_conflict="always_update",
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take no study any more and disconnect; what is under way stays resumable."""
        if self._open:
            self._open = False
            try:
                DBOS.destroy()
            finally:
                _in_use.release()

    def put(
        self, function: Callable[..., Any], workflow_id: str, turn: int, arguments: Sequence[Any]
    ) -> None:
        """Queue one call under its id; an id that is known already changes nothing."""
        with SetWorkflowID(workflow_id), SetEnqueueOptions(priority=turn):
            DBOS.enqueue_workflow(NAME, function, *arguments)

    def advance(self, workflow_id: str, turn: int) -> None:
        """Give an entry that still waits an earlier turn (an order became STAT)."""
        system = _system()
        table = system.tables.workflow_status
        with system.engine.begin() as connection:
            connection.execute(
                sa.update(table)
                .where(table.c.workflow_uuid == workflow_id, table.c.status == "ENQUEUED")
                .where(table.c.priority > turn)
                .values(priority=turn)
            )

    def status(self, workflow_id: str) -> str | None:
        found = DBOS.get_workflow_status(workflow_id)
        return None if found is None else found.status

    def under_way(self) -> dict[str, str]:
        """Entries that were begun and not ended, of all executors: workflow id -> executor."""
        found = DBOS.list_workflows(
            queue_name=NAME, status="PENDING", load_input=False, load_output=False
        )
        return {entry.workflow_id: entry.executor_id or "" for entry in found}

    def release(self, executors: Sequence[str]) -> None:
        """Put back what these dead executors had begun: any worker may resume it.

        Idempotent: an entry that a living executor took meanwhile is not touched. DBOS itself
        leaves such entries until an executor of the same name starts.
        """
        DBOS._recover_pending_workflows(list(executors))

    def resume(self, workflow_id: str) -> None:
        """Put back one entry whoever had it (one of our own that lost its thread)."""
        DBOS.resume_workflow(workflow_id, queue_name=NAME)

    def _config(self) -> DBOSConfig:
        return DBOSConfig(
            name=APPLICATION,
            system_database_url=self.url(),
            application_version=SHAPE,
            executor_id=self.executor,
            serializer=Json(),
            log_level="WARNING",
            enable_otlp=False,
            use_listen_notify=False,  # nothing here waits for messages
            sys_db_pool_size=5,
            notification_listener_polling_interval_sec=1.0,
            scheduler_polling_interval_sec=3600.0,
        )

    def _write_ahead(self) -> None:
        """SQLite remembers its journal mode: in WAL, readers and the writer do not wait."""
        url = make_url(self.url())
        if url.get_backend_name() == "sqlite":
            with closing(sqlite3.connect(str(url.database), timeout=30)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    def url(self) -> str:
        """Where the queue lives: beside the records."""
        given = self.settings.database_url
        if given and not given.startswith("sqlite"):
            return given
        home = self.settings.home.expanduser().resolve()
        return f"sqlite:///{home / 'queue.db'}"


def _system() -> Any:
    from dbos._dbos import _get_dbos_instance

    return _get_dbos_instance()._sys_db

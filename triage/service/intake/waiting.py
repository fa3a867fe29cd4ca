"""Associations that wait for news instead of asking for them.

pynetdicom 3.0 has two threads for each association, and each of them looks a thousand times a
second whether there is something to do. With 50 senders that alone costs more than the images.
Here one thread sleeps until the connection has data or an answer is to be sent, the other one
until a message has come. What neither of them is told of (timers) is looked at every `LOOK_S`.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import ssl
import threading
import weakref
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider

log = logging.getLogger(__name__)

LOOK_S = 0.05


class _Told(queue.Queue[Any]):
    """A queue that tells somebody of each item."""

    def __init__(self, tell: Any) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell()


class WaitingProvider(DULServiceProvider):
    """The thread of the connection. `news`: set when the association has something to look at."""

    def __init__(self, assoc: Association) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        weakref.finalize(self, _close, self._wake_read, self._wake_write)  # when no thread is left
        self.news = threading.Event()
        super().__init__(assoc)
        self.to_provider_queue = _Told(self._wake)
        self.to_user_queue = self._for_user = _Told(self.news.set)

    @property
    def _run_loop_delay(self) -> float:
        """The base class sleeps so long when it found nothing: the waiting is done here."""
        connection = getattr(self.socket, "socket", None)
        with suppress(OSError, ValueError):  # closed meanwhile: the loop finds out
            if isinstance(connection, ssl.SSLSocket) and connection.pending():
                return 0.0
            if connection is None or connection.fileno() < 0:
                return 0.001
            poll = select.poll()  # `select` fails for files beyond 1,023
            poll.register(connection, select.POLLIN)
            poll.register(self._wake_read, select.POLLIN)
            poll.poll(1000 * LOOK_S)
            os.read(self._wake_read, 4096)
        return 0.0

    @_run_loop_delay.setter
    def _run_loop_delay(self, value: float) -> None:
        """Set by the base class, without effect."""

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake anyway; closed: it has ended
            os.write(self._wake_write, b"\0")

    def kill_dul(self) -> None:
        super().kill_dul()
        self._wake()
        self.news.set()
        if self.assoc.requestor.primitive is None:  # it still waits for its request
            self._for_user.put(None)

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:  # PDUs in an order that pynetdicom's state machine does not know
            log.warning("a connection ended by a fault: %s", type(error).__name__)
            self.assoc.is_aborted, self.assoc.is_established = True, False
            self.assoc._kill = self._kill_thread = True
            if self.socket is not None:
                with suppress(OSError):
                    self.socket.close()
        finally:
            self.news.set()  # the association looks whether this thread is alive


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


class WaitingMessages(DIMSEServiceProvider):
    """The thread of the messages."""

    def __init__(self, assoc: Association, provider: WaitingProvider) -> None:
        super().__init__(assoc)
        self._news = provider.news
        self.msg_queue = _Told(self._news.set)

    def get_msg(self, block: bool = False) -> Any:
        """As the base class, but without `block` it waits a moment."""
        if not block and self.msg_queue.empty():
            self._news.wait(LOOK_S)
            self._news.clear()
        return super().get_msg(block)

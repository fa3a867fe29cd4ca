"""Health checks of containers and units: `python -m triage.service.probe [serve|worker]`.

Exit code 0 if fit for work. `serve` asks /readyz on this machine; `worker` looks for a heartbeat of
this machine in the database.
"""

from __future__ import annotations

import http.client
import ssl
import sys
from datetime import timedelta

from triage.settings import Settings

BEAT_S = 60.0  # a worker beats every few seconds
TIMEOUT_S = 10.0
OURSELVES = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - compared  # nosec B104


def serve(settings: Settings) -> bool:
    """The answer of /readyz. The certificate is not checked: we ask ourselves."""
    host = OURSELVES.get(settings.http_host, settings.http_host)
    asking: http.client.HTTPConnection
    if settings.tls_cert is not None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        asking = http.client.HTTPSConnection(
            host, settings.http_port, timeout=TIMEOUT_S, context=context
        )
    else:
        asking = http.client.HTTPConnection(host, settings.http_port, timeout=TIMEOUT_S)
    try:
        asking.request("GET", "/readyz", headers={"Host": "127.0.0.1"})
        return asking.getresponse().status == 200
    except OSError:
        return False
    finally:
        asking.close()


def worker(settings: Settings) -> bool:
    """A worker of this machine was heard of lately."""
    import socket

    from sqlalchemy import select

    from triage.service.records import Database
    from triage.service.records.models import Worker, now

    database = Database.at_home(settings.home, settings.database_url)
    alive = select(Worker.executor).where(
        Worker.host == socket.gethostname(),
        Worker.heartbeat_at > now() - timedelta(seconds=BEAT_S),
    )
    try:
        with database.reading() as session:
            return session.scalar(alive.limit(1)) is not None
    finally:
        database.close()


CHECKS = {"serve": serve, "worker": worker}


def main(arguments: list[str]) -> int:
    """0: fit for work, 1: not."""
    check = CHECKS[arguments[0] if arguments else "serve"]
    try:
        return 0 if check(Settings()) else 1
    except Exception as error:
        print(type(error).__name__, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One shape for every error of the API: {"error": {"code", "message", "fix"}}."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from triage.reasons import REASONS
from triage.service.images.files import StorageError
from triage.service.intake.items import NotStoredError
from triage.service.records import DatabaseBusyError, DatabaseFullError

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer that is an error; `code` is stable, other systems may switch on it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fix: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fix = fix
        self.headers = headers


def bad_request(message: str, fix: str) -> ApiError:
    return ApiError(400, "BAD_REQUEST", message, fix)


def unauthorized(message: str = "Nobody is logged in.", fix: str = "") -> ApiError:
    """401 (RFC 9110, 15.5.2): it must name a way to log in."""
    fix = fix or "POST /api/v1/session, or send Authorization: Bearer with a token."
    return ApiError(401, "UNAUTHORIZED", message, fix, {"WWW-Authenticate": "Bearer"})


def forbidden(message: str, fix: str) -> ApiError:
    return ApiError(403, "FORBIDDEN", message, fix)


def not_found(what: str, fix: str = "GET /api/v1/studies lists all.") -> ApiError:
    return ApiError(404, "NOT_FOUND", f"There is no such {what}.", fix)


def conflict(message: str, fix: str) -> ApiError:
    return ApiError(409, "CONFLICT", message, fix)


def too_large(limit: int) -> ApiError:
    reason = REASONS["TOO_LARGE"]
    return ApiError(413, "TOO_LARGE", f"{reason.message} (more than {limit} bytes)", reason.fix)


def too_slow(seconds: float) -> ApiError:
    return ApiError(
        408, "TOO_SLOW", f"Nothing arrived for {seconds:g} s; nothing was kept.", "Send it again."
    )


def disk_full() -> ApiError:
    return ApiError(507, "DISK_FULL", "The disk is full; nothing was kept.", "Free space, resend.")


def database_busy() -> ApiError:
    return ApiError(
        503,
        "DATABASE_UNAVAILABLE",
        "The database does not answer; nothing was changed.",
        "Try again in a few seconds; /readyz says when it answers.",
    )


def install(app: FastAPI) -> None:
    """Give every error of `app` the one shape."""

    @app.exception_handler(ApiError)
    def ours(_request: Request, error: ApiError) -> JSONResponse:
        return body(error.status, error.code, error.message, error.fix, error.headers)

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name
        fix = "See /api/v1/openapi.json for what there is."
        return body(error.status_code, code, str(error.detail), fix, error.headers)

    @app.exception_handler(RequestValidationError)
    def validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        # never the value that was sent: it may be about a patient
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return body(422, "BAD_REQUEST", faults, "See /api/v1/openapi.json for what is expected.")


def fault_answer(error: Exception) -> JSONResponse:
    """What a fault of ours looks like outside: the type is logged, the text may name a patient."""
    known = _known(error)
    if known is not None:
        return body(known.status, known.code, known.message, known.fix)
    log.error("fault while answering: %s", type(error).__name__, exc_info=error)
    return body(500, "FAULT", "A fault of the service.", "Report the log lines around it.")


def _known(error: Exception) -> ApiError | None:
    """Outside faults that are no fault of ours: a full disk, a database that does not answer."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full()
    if isinstance(error, NotStoredError | StorageError):
        return disk_full() if error.full else database_busy()
    if isinstance(error, DatabaseFullError):
        return disk_full()
    if isinstance(error, DatabaseBusyError | InterfaceError | PoolTimeoutError):
        return database_busy()
    return None


def body(
    status: int, code: str, message: str, fix: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    content = {"error": {"code": code, "message": message, "fix": fix}}
    return JSONResponse(content, status, headers=headers)

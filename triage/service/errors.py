"""One shape for every error of the API: {"error": {"code", "message", "fix"}}."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from triage.reasons import REASONS


class ApiError(Exception):
    """An answer that is an error; `code` is stable, other systems may switch on it."""

    def __init__(self, status: int, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fix = fix


def bad_request(message: str, fix: str) -> ApiError:
    return ApiError(400, "BAD_REQUEST", message, fix)


def not_found(what: str) -> ApiError:
    return ApiError(404, "NOT_FOUND", f"There is no such {what}.", "GET /api/v1/studies lists all.")


def too_large(limit: int) -> ApiError:
    reason = REASONS["TOO_LARGE"]
    return ApiError(413, "TOO_LARGE", f"{reason.message} (more than {limit} bytes)", reason.fix)


def disk_full() -> ApiError:
    return ApiError(507, "DISK_FULL", "The disk is full; nothing was kept.", "Free space, resend.")


def install(app: FastAPI) -> None:
    """Give every error of `app` the one shape."""

    @app.exception_handler(ApiError)
    def ours(_request: Request, error: ApiError) -> JSONResponse:
        return body(error.status, error.code, error.message, error.fix)

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name
        fix = "See /api/v1/openapi.json for what there is."
        return body(error.status_code, code, str(error.detail), fix)

    @app.exception_handler(RequestValidationError)
    def validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return body(422, "BAD_REQUEST", faults, "See /api/v1/openapi.json for what is expected.")

    @app.exception_handler(Exception)
    def fault(_request: Request, _error: Exception) -> JSONResponse:
        return body(500, "FAULT", "A fault of the service.", "Report the log lines around it.")


def body(status: int, code: str, message: str, fix: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "fix": fix}}, status)

"""STOW-RS: images over HTTP (PS3.18 section 10.5), streamed to the disk.

The answer comes after the commit. Compressed bodies are refused (no bomb to defuse), the body and
each part have a limit, and a client that sends nothing for `dicom_timeout_s` is cut off.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from triage.service import errors
from triage.service.errors import ApiError
from triage.service.images.files import FileTooLargeError, Incoming, StorageError
from triage.service.intake.accept import Accepted, Claim, NotStoredError, Source, State
from triage.service.intake.archive import Upload
from triage.service.intake.dimse import CANNOT_UNDERSTAND, STATUS_OF_REASON
from triage.service.intake.multipart import MultipartError, Parts, boundary_of
from triage.service.intake.service import Intake

_AT_ONCE = 64  # images that wait for their commit
_BODY = {
    "required": True,
    "content": {'multipart/related; type="application/dicom"': {"schema": {"type": "string"}}},
}


class DicomJson(JSONResponse):
    media_type = "application/dicom+json"


def router(intake: Callable[[Request], Intake]) -> APIRouter:
    """The routes `POST /dicom-web/studies` and `/dicom-web/studies/{study_instance_uid}`.

    `intake`: gives the running intake of a request.
    """
    routes = APIRouter(tags=["DICOMweb"])

    @routes.post(
        "/dicom-web/studies", response_class=DicomJson, openapi_extra={"requestBody": _BODY}
    )
    async def store(request: Request) -> DicomJson:
        """Store DICOM instances (STOW-RS); 200 when all are safely stored, 202 some, 409 none."""
        return await _store(request, intake(request), "")

    @routes.post(
        "/dicom-web/studies/{study_instance_uid}",
        response_class=DicomJson,
        openapi_extra={"requestBody": _BODY},
    )
    async def store_study(request: Request, study_instance_uid: str) -> DicomJson:
        """Store DICOM instances of this study (STOW-RS); others are refused."""
        return await _store(request, intake(request), study_instance_uid)

    return routes


async def _store(request: Request, intake: Intake, study: str) -> DicomJson:
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is None or request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Expected multipart/related with parts of type application/dicom, not compressed.",
            'Send Content-Type: multipart/related; type="application/dicom"; boundary=...',
        )
    who = request.client.host if request.client else ""
    transfer = _Transfer(
        intake, Source("stow", getattr(request.state, "user", "") or who, transfer=True), study
    )
    parts = Parts(boundary, intake.files, intake.settings.max_bytes)
    try:
        async for chunk in _chunks(request, intake.settings.dicom_timeout_s):
            parts.feed(chunk)
            await transfer.take(parts)
        parts.end()
        await transfer.finish()
        transfer.complete = True
    except MultipartError as error:
        if error.too_large:
            raise errors.too_large(intake.settings.max_bytes) from error
        raise errors.bad_request(f"The form is broken: {error}.", "Send it again.") from error
    except (StorageError, NotStoredError) as error:
        raise _not_stored(error.full) from error
    finally:
        parts.discard()
        await transfer.close()
    if not transfer.taken:
        raise errors.bad_request("The form has no part.", "Send one DICOM file in each part.")
    return transfer.answer()


async def _chunks(request: Request, timeout_s: float) -> AsyncIterator[bytes]:
    stream = request.stream().__aiter__()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), timeout_s)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise errors.too_slow(timeout_s) from None


def _not_stored(full: bool) -> Exception:
    if full:
        return OSError(errno.ENOSPC, "No space left on device")  # errors.py: 507
    return errors.database_busy()


class _Transfer:
    """One request: what was taken so far."""

    def __init__(self, intake: Intake, source: Source, study: str) -> None:
        self.intake = intake
        self.source = source
        self.claim = Claim(study_instance_uid=study)
        self.upload = Upload()
        self.taken: list[Accepted] = []
        self.complete = False
        self._waiting: list[Future[Accepted]] = []

    async def take(self, parts: Parts) -> None:
        """Hand over the parts that are complete; wait where too many wait."""
        while parts.done:
            file = parts.done.pop(0)
            if file is None:
                self._add(Accepted(State.QUARANTINED, reason="TOO_LARGE"))
            else:
                self._waiting.append(await run_in_threadpool(self._submit, file))
        if len(self._waiting) >= _AT_ONCE:
            await self.finish()

    async def finish(self) -> None:
        """Wait for every commit. Raises NotStoredError."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            self._add(await asyncio.wrap_future(future))

    async def close(self) -> None:
        """A request that broke off leaves its studies incomplete; a whole one mends them."""
        waiting, self._waiting = self._waiting, []
        ended = [asyncio.wrap_future(future) for future in waiting]
        for done in await asyncio.gather(*ended, return_exceptions=True):
            if isinstance(done, Accepted):
                self._add(done)
        lacking = self.upload.lacking or not self.complete
        await run_in_threadpool(
            self.intake.completeness.transfer_ended, self.upload.studies, lacking
        )

    def _submit(self, file: Incoming) -> Future[Accepted]:
        try:
            return self.intake.acceptor.submit(file, self.source, self.claim)
        except FileTooLargeError as error:
            done: Future[Accepted] = Future()
            done.set_result(Accepted(State.QUARANTINED, reason="TOO_LARGE", detail=str(error)))
            return done

    def _add(self, accepted: Accepted) -> None:
        self.taken.append(accepted)
        self.upload.add(accepted)

    def answer(self) -> DicomJson:
        """Store Instances Response (PS3.18 10.5.3, annex I.2)."""
        stored = [one for one in self.taken if one.state in (State.STORED, State.DUPLICATE)]
        failed = [one for one in self.taken if one.state is State.QUARANTINED]
        body: dict[str, Any] = {}
        if stored:
            body["00081199"] = _sequence([_reference(one) for one in stored])
        if failed:
            body["00081198"] = _sequence([_reference(one) | _failure(one) for one in failed])
        status = 200 if stored and not failed else 202 if stored else 409
        return DicomJson(body, status)


def _sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}


def _reference(one: Accepted) -> dict[str, Any]:
    """Referenced SOP Class UID and Instance UID, where they are known."""
    uids = {"00081150": one.sop_class_uid, "00081155": one.sop_instance_uid}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items() if uid}


def _failure(one: Accepted) -> dict[str, Any]:
    """Failure Reason (0008,1197), the statuses of C-STORE."""
    status = STATUS_OF_REASON.get(one.reason, CANNOT_UNDERSTAND)
    return {"00081197": {"vr": "US", "Value": [status]}}

"""Uploads, streamed to disk: raw (application/zip) or the first file of a form (multipart)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from triage.service.errors import ApiError, bad_request, too_large, too_slow

SILENCE_S = 30.0
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


async def receive(request: Request, path: Path, limit: int) -> None:
    """Write the uploaded zip to `path`, at most `limit` bytes, and sync it.

    Raises ApiError: 413 when it is larger, 400 when it is empty, no zip or a broken form, 408 when
    nothing comes for `SILENCE_S`.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit + (64 << 10):  # a form has some overhead
        raise too_large(limit)
    with path.open("xb") as file:
        written = 0

        def save(data: bytes) -> None:
            nonlocal written
            if not written and not data.startswith(ZIP_MAGIC) and len(data) >= 4:
                raise bad_request("The upload is no zip file.", "Send one zip of DICOM files.")
            written += len(data)
            if written > limit:
                raise too_large(limit)
            file.write(data)

        sink = _sink(request.headers.get("content-type", ""), save)
        received = 0
        async for chunk in _in_time(request):
            received += len(chunk)
            if received > limit + (64 << 10):
                raise too_large(limit)
            if chunk:
                sink.feed(chunk)
        sink.end()
        if written < 4:
            raise bad_request("The upload holds no file.", "Send one zip of DICOM files.")
        file.flush()
        await run_in_threadpool(os.fsync, file.fileno())


async def _in_time(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), SILENCE_S)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise too_slow(SILENCE_S) from error


class _Raw:
    """The body is the file."""

    def __init__(self, save: Callable[[bytes], None]) -> None:
        self.feed = save

    def end(self) -> None:
        """Nothing to check: HTTP itself tells a body that broke off."""


class _Form:
    """The body is a form (RFC 7578); its first part with a file name is the file."""

    def __init__(self, boundary: bytes, save: Callable[[bytes], None]) -> None:
        self._save = save
        self._name = self._value = b""
        self._wanted = self._found = self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise _broken_form() from error

    def end(self) -> None:
        if not self._complete:
            raise _broken_form()

    def _part_begin(self) -> None:
        self._name = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition" and not self._found:
            self._wanted = self._found = b"filename" in parse_options_header(self._value)[1]
        self._name = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self._save(data[start:end])

    def _part_end(self) -> None:
        self._wanted = False

    def _end(self) -> None:
        self._complete = True


def _sink(content_type: str, save: Callable[[bytes], None]) -> _Raw | _Form:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return _Raw(save)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _broken_form()
    return _Form(boundary, save)


def _broken_form() -> ApiError:
    return bad_request("The form is broken.", "Send one zip as multipart/form-data or raw.")

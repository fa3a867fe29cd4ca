"""multipart/related (RFC 2387) as DICOMweb uses it, read as it comes: one `Incoming` a part."""

from __future__ import annotations

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from triage.service.images.files import Files, FileTooLargeError, Incoming

MAX_PARTS = 50_000
_MAX_HEADER = 8 << 10  # bytes of one part's headers


class MultipartError(ValueError):
    """The message is broken, or larger than allowed (`too_large`)."""

    def __init__(self, text: str, too_large: bool = False) -> None:
        super().__init__(text)
        self.too_large = too_large


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart/related content type of DICOM parts; None if it is no such."""
    kind, options = parse_options_header(content_type)
    inner = options.get(b"type", b"application/dicom").lower()
    if kind.lower() != b"multipart/related" or inner != b"application/dicom":
        return None
    boundary = options.get(b"boundary", b"")
    return boundary if 0 < len(boundary) <= 70 else None  # RFC 2046 5.1.1


class Parts:
    """Feed it the body; `done` holds the parts that are complete: take them out between feeds.

    A part that is too large is None in `done`, and its bytes are not kept.
    """

    def __init__(self, boundary: bytes, files: Files, limit: int) -> None:
        self.done: list[Incoming | None] = []
        self._files = files
        self._limit = limit
        self._received = 0
        self._count = 0
        self._header = 0
        self._file: Incoming | None = None
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_bytes,
                "on_header_value": self._header_bytes,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def feed(self, data: bytes) -> None:
        """Raises MultipartError, StorageError."""
        self._received += len(data)
        if self._received > self._limit:
            raise MultipartError(f"more than {self._limit} bytes", too_large=True)
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise MultipartError("the parts cannot be told apart") from error

    def end(self) -> None:
        """The body is complete. Raises MultipartError."""
        if not self._complete:
            raise MultipartError("the body ends before its last boundary")

    def discard(self) -> None:
        """Remove what was not taken."""
        for file in [self._file, *self.done]:
            if file is not None:
                file.discard()
        self._file, self.done = None, []

    def _begin(self) -> None:
        self._count += 1
        self._header = 0
        if self._count > MAX_PARTS:
            raise MultipartError(f"more than {MAX_PARTS} parts", too_large=True)
        self._file = self._files.begin()

    def _header_bytes(self, _data: bytes, start: int, end: int) -> None:
        self._header += end - start
        if self._header > _MAX_HEADER:
            raise MultipartError("the headers of a part are too long")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            try:
                self._file.write(memoryview(data)[start:end])
            except FileTooLargeError:
                self._file = None

    def _end(self) -> None:
        self.done.append(self._file)
        self._file = None

    def _finish(self) -> None:
        self._complete = True

"""The table of reason codes: what was wrong, and what to do about it.

A study that is not analysed, and a target that is not assessed, always carries one of these.
Codes are stable: other systems switch on them.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    message: str
    fix: str


REASONS: dict[str, Reason] = {
    "UNREADABLE": Reason(
        "The file cannot be read as DICOM, NIfTI, NRRD or MHA.",
        "Send the original file again; check that it was copied completely.",
    ),
    "TOO_LARGE": Reason(
        "The input is larger than the limits allow.",
        "Send one study at a time, or raise TRIAGE_MAX_SLICES or TRIAGE_MAX_BYTES.",
    ),
    "BAD_UID": Reason(
        "A DICOM unique identifier is missing or malformed.",
        "Correct the identifiers at the sender (digits and dots, 64 characters at most).",
    ),
    "NOT_CT": Reason(
        "No CT image series was found.",
        "Send an axial CT series of the abdomen.",
    ),
    "UNSUPPORTED_SYNTAX": Reason(
        "The transfer syntax is not supported.",
        "Send the series uncompressed or losslessly compressed.",
    ),
    "PIXELS_TRUNCATED": Reason(
        "The pixel data of a slice are shorter than its header says.",
        "Send the series again from the scanner or PACS.",
    ),
    "PIXELS_UNDECODABLE": Reason(
        "The pixel data of a slice cannot be decoded.",
        "Send the series again, uncompressed if possible.",
    ),
    "PIXELS_INCONSISTENT": Reason(
        "The pixel values contradict the header.",
        "Check bits stored, sign and rescale values at the sender.",
    ),
    "BAD_DIMENSIONS": Reason(
        "Rows, columns or frames are impossible or differ within the series.",
        "Send the original axial series, not a derived object.",
    ),
    "BAD_RESCALE": Reason(
        "Rescale slope or intercept is missing or impossible, so the HU are unknown.",
        "Send the original CT images with their rescale values.",
    ),
    "NO_GEOMETRY": Reason(
        "Position, orientation or pixel spacing is missing.",
        "Send the original axial series with its geometry.",
    ),
    "BAD_GEOMETRY": Reason(
        "Position, orientation or pixel spacing is impossible.",
        "Send the original axial series with its geometry.",
    ),
    "TILT": Reason(
        "The gantry was tilted: slices are sheared against their normal.",
        "Send a reconstruction without gantry tilt.",
    ),
    "GAP": Reason(
        "At least one slice is missing inside the series.",
        "Send the missing slices; the study is then analysed again.",
    ),
    "IRREGULAR_SPACING": Reason(
        "The distance between slices is not constant.",
        "Send a reconstruction with constant slice distance.",
    ),
    "DUPLICATE_SLICE": Reason(
        "Two different slices have the same position.",
        "Send one reconstruction per series.",
    ),
    "TOO_FEW_SLICES": Reason(
        "The series has too few slices to be an abdominal CT.",
        "Send the whole axial series.",
    ),
    "MIXED_PATIENT": Reason(
        "The series holds images of more than one patient.",
        "Separate the patients and send each study again.",
    ),
    "MIXED_ORIENTATION": Reason(
        "The series holds images of different orientation.",
        "Send the axial images as a series of their own.",
    ),
    "MIXED_SPACING": Reason(
        "The series holds images of different pixel spacing or slice thickness.",
        "Send one reconstruction per series.",
    ),
    "MIXED_ACQUISITIONS": Reason(
        "The series holds more than one acquisition over the same body region.",
        "Send each contrast phase as a series of its own.",
    ),
    "INCOMPLETE_SERIES": Reason(
        "Fewer slices arrived than were announced.",
        "Send the series again; it is then analysed anew.",
    ),
    "NOT_ABDOMEN": Reason(
        "The images do not show an abdomen.",
        "Send a CT series that covers liver, spleen, kidneys or bowel.",
    ),
    "OUT_OF_SCOPE": Reason(
        "The patient or examination is outside the intended use (adults, blunt abdominal trauma).",
        "Read this study without the service.",
    ),
    "MISMATCH_BODY_PART": Reason(
        "The images show another body part than the header or order says.",
        "Check that images and order belong together.",
    ),
    "MISMATCH_PATIENT": Reason(
        "The order names another patient than the images.",
        "Check that images and order belong together.",
    ),
    "MISMATCH_SIDE": Reason(
        "The order names one side, the suspicion is on the other.",
        "Look at both sides.",
    ),
    "MIRRORED_OR_SITUS_INVERSUS": Reason(
        "The organs are mirrored: wrong orientation in the header, or situs inversus.",
        "Check left and right before using any result.",
    ),
    "MISMATCH_ORIENTATION": Reason(
        "The patient lies another way in the images than the header says.",
        "Check patient position and image orientation at the scanner, and send the series again.",
    ),
    "UNLIKE_TRAINING": Reason(
        "The images differ much from those that the networks learned from.",
        "Trust no result of this study without looking.",
    ),
    "LOW_QUALITY": Reason(
        "Noise or artefacts are too strong for a sound analysis.",
        "Read this study without the service.",
    ),
    "INCOMPLETE_COVERAGE": Reason(
        "The organ is not, or not wholly, inside the scanned range.",
        "Send a series that covers the whole organ.",
    ),
    "NO_CONTRAST": Reason(
        "No intravenous contrast is visible, so this question cannot be answered.",
        "Send a contrast-enhanced series.",
    ),
    "NOT_TRAINED": Reason(
        "The networks in use were not trained for this question.",
        "Use a bundle that was trained for it (TRIAGE_MODEL, --model).",
    ),
    "TIMED_OUT": Reason(
        "The analysis took longer than allowed.",
        "Try again; on slow machines raise TRIAGE_DECODE_TIMEOUT_S or TRIAGE_ANALYSIS_TIMEOUT_S.",
    ),
    "WORKER_FAILED": Reason(
        "A process of the analysis ended unexpectedly.",
        "Try again; if it repeats, report the log lines around it.",
    ),
    "CANCELLED": Reason(
        "The analysis was cancelled.",
        "Start it again when it is wanted.",
    ),
}


class NotAnalysed(Exception):
    """The input was refused. `code` is a key of `REASONS`; `detail` says what came instead."""

    def __init__(self, code: str, detail: str = "", study_instance_uid: str | None = None) -> None:
        if code not in REASONS:
            raise KeyError(f"Unknown reason code {code!r}; known: {', '.join(REASONS)}")
        self.code = code
        self.detail = detail
        self.study_instance_uid = study_instance_uid
        super().__init__(self.line())

    @property
    def message(self) -> str:
        """The table's message with the detail, on one line."""
        text = REASONS[self.code].message
        return f"{text} ({self.detail})" if self.detail else text

    @property
    def fix(self) -> str:
        return REASONS[self.code].fix

    def line(self) -> str:
        """Code, message and fix on one line, safe to print: control characters are removed."""
        text = f"{self.code}: {self.message} {self.fix}"
        return "".join(c if c.isprintable() else " " for c in text)

    def __reduce__(self) -> tuple[type[NotAnalysed], tuple[str, str, str | None]]:
        return NotAnalysed, (self.code, self.detail, self.study_instance_uid)

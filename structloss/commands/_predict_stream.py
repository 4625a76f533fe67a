"""`structloss predict - --stream`: lines of keypoints on standard input, a pose a line on standard output.

The lines are those of :mod:`structloss.data.formats.keypoint_lines`. An answer is an object with `line`, the number of
the line that it is to; `person` and `time`, where that line told them; `frame`; `positions` `[J][3]` in metres, null
where nobody was found; `lag`, by how many frames of this person it is late; `ms`, from when the line that made it known
had been read to when it is written; and `scale` where the size is nominal. A line that can't be taken is answered by an
object with `line` and `error`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from ..errors import ArgumentError, CheckpointError, DataError, StructlossError, needs_extra
from ..text import visible
from ._imports import import_torchmetrics
from ._parser import with_flags
from ._predict_settings import OWN, STANDARD_INPUT, PredictSettings, check_network, chosen_device

if TYPE_CHECKING:
    from ..harness.streaming import KeypointStream, StreamedPose

__all__ = ["run_predict_stream"]

#: what has a meaning with --stream, as attributes of the settings
_TAKEN = {
    "input", "stream", "lag", "ckpt", "backbone", "weights", "target", "flip", "device", "layout", "variant",
    "image_size", "fps", "refine", "fit_skeleton",
}  # fmt: skip
#: the network where none is named: it looks at no later frame
DEFAULT = "lift-s"
_KEPT = 100_000  # times of the latest answers, of which the figures at the end are


def run_predict_stream(
    settings: PredictSettings,
    flags: Mapping[str, str] | None = None,
    lines: BinaryIO | None = None,
    out: TextIO | None = None,
) -> None:
    """Answer every line until no more come; say at the end, on standard error, how many and how fast.

    Args:
        settings: what to do.
        flags: argument -> flag that sets it, for messages that say what to set.
        lines: to read; None is standard input.
        out: to write to; None is standard output.

    Raises:
        ArgumentError: an option that streaming can't go with, or no standard input.
        DataError: at the end, if some lines could not be taken.
        StructlossError: see :func:`~structloss.harness.predict.load_lifter` and
            :class:`~structloss.harness.streaming.KeypointStream`.
    """
    check_stream(settings)
    lines = getattr(sys.stdin, "buffer", None) if lines is None else lines
    if lines is None:
        raise ArgumentError("standard input is closed, expected lines of keypoints for --stream.")
    out = sys.stdout if out is None else out
    if out is None:
        raise ArgumentError("standard output is closed, expected somewhere to write poses for --stream.")
    import_torchmetrics()
    stream = _stream(settings)
    session = _Session(stream, out, flags or {})
    lag = f"{stream.lag} frame{'' if stream.lag == 1 else 's'} late" if stream.lag else "at once"
    _say(f"{stream.lifter.name} with {stream.lifter.source}, answers {lag}; {stream.body.num_joints} joints, metres")
    if stream.refiner is not None and (note := stream.refiner.note(settings.fps)):
        _say(f"note: {note}")
    try:
        session.answer_all(lines)
    finally:
        session.report()
    session.check()


def check_stream(settings: PredictSettings) -> None:
    """Raise :class:`ArgumentError` for options that streaming can't go with."""
    if settings.input != STANDARD_INPUT:
        found = "without an input" if settings.input is None else f"with the input {settings.input!r}"
        raise ArgumentError(f"--stream is given {found}, expected - for standard input.")
    for field in fields(PredictSettings):
        if field.name not in _TAKEN and getattr(settings, field.name) != field.default:
            flag = "--" + field.name.replace("_", "-")
            raise ArgumentError(f"{flag} is given with --stream, expected it with the keypoints of a file.")
    if settings.fit_skeleton == OWN:
        raise ArgumentError(
            "--fit-skeleton is given with --stream, which can't wait for the median of the prediction, expected a file "
            "of lengths."
        )
    check_network(settings)


def _stream(settings: PredictSettings) -> KeypointStream:
    from ..harness.predict import load_lifter
    from ..harness.streaming import KeypointStream

    device = chosen_device(settings.device)
    backbone = settings.backbone if settings.backbone or settings.ckpt else DEFAULT
    lifter = load_lifter(settings.ckpt, backbone=backbone, weights=settings.weights, target=settings.target)
    refiner = lengths = None
    if settings.refine is not None:
        with needs_extra("harness"):
            from ..harness.refining import load_refiner
        refiner = load_refiner(settings.refine)
    if settings.fit_skeleton is not None:
        from ..harness.refined import read_lengths

        lengths = read_lengths(settings.fit_skeleton, lifter.skeleton)
    return KeypointStream(
        lifter, layout=None if settings.layout == "auto" else settings.layout, image_size=settings.image_size,
        fps=settings.fps, variant=settings.variant, flip=settings.flip, lag=settings.lag, refiner=refiner,
        lengths=lengths, device=device,
    )  # fmt: skip


def _say(text: str) -> None:
    print(f"structloss: {visible(text)}", file=sys.stderr, flush=True)


class _Session:
    """Lines in, answers out, and what is to be said of them in the end."""

    def __init__(self, stream: KeypointStream, out: TextIO, flags: Mapping[str, str]) -> None:
        self.stream, self.out, self.flags = stream, out, flags
        self.read = self.answered = self.broken = 0
        self.first_broken = ""
        self.times: deque[float] = deque(maxlen=_KEPT)

    def answer_all(self, lines: BinaryIO) -> None:
        from ..data.formats.keypoint_lines import LONGEST_LINE, bounded_lines

        for number, line in bounded_lines(lines):
            begun = time.perf_counter()
            self.read += 1
            if line is None:
                self._refuse(number, f"line {number} is longer than {LONGEST_LINE} bytes, expected keypoints.")
                continue
            try:
                answers = self._answers(number, line)
            except CheckpointError:  # nothing that another line would make better
                raise
            except StructlossError as error:
                self._refuse(number, with_flags(str(error), self.flags))
                continue
            self._write(answers, begun)
        self._write(self.stream.flush(), time.perf_counter())

    def _answers(self, number: int, line: bytes) -> list[StreamedPose]:
        from ..data.formats.keypoint_lines import parse_keypoint_line

        found = parse_keypoint_line(line, number)
        if found.end:
            return self.stream.flush(found.person)
        size = None if found.width is None or found.height is None else (found.width, found.height)
        tag = {"line": number}
        told: dict[str, Any] = {"person": found.person, "time": found.time}
        tag |= {name: value for name, value in told.items() if value is not None}
        return self.stream.push(
            found.keypoints, person=found.person, frame=found.frame, time=found.time, image_size=size, tag=tag
        )

    def _write(self, answers: Iterable[StreamedPose], begun: float) -> None:
        for answer in answers:
            positions = None if answer.positions is None else answer.positions.astype(float).round(6).tolist()
            content = {**answer.tag, "frame": answer.frame, "positions": positions, "lag": answer.lag}
            if self.stream.lifter.target != "camera" and positions is not None:
                content["scale"] = round(answer.scale, 6)
            content["ms"] = round(1e3 * (time.perf_counter() - begun), 3)
            self._line(content)
            self.answered += 1
            self.times.append(content["ms"])

    def _refuse(self, number: int, reason: str) -> None:
        self.broken += 1
        told = reason if reason.startswith(f"line {number} ") else f"line {number}: {reason}"
        self.first_broken = self.first_broken or told
        self._line({"line": number, "error": reason})

    def _line(self, content: Mapping[str, Any]) -> None:
        self.out.write(json.dumps(content, allow_nan=False) + "\n")
        self.out.flush()

    def report(self) -> None:
        """How many lines were answered, how late and how fast."""
        import numpy as np

        lines = "1 line" if self.read == 1 else f"{self.read} lines"
        frames = "1 frame" if self.answered == 1 else f"{self.answered} frames"
        text = f"{lines} read, {frames} answered, {self.broken} not taken"
        if self.times:
            half, most = np.percentile(np.array(self.times), [50, 95])
            text += (
                f"; {half:.2f} ms a frame from line to answer, 95 % within {most:.2f} ms; {self.stream.lag} frames late"
            )
        _say(text)

    def check(self) -> None:
        """Raise if some lines could not be taken: the command has not done all that it was asked for."""
        if self.broken:
            raise DataError(
                f"{self.broken} of {self.read} lines could not be taken, the first of them: {self.first_broken}"
            )

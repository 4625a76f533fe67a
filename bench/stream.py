"""What a pose costs as it comes, and what waiting for later frames is worth: keypoints of the four samples, frame by
frame, through the networks whose weights are in the package.

A frame's time is from its keypoints to the pose that they make known, without reading and writing lines. "busy" is the
processor's time a frame; on a machine that others use it says more than the clock. MPJPE is the mean over the joints of
every frame in which somebody was seen, root-relative, millimetres, and the mean over the samples; MPJVE is that of the
steps from frame to frame. With the full lag the poses are compared with those of the whole clip.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from structloss import samples
from structloss.data import load_sample
from structloss.harness.predict import load_lifter, predict
from structloss.harness.streaming import KeypointStream, StreamedPose

from . import command, tables
from .definition import WrongError
from .inputs import Shape

__all__ = ["LAGS", "main"]

#: network -> frames to wait for
LAGS = {"lift-s": (0,), "lift-27": (0, 1, 2, 4, 8, 13)}

EPILOG = """\
examples:
  {command} --threads 1
  {command} --threads 1 --rounds 5 --csv bench/results/cpu_stream.csv
"""


def main(argv: Sequence[str] | None = None, prog: str = "bench.stream") -> int:
    parser = command.Parser(prog, __doc__, EPILOG)
    command.add_measurement(parser, rounds=3)
    return command.carry_out(command.parse_measurement(parser, argv), prog, benchmark)


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of every network and lag, and their table."""
    rows: list[dict[str, object]] = []
    lines = []
    for name, lags in LAGS.items():
        lifter = load_lifter(backbone=name)
        for lag in lags:
            tables.note_progress(f"{name}, {lag} frames late")
            errors: list[tuple[float, float]] = []
            times: list[float] = []
            busy = 0.0
            for sample in samples.names():
                found = load_sample(sample)
                keypoints = found.keypoints
                for _ in range(args.rounds):
                    stream = KeypointStream(
                        lifter, layout=keypoints.skeleton, image_size=(keypoints.width, keypoints.height),
                        fps=keypoints.fps, lag=lag, device=args.device,
                    )  # fmt: skip
                    begun = time.process_time()
                    answers, took = _streamed(stream, keypoints)
                    busy += time.process_time() - begun
                    times += took
                truth = found.truth - found.truth[:, :1]
                errors.append(_errors(answers, truth))
                if lag == lags[-1] and sample == "walk":  # in which every frame has somebody
                    _check(name, answers, predict(lifter, keypoints).positions)
            busy = 1e3 * busy / len(times)
            p20, p50, p80, p95 = (float(1e3 * value) for value in np.percentile(times, [20, 50, 80, 95]))
            mpjpe, mpjve = (1e3 * float(value) for value in np.mean(errors, axis=0))
            common = tables.common_columns("stream", f"{name}, {lag} late", "stream", Shape(1, 1, 17), args)
            rows.append(common | {"metric": "time", "unit": "ms", "p20": p20, "p50": p50, "p80": p80})
            for metric, unit, value in (
                ("time_p95", "ms", p95), ("busy_time", "ms", busy), ("mpjpe", "mm", mpjpe),
                ("mpjve", "mm/frame", mpjve),
            ):  # fmt: skip
                rows.append(common | {"metric": metric, "unit": unit, "p50": value})
            figures = [f"{value:.2f}" for value in (p50, p95, busy)]
            lines.append([name, str(lag), *figures, f"{mpjpe:.1f}", f"{mpjve:.1f}"])
    heads = ["network", "frames late", "ms a frame", "95 % within", "busy", "MPJPE, mm", "MPJVE, mm a frame"]
    text = f"\n### Poses as they come\n\n{tables.table(heads, lines)}\n\n{tables.conditions(args)}.\n"
    return rows, text


def _streamed(stream: KeypointStream, keypoints) -> tuple[list[StreamedPose], list[float]]:
    """All answers, and the seconds that each frame took."""
    answers, times = [], []
    for number, (places, confidence) in enumerate(zip(keypoints.keypoints, keypoints.confidence, strict=True)):
        if not (confidence > 0).any():
            continue  # a gap
        row = np.concatenate([places, confidence[:, None]], axis=1)
        started = time.perf_counter()
        answers += stream.push(row, frame=number)
        times.append(time.perf_counter() - started)
    return answers + stream.flush(), times


def _errors(answers: list[StreamedPose], truth: np.ndarray) -> tuple[float, float]:
    """MPJPE and MPJVE, metres."""
    frames = np.array([answer.frame for answer in answers])
    off = np.stack([answer.positions for answer in answers]) - truth[frames]
    steps = np.diff(off, axis=0)[np.diff(frames) == 1]
    return float(np.linalg.norm(off, axis=-1).mean()), float(np.linalg.norm(steps, axis=-1).mean())


def _check(name: str, answers: list[StreamedPose], expected: np.ndarray) -> None:
    """The answers are those of the whole clip."""
    off = max(float(np.abs(answer.positions - expected[answer.frame]).max()) for answer in answers)
    if len(answers) != len(expected) or not off < 1e-5:
        raise WrongError(f"the stream of {name} is {off:.2g} m off the clip")


if __name__ == "__main__":
    sys.exit(main())

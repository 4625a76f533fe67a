"""Which frame of a video each name or number of a file is.

Detectors name their frames by number (`12`, `000012.jpg`, `clip_0003_000012_1080p`), by time (`t0.480`,
`2018-07-04T12_08_21.072`, `1530706101072`), or by both. The number is the group of digits that tells the frames apart.
Times are put in order; how many frames lie between two of them is told by the usual distance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, shown
from .._words import some

__all__ = ["FrameNumbers", "frame_numbers", "timed"]

_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
_COARSE = 12  # numbers in steps from here on are times, not every n-th frame: 16 or 17 ms are 60 frames per second
_RATES = (0.5, 500.0)  # frames per second that a video may have
_PER_SECOND = {"ms": 1e3, "us": 1e6, "µs": 1e6, "ns": 1e9}
_YEAR_2100 = 4.1e9  # seconds since 1970
_MANY = 8  # steps that have a mean
_SPARSE = 100  # numbers of frames for each frame that is there, at most
_LARGEST = 10**20  # no frame's number, and no time in nanoseconds, is as large

# Date and time, or a time of day, with a fraction of a second. The same mark stands between hours, minutes, seconds.
_TIME = re.compile(
    r"(?<!\d)(?:(?P<date>\d{4}([-_.]?)\d\d\2\d\d)[T _-]?)?(?P<hour>\d\d)(?P<mark>[:_.-]?)(?P<minute>\d\d)(?P=mark)"
    r"(?P<second>\d\d)(?P<fraction>[._,-]?\d{1,9})?(?!\d)"
)


@dataclass(frozen=True)
class FrameNumbers:
    """Frames by number.

    Attributes:
        numbers: of each name, in the order of the names.
        fps: frames per second, where the names are times; None otherwise.
        notes: what the user should know, a sentence each.
    """

    numbers: list[int]
    fps: float | None = None
    notes: tuple[str, ...] = ()


def frame_numbers(path: Path, names: Sequence[Any]) -> FrameNumbers:
    """The number of each frame from its name, or from the number or the seconds that it is.

    Raises:
        DataError: a frame that is neither text nor a number, a name without a number, names of several videos, or
            numbers that are no consecutive frames.
    """
    if not names:
        return FrameNumbers([])
    for name in names:
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not _sensible(name):
            raise DataError(f"{path} has the frame {shown(name)}, expected a number or a name with a number in it.")
    if all(isinstance(name, (int, float)) for name in names):
        if all(name == int(name) for name in names):
            found = _counted([int(name) for name in names])
        else:
            found = timed(names)
    else:
        found = _named(path, [str(name) for name in names])
    low, high, distinct = min(found.numbers), max(found.numbers), len(set(found.numbers))
    if high - low >= _SPARSE * distinct:
        raise DataError(
            f"{path} has {distinct} frames with numbers from {low} to {high}, expected consecutive frames of a video."
        )
    return found


def _sensible(name: str | int | float) -> bool:
    if isinstance(name, str):
        return all(len(digits) <= 20 for digits in re.findall(r"\d+", name))
    return abs(name) < _LARGEST and math.isfinite(name)  # in this order: a large int is no float


def timed(times: Sequence[int | float], per_second: float | None = 1.0) -> FrameNumbers:
    """Frames by the times that they were taken at.

    Args:
        times: one per name, in any order; those of a frame are equal.
        per_second: what a second has of their unit; None is unknown.
    """
    distinct = sorted(set(times))
    if len(distinct) == 1:
        return FrameNumbers([0] * len(times))
    steps = np.array([float(b - a) for a, b in pairwise(distinct)])
    usual = float(np.median(steps))
    near = steps[np.abs(steps - usual) <= usual / 2]
    if len(near) >= _MANY:
        usual = float(near.mean())  # 8, 8 and 9 ms are 8.33: over a gap of a hundred frames that makes four
    index = np.concatenate([[0], np.cumsum(np.maximum(1, np.round(np.minimum(steps / usual, 1e9))))]).astype(int)
    of = dict(zip(distinct, index.tolist(), strict=True))
    fps = None if per_second is None else round(per_second * float(index[-1]) / float(distinct[-1] - distinct[0]), 3)
    if fps is not None and not _RATES[0] <= fps <= _RATES[1]:
        fps = None
    rate = f", about {fps:.3g} per second; set fps if it was another" if fps is not None else ""
    return FrameNumbers([of[time] for time in times], fps, (f"frames are numbered by the times in their names{rate}",))


def _counted(numbers: list[int], per_second: float | None = None) -> FrameNumbers:
    """Numbers of frames; or times, if they come in steps of many.

    Args:
        numbers: one per name, in any order.
        per_second: what a second has of them, where the names say that they are times.
    """
    distinct = sorted(set(numbers))
    steps = [b - a for a, b in pairwise(distinct)]
    usual = sorted(steps)[len(steps) // 2] if steps else 1
    per_second = per_second or _since_1970(distinct)
    if per_second is not None and usual > 1:  # however many frames a second has
        found = timed(numbers, per_second)
        if found.fps is not None:
            return found
    if len(steps) < 3 or usual < _COARSE or min(steps) < 0.6 * usual:
        return FrameNumbers(numbers)
    note = f"frames are numbered in steps of about {usual}, and taken as consecutive ones; set fps"
    return FrameNumbers(timed(numbers, None).numbers, None, (note,))


def _since_1970(numbers: Sequence[int]) -> float | None:
    """What a second has of numbers that are times since 1970, from 2001 on, in ms, µs or ns; None for others."""
    per_second = {13: 1e3, 16: 1e6, 19: 1e9}.get(len(str(numbers[0])))
    return per_second if per_second is not None and numbers[-1] < _YEAR_2100 * per_second else None


def _named(path: Path, names: list[str]) -> FrameNumbers:
    """Frames by names of one pattern, in which groups of digits differ."""
    stems = {name: _ENDING.sub("", name) for name in names}
    for name, stem in stems.items():
        if not re.search(r"\d", stem):
            raise DataError(f"{path} has the frame {name!r}, expected a number in its name.")
    found = _by_times(names, stems)
    if found is not None:
        return found
    split = {stem: re.split(r"(\d+)", stem) for stem in stems.values()}
    patterns = {tuple(parts[0::2]): None for parts in split.values()}
    if len(patterns) > 1:
        raise _several(path, ["*".join(pattern) for pattern in patterns])
    (texts,) = patterns
    groups = {stem: parts[1::2] for stem, parts in split.items()}
    columns = list(zip(*groups.values(), strict=True))
    varying = [c for c, column in enumerate(columns) if len(set(column)) > 1]
    if not varying:
        return FrameNumbers([int(groups[stems[name]][-1]) for name in names])

    def fraction(c: int, marks: str) -> bool:
        return c > 0 and texts[c] in tuple(marks)

    def own_number(c: int) -> bool:
        # Digits behind a point that differ in number, or before which digits differ, too, are none: 0.4 and 0.44, 1.98
        # and 2.02.
        widths = {len(digits) for digits in columns[c]}
        part = fraction(c, ".") and (c - 1 in varying or len(widths) > 1)
        return not part and len(set(map(int, columns[c]))) == len(groups)

    alone = [c for c in varying if own_number(c)]
    best = min(alone, key=lambda c: (not _regular(columns[c]), _spread(columns[c])), default=None)
    if best is not None and (_regular(columns[best]) or _grows([columns[c] for c in varying], columns[best])):
        unit = re.match(r"[ _-]?(ms|us|µs|ns)(?![A-Za-z])", texts[best + 1])
        numbers = [int(groups[stems[name]][best]) for name in names]
        found = _counted(numbers, _PER_SECOND[unit[1]] if unit else None)
        if not (fraction(best, ".") and found.notes):
            return found
    point = next((c for c in reversed(varying) if fraction(c, ".,_-")), 0)
    if point and set(varying) <= {point - 1, point} and (fraction(point, ".") or _subsecond(columns[point])):
        seconds = {stem: float(f"{digits[point - 1]}.{digits[point]}") for stem, digits in groups.items()}
        found = timed([seconds[stems[name]] for name in names])
        if fraction(point, ".") or found.fps is not None:
            return found
    frame = max(varying, key=lambda c: len(set(columns[c])))
    if varying == [frame]:  # as 7 and 07, or it would tell them apart
        raise _twice(path, {stem: int(digits[frame]) for stem, digits in groups.items()})
    raise _several(path, [_with_star(parts, 2 * frame + 1) for parts in split.values()])


def _spread(digits: Sequence[str]) -> int:
    numbers = [int(one) for one in digits]
    return max(numbers) - min(numbers)


def _subsecond(digits: Sequence[str]) -> bool:
    """Whether they may be milli-, micro- or nanoseconds."""
    return {len(one) for one in digits} in ({3}, {6}, {9})


def _regular(digits: Sequence[str]) -> bool:
    """Whether they count: in steps of about one size, but where some are left out."""
    numbers = sorted(int(one) for one in digits)
    steps = sorted(b - a for a, b in pairwise(numbers))
    return steps[0] >= 0.6 * steps[len(steps) // 2]


def _grows(groups: Sequence[Sequence[str]], own: Sequence[str]) -> bool:
    """Whether a group of digits is in the order that all groups that differ tell, the first before the others."""
    rows = sorted(zip(*([int(one) for one in digits] for digits in (*groups, own)), strict=True))
    numbers = [row[-1] for row in rows]
    return numbers == sorted(numbers)


def _with_star(parts: list[str], where: int) -> str:
    return "".join([*parts[:where], "*", *parts[where + 1 :]])


def _several(path: Path, patterns: list[str]) -> DataError:
    distinct = list(dict.fromkeys(patterns))
    return DataError(
        f"{path} has frames of {len(distinct)} videos, {some(map(repr, distinct), 4)}, expected those of one; put each "
        "into a file or folder of its own."
    )


def _twice(path: Path, numbers: dict[str, int]) -> DataError:
    first: dict[int, str] = {}
    name, number = next((name, number) for name, number in numbers.items() if first.setdefault(number, name) != name)
    return DataError(
        f"{path} has the frames {shown(first[number])} and {shown(name)}, both number {number}, expected one name for "
        "each frame."
    )


def _by_times(names: list[str], stems: dict[str, str]) -> FrameNumbers | None:
    """Frames whose names hold a date with a time, or a time with a fraction of a second; None where not all do."""
    times: dict[str, int] = {}  # nanoseconds
    around, exact = set(), False
    for stem in stems.values():
        match = _TIME.search(stem)
        time = None if match is None else _nanoseconds(match)
        if match is None or time is None:
            return None
        times[stem] = time
        exact |= match["fraction"] is not None
        around.add((stem[: match.start()], stem[match.end() :]))
    if len(around) > 1 or len(set(times.values())) < len(times):  # something else tells them apart, too
        return None
    found = timed([times[stems[name]] for name in names], 1e9 if exact else None)
    return found if found.fps is not None or not exact else None


def _nanoseconds(match: re.Match[str]) -> int | None:
    """The time that was found; None where the digits number something else."""
    date, mark, fraction = match["date"], match["mark"], match["fraction"] or ""
    if date is None and (mark == "" or fraction == "" or (mark != ":" and fraction[0].isdigit())):
        return None
    if fraction[:1] in ("_", "-") and len(fraction) not in (4, 7, 10):  # ms, µs or ns
        return None
    try:
        day = datetime.strptime(re.sub(r"\D", "", date), "%Y%m%d").toordinal() if date else 0
        clock = datetime.strptime(match["hour"] + match["minute"] + match["second"], "%H%M%S")
    except ValueError:
        return None
    seconds = day * 86400 + clock.hour * 3600 + clock.minute * 60 + clock.second
    return seconds * 10**9 + int(re.sub(r"\D", "", fraction).ljust(9, "0"))

"""Views: which frames are of which motion, seen by which camera; as objects, and as the columns of a table.

A data set of a hundred thousand views is a table mapped from disk: a :class:`View` is made when it is asked for. What
is asked of all views at once (:func:`columns`, :func:`motions`, :func:`names`) is answered from the columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np

__all__ = [
    "ROW",
    "TEXTS",
    "Texts",
    "View",
    "Views",
    "columns",
    "motion_numbers",
    "motions",
    "names",
    "pick",
    "rows_of",
]

#: columns of :data:`ROW` that are numbers of texts
TEXTS = ("subject", "action", "name", "camera")
#: a view in a table: texts are numbers in a list of texts; what is not known is NaN
ROW = np.dtype(
    [
        *((name, "<i4") for name in (*TEXTS, "index")),
        ("crc", "<u4"),  # of the view's frames, all arrays one after the other
        ("start", "<i8"),
        ("frames", "<i8"),
        ("fps", "<f8"),
        ("size", "<f8", 2),
        ("intrinsics", "<f8", 4),
        ("up", "<f8", 3),
    ]
)


@dataclass(frozen=True)
class View:
    """One motion as one camera saw it: the frames `start` to `start + frames` of a store's arrays.

    Attributes:
        subject: the person; data is split by it.
        action: what the person does; errors are averaged by it.
        name: of the motion, unique among the subject's.
        camera: name of the camera.
        index: of the camera among the motion's.
        start: first frame in the store's arrays.
        frames: number of frames.
        fps: frames per second; NaN where unknown.
        size: (width, height) of the image, pixels; (nan, nan) where unknown.
        intrinsics: pinhole (f_x, f_y, c_x, c_y) in units of the normalised screen; NaN where unknown.
        up: the vertical, upward, in the camera's frame, a unit vector; NaN where unknown.
    """

    subject: str
    action: str
    name: str
    camera: str
    index: int
    start: int
    frames: int
    fps: float = math.nan
    size: tuple[float, float] = (math.nan, math.nan)
    intrinsics: tuple[float, float, float, float] = (math.nan,) * 4
    up: tuple[float, float, float] = (math.nan,) * 3

    @property
    def motion(self) -> str:
        """`subject/name`, the same for all views of a motion."""
        return f"{self.subject}/{self.name}"


class Texts(Sequence[str]):
    """Texts by number, decoded when they are asked for.

    Args:
        content: uint8 `[B]`, all of them in UTF-8, one after the other.
        ends: int64 `[N]`, where each one ends.
    """

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self.content, self.ends = content, ends
        # a memory map's own indexing takes ten times as long
        self._bytes, self._places = np.asarray(content).data, np.asarray(ends).data

    def __reduce__(self) -> tuple[Any, ...]:
        return Texts, (np.array(self.content), np.array(self.ends))

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Texts in memory."""
        coded = [text.encode() for text in texts]
        ends = np.cumsum(np.array([len(text) for text in coded], dtype=np.int64))
        return cls(np.frombuffer(b"".join(coded), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: Any) -> Any:
        before = self._places[number - 1] if number else 0
        return str(self._bytes[before : self._places[number]], "utf-8", "replace")


class Views(Sequence[View]):
    """Views in a table.

    Args:
        rows: :data:`ROW` `[V]`.
        texts: what the table's numbers of texts mean.
        chosen: int64: which rows; None is all.
    """

    def __init__(self, rows: np.ndarray, texts: Texts, chosen: np.ndarray | None = None) -> None:
        self.rows, self.texts, self.chosen = rows, texts, chosen

    def __len__(self) -> int:
        return len(self.rows if self.chosen is None else self.chosen)

    @overload
    def __getitem__(self, key: int) -> View: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[View, ...]: ...
    def __getitem__(self, key: int | slice) -> View | tuple[View, ...]:
        numbers = range(len(self))[key]
        if isinstance(numbers, range):
            return tuple(self[number] for number in numbers)
        return self._view(self.rows[numbers if self.chosen is None else self.chosen[numbers]].item())

    def __iter__(self) -> Iterator[View]:
        for first in range(0, len(self), 1024):
            part = slice(first, first + 1024)
            for row in self.rows[part if self.chosen is None else self.chosen[part]].tolist():
                yield self._view(row)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Views | tuple | list) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def _view(self, row: tuple[Any, ...]) -> View:
        subject, action, name, camera, index, _, start, frames, fps, size, intrinsics, up = row
        texts = self.texts
        numbers: tuple[Any, ...] = (tuple(values.tolist()) for values in (size, intrinsics, up))  # type: ignore[assignment]
        return View(texts[subject], texts[action], texts[name], texts[camera], index, start, frames, fps, *numbers)

    def column(self, name: str) -> np.ndarray:
        """A column of the table, `[V, ...]`."""
        column = self.rows[name]
        return np.array(column) if self.chosen is None else column[self.chosen]

    def take(self, numbers: np.ndarray) -> Views:
        """Some of the views, by their numbers here."""
        return Views(self.rows, self.texts, numbers if self.chosen is None else self.chosen[numbers])


def columns(views: Sequence[View], name: str) -> np.ndarray:
    """A number of every view: `index`, `start`, `frames` int64 `[V]`; `fps` float64 `[V]`; `size` `[V, 2]`,
    `intrinsics` `[V, 4]`, `up` `[V, 3]` float64."""
    dtype = np.int64 if name in ("index", "start", "frames") else np.float64
    if isinstance(views, Views):
        return views.column(name).astype(dtype, copy=False)
    width = {"size": (0, 2), "intrinsics": (0, 4), "up": (0, 3)}.get(name, (0,))
    found = [getattr(view, name) for view in views]
    return np.array(found, dtype=dtype) if found else np.zeros(width, dtype=dtype)


def names(views: Sequence[View], which: Literal["subject", "action", "camera"]) -> tuple[tuple[str, ...], np.ndarray]:
    """The different subjects, actions or cameras, sorted, and the number of each view's among them, int64 `[V]`."""
    if isinstance(views, Views):
        codes, place = np.unique(views.column(which), return_inverse=True)
        words: Sequence[str] = [views.texts[code] for code in codes.tolist()]
        place = place.reshape(-1)
    else:
        every = [getattr(view, which) for view in views]
        words = list(dict.fromkeys(every))
        known = {word: number for number, word in enumerate(words)}
        place = np.array([known[word] for word in every], dtype=np.int64)
    ordered = sorted(set(words))
    number = {word: i for i, word in enumerate(ordered)}
    return tuple(ordered), np.array([number[word] for word in words], dtype=np.int64)[place]


def motion_numbers(views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
    """The number of each view's motion, in the order in which motions first come, int64 `[V]`; and the first view of
    every motion, int64 `[M]`."""
    if isinstance(views, Views):
        pairs = views.column("subject").astype(np.int64) << 32 | views.column("name")
        _, first, place = np.unique(pairs, return_index=True, return_inverse=True)
        order = np.argsort(first)
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        return number[place.reshape(-1)], first[order]
    known: dict[str, int] = {}
    firsts: list[int] = []
    found = np.empty(len(views), dtype=np.int64)
    for i, view in enumerate(views):
        found[i] = known.setdefault(view.motion, len(known))
        if len(firsts) < len(known):
            firsts.append(i)
    return found, np.array(firsts, dtype=np.int64)


def motions(views: Sequence[View]) -> tuple[str, ...]:
    """`subject/name` of every motion, in order."""
    if not isinstance(views, Views):
        return tuple(dict.fromkeys(view.motion for view in views))
    first = views.take(motion_numbers(views)[1])
    pairs = zip(first.column("subject").tolist(), first.column("name").tolist(), strict=True)
    return tuple(f"{views.texts[subject]}/{views.texts[name]}" for subject, name in pairs)


def pick(
    views: Sequence[View], keep: Callable[[View], bool], by: Literal["view", "motion", "subject"]
) -> Sequence[View]:
    """Those views that `keep` says. It is asked once per motion or subject where the answer is the same for all views
    of it."""
    if not isinstance(views, Views):
        return tuple(view for view in views if keep(view))
    if by == "view":
        return views.take(np.array([number for number, view in enumerate(views) if keep(view)], dtype=np.int64))
    if by == "motion":
        number, first = motion_numbers(views)
    else:
        number = names(views, "subject")[1]
        first = np.unique(number, return_index=True)[1]
    answers = np.array([keep(view) for view in views.take(first)], dtype=bool)
    return views.take(np.flatnonzero(answers[number]))


def rows_of(views: Sequence[View], crcs: Sequence[int]) -> tuple[np.ndarray, Texts]:
    """The table of some views in memory, with their checksums."""
    numbers: dict[str, int] = {}
    rows = np.zeros(len(views), dtype=ROW)
    for i, (view, crc) in enumerate(zip(views, crcs, strict=True)):
        words = [numbers.setdefault(getattr(view, name), len(numbers)) for name in TEXTS]
        rest = (view.index, crc, view.start, view.frames, view.fps, view.size, view.intrinsics, view.up)
        rows[i] = (*words, *rest)
    return rows, Texts.of(numbers)

"""What poses tell about themselves: bone lengths, which way knees bend, jumps, frames that repeat."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...skeletons import get
from .._words import count

__all__ = ["BodyChecks"]

_BENT = math.cos(math.radians(20))  # straighter knees have no side
_TALL = (1.2, 2.1)  # metres, from the ankle along the bones to the top of the head
_LEG = (0.6, 1.1)  # metres, thigh and shin, where there is no head top
_FAST = 25.0  # metres per second; people in motion capture reach 12
_REPEATED = 0.02  # share of frames that are exactly the ones before
_SHORT = 0.1  # metres
_UNSTEADY = 0.15  # deviation of a bone's length, and difference of left and right, over its mean


@dataclass
class _Sequence:
    """A sequence of which more is to come."""

    frames: int = 0
    crc: int = 0
    repeats: int = 0
    last: tuple[np.ndarray, np.ndarray] | None = None  # pose [1, J, 3] and known [1, J] of its last frame


class BodyChecks:
    """Collects poses of one skeleton, a sequence or a piece of it at a time, then says what looks wrong. It keeps a
    checksum of every sequence, and sums."""

    def __init__(self, skeleton: str) -> None:
        self.skeleton = get(skeleton)
        self.bones = self.skeleton.bones
        self._lengths: dict[str, np.ndarray] = {}  # subject -> [3, bones]: frames, sum, sum of squares
        self._hinges = np.zeros((len(self.skeleton.hinges), 2))  # bent, and of these bent the legal way
        self._fastest = (0.0, "")
        self._now = _Sequence()
        self._repeats, self._moving = 0, 0  # frames that repeat the one before; frames of moving pictures
        self._worst = (0, "")  # most repetitions of a sequence
        self._still, self._first_still = 0, ""
        self._known: dict[tuple[int, int], tuple[int, str]] = {}  # frames and checksum -> number and name of the first
        self._again: dict[tuple[int, int], str] = {}  # the second of these
        self._twice = 0

    def add(
        self, name: str, subject: str, pose: np.ndarray, known: np.ndarray | None, fps: float, more: bool = False
    ) -> None:
        """Poses `[T, J, 3]` in metres; known `[T, J]` or None for all; fps NaN where frames don't follow in time;
        `more` where the next call is of the same sequence."""
        pose = np.asarray(pose, dtype=np.float64)
        known = np.isfinite(pose).all(-1) & (True if known is None else known > 0)
        child, parent = np.array(self.bones).T
        with np.errstate(invalid="ignore"):
            length = np.linalg.norm(pose[:, child] - pose[:, parent], axis=-1)
        both = known[:, child] & known[:, parent]
        length = np.where(both, length, 0)
        sums = np.stack([both.sum(0), length.sum(0), (length**2).sum(0)])
        self._lengths[subject] = self._lengths.get(subject, 0) + sums
        for i, hinge in enumerate(self.skeleton.hinges):
            self._bend(i, hinge, pose[known[:, hinge.joints].all(1)])
        now = self._now
        now.crc = zlib.crc32(np.ascontiguousarray(pose).view(np.uint8).reshape(-1).data, now.crc)
        before = now.frames
        now.frames += len(pose)
        if fps == fps:
            if now.last is not None:
                pose, known = (np.concatenate(pair) for pair in zip(now.last, (pose, known), strict=True))
            if len(pose) > 1:
                step = np.linalg.norm(np.diff(pose, axis=0), axis=-1)
                moving = np.where(known[1:] & known[:-1], step, 0)
                at = int(moving.max(axis=1).argmax()) + (before - 1 if now.last is not None else 0)
                self._fastest = max(self._fastest, (float(moving.max() * fps), f"{name}, frame {at + 1}"))
                now.repeats += int((step.max(axis=1) == 0).sum())
            now.last = pose[-1:], known[-1:]
        if not more:
            self._finish(name)

    def _finish(self, name: str) -> None:
        """The end of a sequence."""
        now, self._now = self._now, _Sequence()
        key = now.frames, now.crc
        if key in self._known:
            self._again.setdefault(key, name)
            self._twice += 1
        else:
            self._known[key] = len(self._known), name
        if now.frames > 1 and now.last is not None:
            self._repeats, self._moving = self._repeats + now.repeats, self._moving + now.frames
            if not self._worst[1] or now.repeats > self._worst[0]:
                self._worst = now.repeats, name
            if now.repeats == now.frames - 1:
                self._still += 1
                self._first_still = self._first_still or name

    def _bend(self, i: int, hinge: Any, pose: np.ndarray) -> None:
        c, s, e, w = (pose[:, j] for j in hinge.joints)
        upper, lower = e - s, w - e
        scale = np.linalg.norm(upper, axis=-1) * np.linalg.norm(lower, axis=-1)
        bent = (upper * lower).sum(-1) < _BENT * scale
        side = (np.cross(s - c, upper) * lower).sum(-1) * hinge.legal_sign
        self._hinges[i] += bent.sum(), (bent & (side > 0)).sum()

    def bone_table(self) -> dict[str, dict[str, float]]:
        """Bone -> mean length and deviation within a subject, mm, over all subjects."""
        if not self._lengths:
            return {}
        means, spreads = self._statistics()
        names = self.skeleton.joint_names
        return {
            f"{names[parent]}-{names[child]}": {
                "mean_mm": round(float(np.nanmean(means[:, b]) * 1000), 1),
                "deviation_mm": round(float(np.nanmean(spreads[:, b]) * 1000), 1),
            }
            for b, (child, parent) in enumerate(self.bones)
            if np.isfinite(means[:, b]).any()
        }

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the bones' lengths, `[subjects, bones]`, metres; NaN where never seen."""
        sums = np.stack(list(self._lengths.values()))
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = sums[:, 1] / sums[:, 0]
            return mean, np.sqrt(np.maximum(sums[:, 2] / sums[:, 0] - mean**2, 0))

    def heights(self) -> dict[str, float]:
        """Subject -> metres from the ankle along the bones to the top of the head, or of the leg if there is none."""
        if not self._lengths:
            return {}
        means, _ = self._statistics()
        index = {bone: b for b, bone in enumerate(self.bones)}
        legs = dict(self.skeleton.bone_groups)["legs"]
        rows = [index[bone] for bone in legs]
        height = means[:, rows].reshape(len(means), 2, 2).sum(-1).mean(-1)
        joint = self._head
        while joint is not None and self.skeleton.parents[joint] >= 0:
            height = height + means[:, index[joint, self.skeleton.parents[joint]]]
            joint = self.skeleton.parents[joint]
        return {subject: float(h) for subject, h in zip(self._lengths, height, strict=True) if np.isfinite(h)}

    @property
    def _head(self) -> int | None:
        names = self.skeleton.joint_names
        return next((names.index(name) for name in ("HeadTop", "Head") if name in names), None)

    @property
    def what_height(self) -> str:
        """What :meth:`heights` measures."""
        return "leg length" if self._head is None else "body height"

    def problems(self) -> list[str]:
        """What looks wrong, a sentence each."""
        if not self._lengths:
            return []
        found = self._size() + self._steadiness() + self._sides()
        speed, where = self._fastest
        if speed > _FAST:
            found.append(f"a joint moves at {speed:.0f} m/s ({where}), faster than people do: frames jump")
        found += self._repetitions()
        return found

    def _size(self) -> list[str]:
        low, high = _LEG if self._head is None else _TALL
        out = {subject: h for subject, h in self.heights().items() if not low <= h <= high}
        if not out:
            return []
        subject, height = next(iter(out.items()))
        factor = height / ((low + high) / 2)
        text = f"{self.what_height} of {subject} is {height:.3g} m, expected {low} to {high} m"
        more = f" (and of {len(out) - 1} more)" if len(out) > 1 else ""
        for unit, size in (("millimetres", 1000), ("centimetres", 100)):
            if size / 3 < factor < size * 3:
                return [f"{text}{more}: the numbers look like {unit}"]
            if 1 / (size * 3) < factor < 3 / size:
                return [f"{text}{more}: it looks as if metres had been taken for {unit}"]
        return [text + more]

    def _steadiness(self) -> list[str]:
        """Bones that change their length, and limbs of different lengths; fingers are too short to tell."""
        means, spreads = self._statistics()
        names, subjects, found = self.skeleton.joint_names, list(self._lengths), []
        means = np.where(means > _SHORT, means, np.nan)
        unsteady = np.nan_to_num(spreads / means)
        s, b = np.unravel_index(unsteady.argmax(), unsteady.shape)
        if unsteady[s, b] > _UNSTEADY:
            child, parent = self.bones[b]
            found.append(
                f"the bone {names[parent]}-{names[child]} of {subjects[s]} changes its length by {unsteady[s, b]:.0%} "
                f"({(unsteady > _UNSTEADY).any(0).sum()} of {len(self.bones)} bones by more than {_UNSTEADY:.0%}): the "
                "joints may be in another order"
            )
        index = {bone: b for b, bone in enumerate(self.bones)}
        limbs = dict(self.skeleton.symmetric_groups)["limbs"]
        left, right = (means[:, [index[pair[side]] for pair in limbs]] for side in (0, 1))
        differs = np.nan_to_num(np.abs(left - right) / np.maximum(left, right))
        s, pair = np.unravel_index(differs.argmax(), differs.shape)
        if differs[s, pair] > _UNSTEADY:
            a, c = ("-".join(names[j] for j in reversed(bone)) for bone in limbs[pair])
            found.append(f"{a} and {c} of {subjects[s]} differ by {differs[s, pair]:.0%} in length")
        return found

    def _sides(self) -> list[str]:
        bent, legal = self._hinges[2:].sum(0)  # knees; elbows turn too freely to tell
        if bent >= 20 and legal < 0.5 * bent:
            return [
                f"knees bend backwards in {1 - legal / bent:.0%} of the frames: left and right look exchanged, or an "
                "axis points the other way"
            ]
        return []

    def _repetitions(self) -> list[str]:
        found = []
        if self._still:
            found.append(f"nothing moves in {count(self._still, 'sequence')}, the first is {self._first_still}")
        elif self._moving and self._repeats > _REPEATED * self._moving:
            share = self._repeats / self._moving
            found.append(f"{share:.1%} of the frames repeat the one before exactly, most of them in {self._worst[1]}")
        if self._again:
            key = min(self._again, key=self._known.__getitem__)  # whose first came first
            number = count(self._twice, "sequence")
            found.append(
                f"the poses of another again in {number}, the first is {self._again[key]}, as {self._known[key][1]}"
            )
        return found

"""BVH motion capture.

A joint lies at P = P_parent + R_parent * offset and turns by R = R_parent * R_local; its rotation channels compose from
left to right in the file's order, and its position channels, where it has any, replace the offset.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ArgumentError, DataError, check_choice
from ...reading import read_text
from ...skeletons import get
from ..clips import Clip
from ._named import choose_map, euler, points_to_clip
from ._rates import frame_rate
from ._recordings import ASF, recordings
from .asf_amc import read_asf
from .bvh_writer import write_bvh
from .registry import FORMATS

__all__ = ["BvhMotion", "parse_bvh", "read_bvh", "write_bvh"]

_BUILTIN = (
    "cmu-bvh", "h36m", "mixamo", "biovision", "daz", "humanoid", "unity", "rokoko", "unreal", "rigify", "biped",
    "smpl",
)  # fmt: skip
_H36M = get("h36m")
_J = {name: joint for joint, name in enumerate(_H36M.joint_names)}
_LEGS = (("RHip", "RKnee"), ("RKnee", "RFoot"), ("LHip", "LKnee"), ("LKnee", "LFoot"))
#: Top of the head beyond the head's joint, over thigh and shin: 101 / 847 in the CMU database, 115 / 890 in Human3.6M.
_HEAD = 0.12
# The bones that B. Hahne's conversion of the CMU database gives the length 0 -> the ASF's.
_LOST = {
    "Neck": "thorax",
    "LeftShoulder": "thorax",
    "RightShoulder": "thorax",
    "LeftFingerBase": "lwrist",
    "RightFingerBase": "rwrist",
}
_SHORTEST, _LONGEST = 1e-5, 1e4  # seconds of a frame
_IDLE = 16  # joints and End Sites per channel


@dataclass(frozen=True)
class BvhMotion:
    """The content of a BVH file.

    Attributes:
        names: joints in file order, and `"NAME.end"` for the End Site below NAME.
        parents: index of each one's parent, -1 for a root; a parent comes before its children.
        offsets: float64 `[N, 3]`, file units.
        channels: of each, such as ("Xposition", ..., "Xrotation"); empty for End Sites.
        values: float64 `[T, C]`: the channels' values in file order; degrees, file units.
        fps: frames per second.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    values: np.ndarray
    fps: float

    def positions(self, offsets: np.ndarray | None = None) -> np.ndarray:
        """Positions of all joints and End Sites, float64 `[T, N, 3]`, file units and axes; `offsets` replace the
        file's."""
        return self.posed(self.offsets if offsets is None else offsets)[0]

    def posed(self, offsets: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """The same, and how each is turned, float64 `[T, 3, 3]`."""
        out = np.empty((len(self.values), len(self.names), 3))
        turns: list[np.ndarray] = []
        column = 0
        for i, (parent, channels) in enumerate(zip(self.parents, self.channels, strict=True)):
            local = np.broadcast_to(offsets[i], (len(out), 3)).copy()
            angles, axes = [], ""
            for k, channel in enumerate(channels, column):
                if channel.endswith("position"):
                    local[:, "XYZ".index(channel[0])] = self.values[:, k]
                else:
                    angles.append(self.values[:, k])
                    axes += channel[0]
            column += len(channels)
            turn = euler(np.radians(np.stack(angles, axis=1)), axes) if angles else None
            if parent < 0:
                out[:, i] = local
                turns.append(np.broadcast_to(np.eye(3), (len(out), 3, 3)) if turn is None else turn)
            else:
                out[:, i] = out[:, parent] + (turns[parent] @ local[:, :, None])[..., 0]
                turns.append(turns[parent] if turn is None else turns[parent] @ turn)
        return out, turns


def read_bvh(
    path: str | os.PathLike[str],
    *,
    joints: object = "auto",
    asf: str | os.PathLike[str] | None = None,
    scale: float | None = None,
    up: str = "y",
    fps: float | None = None,
    drop_first: bool | str = "auto",
    subject: str | None = None,
    action: str | None = None,
    name: str | None = None,
) -> Clip:
    """Read a BVH file as a clip of the Human3.6M joints.

    B. Hahne's conversion of the CMU database, which "auto" knows as "cmu-bvh", lost the `thorax` segment (thorax,
    shoulders, arms and head are about 0.12 m too low) and the `wrist` segments (the wrist is 0.10 m, a third of the
    forearm, too near the elbow). They are put back from the skeleton `asf`; without it there is a warning.

    Many files don't know where a head ends: they have no End Site there, or one at the head's joint. Then the top of
    the head is put beyond it, in line with the neck when the body is at rest, and there is a warning.

    Args:
        path: the BVH file.
        joints: "auto", "cmu-bvh", "h36m" (of :func:`write_bvh`), "mixamo", "biovision", "daz", "humanoid", "unity",
            "rokoko", "unreal", "rigify", "biped", "smpl", a mapping of joint name to BVH joint(s), or a YAML or JSON
            file of one; see :mod:`~structloss.data.formats.joint_maps`.
        asf: the Acclaim skeleton of the same subject, for "cmu-bvh" only.
        scale: metres per unit of the file, which it does not say; None is that of the built-in map: 0.0564444 for
            "cmu-bvh", 0.01 (centimetres) for the others, and 1 for your own.
        up: the file's axis that points up: "x", "y", "z" or "-y".
        fps: frames per second, where the file's frame time is wrong; None is 1 / frame time, or the rate that its
            digits were rounded from, see :func:`~structloss.data.formats._rates.frame_rate`.
        drop_first: leave out frame 0; "auto" does so for "cmu-bvh" where frame 0 is the T-pose that it adds.
        subject, action, name: of the clip; None takes subject and name from the file's name, and action "unknown".

    Returns:
        A clip in metres, z up, all frames at the file's rate.

    Raises:
        MissingFileError: the file does not exist.
        ArgumentError: an impossible argument, or `asf` for another map than "cmu-bvh".
        DataError: a malformed or truncated file; a joint of the map is missing; the person is less than 1 m or more
            than 2.5 m tall and `scale` was not given (otherwise that is a warning).
    """
    path = Path(path)
    motion = parse_bvh(path)
    joint_map, rows = choose_map(path, motion.names, joints, _BUILTIN, "joint")
    if asf is not None and joint_map.name != "cmu-bvh":
        raise ArgumentError(f"asf is given for {path}, whose joint map is {joint_map.name!r}, expected 'cmu-bvh'.")
    cmu = joint_map.name == "cmu-bvh"
    offsets = _restored(path, motion, asf) if cmu else motion.offsets
    if not isinstance(drop_first, bool):
        check_choice("drop_first", drop_first, ("auto",))
        drop_first = cmu and _starts_with_rest(motion)
    points, turns = motion.posed(offsets)
    if joint_map.joints["Head"] and not rows[_J["Head"]]:  # the End Site of a head of another name
        rows[_J["Head"]] = [i for h in rows[_J["Neck/Nose"]] for i in _end_of(motion, h)]
    if joint_map.joints["Head"] and (vector := _head_vector(motion, points, rows)) is not None:
        (head,) = rows[_J["Neck/Nose"]]
        points = np.concatenate([points, (points[:, head] + turns[head] @ vector)[:, None]], axis=1)
        rows[_J["Head"]] = [len(motion.names)]
        warnings.warn(
            f"{path} does not tell where the head ends: its top is put {_HEAD:g} of the length of a leg beyond its "
            "joint, in line with the neck.",
            UserWarning,
            stacklevel=2,
        )
    points = points[int(drop_first) :]
    if not len(points):
        raise DataError(f"{path} has one frame, none after the first is dropped.")
    return points_to_clip(
        path, points, rows, motion.fps if fps is None else fps, scale=scale, default_scale=joint_map.scale, up=up,
        subject=subject, action=action, name=name,
    )  # fmt: skip


def _restored(path: Path, motion: BvhMotion, asf: str | os.PathLike[str] | None) -> np.ndarray:
    """Offsets with the segments that the CMU conversion lost."""
    index = {name.rpartition(":")[2]: i for i, name in enumerate(motion.names)}
    lost = {name: bone for name, bone in _LOST.items() if name in index and not motion.offsets[index[name]].any()}
    offsets = motion.offsets.copy()
    if asf is not None:
        skeleton = read_asf(asf)
        for name, bone in lost.items():
            offsets[index[name]] = skeleton.vector(bone)
    elif lost:
        warnings.warn(
            f"{path} is a conversion that lost the segments {', '.join(sorted(set(lost.values())))}: thorax, "
            "shoulders, arms and head are about 0.12 m too low, and forearms 0.10 m too short; pass asf, the subject's "
            ".asf file, to put them back.",
            UserWarning,
            stacklevel=3,
        )
    return offsets


def _end_of(motion: BvhMotion, joint: int) -> list[int]:
    """The End Site right below a joint, in a list; an empty one where there is none."""
    return [i for i, parent in enumerate(motion.parents) if parent == joint and motion.names[i].endswith(".end")]


def _head_vector(motion: BvhMotion, points: np.ndarray, rows: list[list[int]]) -> np.ndarray | None:
    """`[3]` from the head's joint to the top of the head in the rest pose, file units; None where the file has it, or
    does not tell enough to guess."""
    head, top = rows[_J["Neck/Nose"]], rows[_J["Head"]]
    if len(head) != 1 or len(top) > 1 or not all(rows[_J[joint]] for bone in _LEGS for joint in bone):
        return None
    ends = {joint: points[:, rows[_J[joint]]].mean(axis=1) for bone in _LEGS for joint in bone}
    leg = sum(float(np.linalg.norm(ends[a] - ends[b], axis=-1).mean()) for a, b in _LEGS) / 2
    if not 0 < leg < np.inf:
        return None
    if top and np.linalg.norm(points[:, top[0]] - points[:, head[0]], axis=-1).max() > 1e-4 * leg:
        return None
    joint = head[0]
    while joint >= 0:
        length = float(np.linalg.norm(motion.offsets[joint]))
        if length > 1e-4 * leg and motion.parents[joint] >= 0:
            return motion.offsets[joint] * (_HEAD * leg / length)
        joint = motion.parents[joint]
    return None


def _starts_with_rest(motion: BvhMotion) -> bool:
    """Whether frame 0 is a pose that nobody recorded: the root and three quarters of all channels not turned at all."""
    turning = [c.endswith("rotation") for channels in motion.channels for c in channels]
    root = np.array([c.endswith("rotation") for c in motion.channels[0]])
    zero = motion.values[:2] == 0
    still = zero[:, turning].mean(axis=1)
    return bool(len(zero) > 1 and zero[0, : len(root)][root].all() and still[0] >= 0.75 and still[1] < 0.75)


def parse_bvh(path: str | os.PathLike[str]) -> BvhMotion:
    """Read a BVH file as it is.

    Tokens count, not lines: tabs, CR LF, several items per line and a missing final newline are all read. Channels may
    come in any order and number.

    Raises:
        MissingFileError: the file does not exist.
        DataError: a malformed or truncated file, or one with NaN or infinite values.
    """
    path = Path(path)
    text = read_text(path, "a BVH file")
    found = re.search(r"(?im)(^|(?<=[\s}]))MOTION\s+Frames\s*:\s*(\S+)\s+Frame\s+Time\s*:\s*(\S+)", text)
    if found is None:
        raise DataError(f"{path} has no MOTION with 'Frames:' and 'Frame Time:', expected a complete BVH file.")
    names, parents, offsets, channels = _parse_hierarchy(path, _words(text[: found.start()]))
    frames, seconds = _count(found[2]), _float(found[3])
    if not frames:
        raise DataError(f"{path} has {found[2][:40]!r} as its number of frames, expected a positive integer.")
    if not _SHORTEST <= seconds <= _LONGEST:
        raise DataError(f"{path} has the frame time {found[3][:40]!r}, expected {_SHORTEST:g} to {_LONGEST:g} seconds.")
    width = sum(map(len, channels))
    if not width:
        raise DataError(f"the joints of {path} have no channels, expected those of their motion.")
    values = _table(path, _numbers(path, text[found.end() :], width), frames, width)
    if len(names) * len(values) > _IDLE * values.size + 10**7:  # End Sites without end take memory for every frame
        raise DataError(f"{path} has {len(names)} joints and {width} channels, expected motion of most of them.")
    if not np.isfinite(values).all():
        frame, column = np.argwhere(~np.isfinite(values))[0]
        raise DataError(f"{path} has a NaN or infinite value in frame {frame}, {_channel(names, channels, column)}.")
    return BvhMotion(tuple(names), tuple(parents), np.array(offsets), tuple(channels), values, frame_rate(found[3]))


def _words(hierarchy: str) -> list[str]:
    """What a hierarchy is made of; a brace need not have blanks around it."""
    return re.sub(r"([{}])", r" \1 ", hierarchy).split()


def _table(path: Path, values: np.ndarray, frames: int, width: int) -> np.ndarray:
    """The values by frame, `[T, width]`. Some programs count their frames one off; anything else is damage."""
    rows, rest = divmod(values.size, width)
    if not rest and rows == frames:
        return values.reshape(rows, width)
    if not rest and rows and abs(rows - frames) == 1:
        warnings.warn(
            f"{path} says that it has {frames} frames, but has {rows}; all are read.", UserWarning, stacklevel=3
        )
        return values.reshape(rows, width)
    why = "is it truncated?" if values.size < frames * width else "it has more frames or channels than it says."
    raise DataError(
        f"{path} has {values.size} values, expected {frames * width}: {frames} frames of {width} channels; {why}"
    )


def _parse_hierarchy(
    path: Path, words: list[str]
) -> tuple[list[str], list[int], list[list[float]], list[tuple[str, ...]]]:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[tuple[str, ...]] = []
    stack: list[int] = []
    if not words or words[0].upper() != "HIERARCHY":
        raise DataError(f"{path} starts with {' '.join(words[:1])[:40]!r}, expected HIERARCHY.")
    at = 1

    def take(count: int, what: str) -> list[str]:
        nonlocal at
        at += count
        if at > len(words):
            raise DataError(f"the hierarchy of {path} ends in {what}; is the file truncated?")
        return words[at - count : at]

    while at < len(words):
        (word,) = take(1, "")
        kind = "END" if word.upper() == "ENDSITE" else word.upper()
        if kind in ("ROOT", "JOINT", "END"):
            label = []
            while (part := take(1, f"a {word} before its '{{'")[0]) != "{":
                label.append(part)
            if (kind == "ROOT") == bool(stack):
                raise DataError(f"the hierarchy of {path} has {word} {' '.join(label)} in the wrong place.")
            stack.append(len(names))
            parents.append(stack[-2] if len(stack) > 1 else -1)
            names.append(f"{names[parents[-1]]}.end" if kind == "END" else " ".join(label))
            offsets.append([0.0, 0.0, 0.0])
            channels.append(())
        elif kind == "}" and stack:
            stack.pop()
        elif kind == "OFFSET" and stack:
            vector = [_float(part) for part in take(3, f"the OFFSET of {names[stack[-1]]!r}")]
            if not np.isfinite(vector).all():
                raise DataError(
                    f"OFFSET of {names[stack[-1]]!r} in {path} is {' '.join(words[at - 3 : at])!r}, expected 3 numbers."
                )
            offsets[stack[-1]] = vector
        elif kind == "CHANNELS" and stack:
            owner = names[stack[-1]]
            (count,) = take(1, f"the CHANNELS of {owner!r}")
            listed = tuple(part.capitalize() for part in take(_count(count), f"the CHANNELS of {owner!r}"))
            good = [re.fullmatch("[XYZ](position|rotation)", channel) for channel in listed]
            if not count.isdecimal() or not all(good) or len(set(listed)) != len(listed):
                raise DataError(
                    f"CHANNELS of {owner!r} in {path} are {count} {' '.join(listed)}, expected their number and that "
                    "many different of Xposition to Zrotation."
                )
            channels[stack[-1]] = listed
        else:
            where = f" in {names[stack[-1]]!r}" if stack else ""
            raise DataError(f"the hierarchy of {path} has an unexpected {word!r}{where}.")
    if stack or not names:
        raise DataError(f"the hierarchy of {path} lacks a '}}' for {names[stack[-1]] if stack else 'its ROOT'!r}.")
    return names, parents, offsets, channels


def _count(word: str) -> int:
    return int(word) if word.isdecimal() and len(word) < 12 else 0


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _numbers(path: Path, text: str, width: int) -> np.ndarray:
    words = text.split()
    try:
        return np.array(words, dtype=np.float64)
    except ValueError:
        at = next(i for i, word in enumerate(words) if np.isnan(_float(word)))
        raise DataError(
            f"{path} has {words[at][:40]!r} in frame {at // max(1, width)}, value {at % max(1, width)}, expected a "
            "number."
        ) from None


def _channel(names: list[str], channels: list[tuple[str, ...]], column: int) -> str:
    flat = [(name, channel) for name, listed in zip(names, channels, strict=True) for channel in listed]
    return "{1} of {0!r}".format(*flat[column])


FORMATS.register(recordings("bvh", "motion capture, BVH", read_bvh, options=(ASF,)))

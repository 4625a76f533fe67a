"""Acclaim motion capture (ASF skeleton, AMC motion), the format of the CMU database.

With C the rotation of a bone's `axis` and M that of its degrees of freedom, both Rz Ry Rx, a bone turns at its start by
R = R_parent C M C^T and ends at P = P_start + R * direction * length. The root is turned and moved by its own values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import DataError, MissingFileError
from ...reading import read_text
from ..clips import Clip
from ._named import choose_map, euler, points_to_clip
from ._recordings import ASF, recordings
from .candidate import Candidate
from .registry import FORMATS

__all__ = ["AcclaimSkeleton", "read_amc", "read_asf"]

_METRES_PER_INCH = 0.0254
_TURNS = ("rx", "ry", "rz")
_LONGEST_WORD = 100  # characters
_IDLE = 16  # bones per value of a frame


@dataclass(frozen=True)
class _Bone:
    vector: np.ndarray  # [3] start to end in the rest pose, file units
    axis: np.ndarray  # [3] angles in radians
    order: str  # "XYZ": the turn about x comes first
    dof: tuple[str, ...] = ()
    parent: str = "root"


@dataclass(frozen=True)
class AcclaimSkeleton:
    """The content of an ASF file.

    Attributes:
        path: the file.
        bones: name -> bone, every parent before its children; without the root.
        root_order: what the root's values in the AMC file are, such as ("tx", "ty", "tz", "rx", "ry", "rz").
        root_axis: "XYZ": the turn about x comes first.
        root_position: `[3]`, file units; added to the translations.
        length: the `:units length`: lengths in the file are inches times this.
        degrees: whether angles are in degrees, unless the AMC file says otherwise.
    """

    path: Path
    bones: dict[str, _Bone]
    root_order: tuple[str, ...]
    root_axis: str
    root_position: np.ndarray
    length: float
    degrees: bool

    def vector(self, bone: str) -> np.ndarray:
        """`[3]` from start to end of a bone in the rest pose, file units.

        Raises:
            DataError: there is no such bone.
        """
        if bone not in self.bones:
            raise DataError(f"{self.path} has no bone {bone!r}, expected one of {', '.join(self.bones)}.")
        return self.bones[bone].vector


def read_asf(path: str | os.PathLike[str]) -> AcclaimSkeleton:
    """Read an ASF skeleton.

    Raises:
        MissingFileError: there is no such file.
        DataError: a section or field is missing or malformed, or a degree of freedom is no rotation.
    """
    path = Path(path)
    sections = _sections(read_text(path, "an Acclaim skeleton (.asf)"))
    for name in ("root", "bonedata", "hierarchy"):
        if name not in sections:
            raise DataError(f"{path} has no :{name}, expected an Acclaim skeleton.")
    units = {line[0].lower(): line[1:] for line in sections.get("units", []) if len(line) > 1}
    root = {line[0].lower(): line[1:] for line in sections["root"]}
    length = _number(path, "length of :units", units.get("length", ["1"])[0])
    if not length > 0:
        raise DataError(f"length of :units in {path} is {length:g}, expected a positive number.")
    degrees = units.get("angle", ["deg"])[0].lower().startswith("deg")
    order = tuple(value.lower() for value in root.get("order", ()))
    if sorted(order) != ["rx", "ry", "rz", "tx", "ty", "tz"]:
        raise DataError(f"order of :root in {path} is {' '.join(order)!r}, expected TX TY TZ RX RY RZ in some order.")
    if np.any(_vector(path, "orientation of :root", root.get("orientation", ["0"] * 3))):
        raise DataError(f"orientation of :root in {path} is {' '.join(root['orientation'])}, expected 0 0 0.")

    bones = {}
    for block in _blocks(path, sections["bonedata"]):
        name = " ".join(block.get("name", ["?"]))
        what = f"of bone {name!r}"
        for field in ("name", "direction", "length", "axis"):
            if not block.get(field):
                raise DataError(f"bone {name!r} of {path} has no {field}.")
        dof = tuple(value.lower() for value in block.get("dof", ()))
        if unknown := [value for value in dof if value not in _TURNS]:
            raise DataError(f"bone {name!r} of {path} has the degree of freedom {unknown[0]!r}, expected rx, ry or rz.")
        angles = _vector(path, f"axis {what}", block["axis"][:3])
        bones[name] = _Bone(
            _vector(path, f"direction {what}", block["direction"])
            * _number(path, f"length {what}", block["length"][0]),
            np.radians(angles) if degrees else angles,
            _axis(path, f"axis {what}", block["axis"][3:] or ["XYZ"]),
            dof,
        )
    return AcclaimSkeleton(
        path,
        _ordered(path, bones, sections["hierarchy"]),
        order,
        _axis(path, "axis of :root", root.get("axis") or ["XYZ"]),
        _vector(path, "position of :root", root.get("position", ["0"] * 3)),
        length,
        degrees,
    )


def read_amc(
    path: str | os.PathLike[str],
    asf: str | os.PathLike[str] | None = None,
    *,
    fps: float = 120.0,
    joints: object = "auto",
    scale: float | None = None,
    up: str = "y",
    subject: str | None = None,
    action: str | None = None,
    name: str | None = None,
) -> Clip:
    """Read an AMC motion as a clip of the Human3.6M joints.

    Args:
        path: the AMC file.
        asf: its skeleton; None is the subject's beside it, `16.asf` for `16_02.amc`.
        fps: frames per second, which the format does not hold; 120 in the CMU database.
        joints: "auto" ("cmu-asf"), a mapping of joint name to bone(s), or a YAML or JSON file of one; see
            :mod:`~structloss.data.formats.joint_maps`. A bone's point is its end.
        scale: metres per unit of the file; None is what the skeleton's `:units` say: inches times their length.
        up: the file's axis that points up: "x", "y", "z" or "-y".
        subject, action, name: of the clip; None takes subject and name from the file's name, and action "unknown".

    Returns:
        A clip in metres, z up, all frames at the file's rate.

    Raises:
        MissingFileError: the file or its skeleton does not exist.
        DataError: a malformed file, or one that does not belong to the skeleton; a bone of the joint map is missing;
            the person is less than 1 m or more than 2.5 m tall and `scale` was not given.
        ArgumentError: an impossible argument.
    """
    path = Path(path)
    text = read_text(path, "an Acclaim motion (.amc)")
    skeleton = read_asf(_beside(path) if asf is None else asf)
    names = ("root", *skeleton.bones)
    _, rows = choose_map(path, names, joints, ("cmu-asf",), "bone")
    values = _read_motion(path, text, skeleton)
    if len(names) * len(values["root"]) > _IDLE * sum(value.size for value in values.values()) + 10**7:
        raise DataError(f"{skeleton.path} has {len(names)} bones, expected motion of most of them in {path}.")
    points = _forward_kinematics(skeleton, values)
    return points_to_clip(
        path, points, rows, fps, scale=scale, default_scale=_METRES_PER_INCH / skeleton.length, up=up,
        subject=subject, action=action, name=name,
    )  # fmt: skip


def _beside(path: Path) -> Path:
    for stem in (path.stem, path.stem.rpartition("_")[0]):
        for suffix in (".asf", ".ASF"):
            if stem and (found := path.with_name(stem + suffix)).is_file():
                return found
    raise MissingFileError(f"{path} has no skeleton {path.stem.split('_')[0]}.asf beside it; pass asf, its path.")


def _sections(text: str) -> dict[str, list[list[str]]]:
    """Section name -> its lines, split into words; comments are dropped."""
    sections: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words and words[0].startswith(":"):
            lines = sections.setdefault(words[0][1:].lower(), [])
        elif words:
            lines.append(words)
    return sections


def _blocks(path: Path, lines: list[list[str]]) -> list[dict[str, list[str]]]:
    """The `begin ... end` blocks of bone data: field -> its words."""
    blocks: list[dict[str, list[str]]] = []
    inside = False
    for words in lines:
        field = words[0].lower()
        if field in ("begin", "end"):
            if inside == (field == "begin"):
                raise DataError(f"the bone data of {path} have an unexpected {field!r} after {len(blocks)} bones.")
            inside = field == "begin"
            if inside:
                blocks.append({})
        elif inside:
            blocks[-1].setdefault(field, words[1:])
    if inside:
        raise DataError(f"the bone data of {path} end inside a bone, expected 'end'; is the file truncated?")
    return blocks


def _number(path: Path, what: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{what} in {path} is {word!r}, expected a number.")
    return value


def _vector(path: Path, what: str, words: list[str]) -> np.ndarray:
    if len(words) != 3:
        raise DataError(f"{what} in {path} has {len(words)} values, expected 3.")
    return np.array([_number(path, what, word) for word in words])


def _axis(path: Path, what: str, words: list[str]) -> str:
    order = words[0].upper()
    if sorted(order) != ["X", "Y", "Z"]:
        raise DataError(f"{what} in {path} has the order {words[0]!r}, expected one such as XYZ.")
    return order


def _ordered(path: Path, bones: dict[str, _Bone], lines: list[list[str]]) -> dict[str, _Bone]:
    """The bones with their parents, every parent before its children."""
    children = {words[0]: words[1:] for words in lines if words[0].lower() not in ("begin", "end")}
    out: dict[str, _Bone] = {}
    queue = [(child, "root") for child in children.get("root", [])]
    for name, parent in queue:  # grows while it is walked
        if name not in bones or name in out:
            found = "twice" if name in out else "without bone data"
            raise DataError(f"the hierarchy of {path} has the bone {name!r} {found}.")
        bone = bones[name]
        out[name] = _Bone(bone.vector, bone.axis, bone.order, bone.dof, parent)
        queue += [(child, name) for child in children.get(name, [])]
    if not out:
        raise DataError(f"the hierarchy of {path} has no bones under 'root'.")
    return out


def _read_motion(path: Path, text: str, skeleton: AcclaimSkeleton) -> dict[str, np.ndarray]:
    """Bone -> values `[T, dof]`, angles in radians; bones without values are left out.

    Values are in the order of the bone's degrees of freedom; where the file forces all joints to have three, those of
    a bone that has fewer are rx, ry, rz.
    """
    words: list[str] = []
    degrees, forced = skeleton.degrees, False
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith(":"):
            flag = line[1:].strip().upper()
            degrees = {"DEGREES": True, "RADIANS": False}.get(flag, degrees)
            forced = forced or flag == "FORCE-ALL-JOINTS-BE-3DOF"
        else:
            words += line.split()
    if longest := next((word for word in words if len(word) > _LONGEST_WORD), ""):
        raise DataError(f"{path} has a word of {len(longest)} characters, expected names and numbers.")
    dofs = {"root": skeleton.root_order} | {name: bone.dof for name, bone in skeleton.bones.items()}
    moving = [name for name, dof in dofs.items() if dof]
    if forced:
        dofs |= {name: dof if len(dof) == 3 else _TURNS for name, dof in dofs.items() if name != "root"}
    sizes = {name: len(dof) for name, dof in dofs.items()}
    # A frame is its number, then each bone's name and values; all frames have the bones of the first, in its order.
    columns: dict[str, int] = {}
    at = 1
    while at < len(words) and words[at] in sizes and words[at] not in columns:
        columns[words[at]] = at
        at += 1 + sizes[words[at]]
    if missing := [name for name in moving if name not in columns]:
        found = f", but {words[at]!r}" if at < len(words) and not words[at].isdecimal() else ""
        raise DataError(f"the first frame of {path} has no {missing[0]!r}{found}, expected values for every bone of "
                        f"{skeleton.path}.")  # fmt: skip
    frames, rest = divmod(len(words), at)
    table = np.array(words[: frames * at]).reshape(frames, at)
    numbers = np.arange(frames) + (int(words[0]) if words[0].isdecimal() and len(words[0]) < 10 else 1)
    wrong = table[:, 0] != numbers.astype(str)
    for name, column in columns.items():
        wrong |= table[:, column] != name
    if rest or wrong.any():
        frame = numbers[wrong.argmax()] if wrong.any() else numbers[-1] + 1
        raise DataError(
            f"frame {frame} of {path} does not have the number and bones expected after the first frame's: bones are "
            "missing or out of order, have another number of values, or the file is truncated."
        )
    values = {}
    for name, column in columns.items():
        block = table[:, column + 1 : column + 1 + sizes[name]]
        try:
            numeric = block.astype(np.float64)
        except ValueError:
            numeric = np.array([[_number(path, f"a value of {name!r}", word) for word in row] for row in block])
        if not np.isfinite(numeric).all():
            frame = numbers[(~np.isfinite(numeric)).any(1).argmax()]
            raise DataError(f"frame {frame} of {path} has NaN or infinite values for {name!r}.")
        angular = [dof in _TURNS for dof in dofs[name]]
        values[name] = np.where(angular, np.radians(numeric), numeric) if degrees else numeric
    return values


def _turn(values: np.ndarray, names: tuple[str, ...], order: str) -> np.ndarray:
    """Rotations `[T, 3, 3]` of the values called rx, ry, rz; the first axis of `order` turns first."""
    axes = [axis for axis in reversed(order) if f"r{axis.lower()}" in names]
    return euler(values[:, [names.index(f"r{axis.lower()}") for axis in axes]], "".join(axes))


def _forward_kinematics(skeleton: AcclaimSkeleton, values: dict[str, np.ndarray]) -> np.ndarray:
    """Root and ends of all bones, `[T, 1 + bones, 3]`, file units."""
    root, order = values["root"], skeleton.root_order
    turns = {"root": _turn(root, order, skeleton.root_axis)}
    ends = {"root": skeleton.root_position + root[:, [order.index(t) for t in ("tx", "ty", "tz")]]}
    for name, bone in skeleton.bones.items():
        turns[name] = turns[bone.parent]
        if name in values and values[name].shape[1]:
            dof = bone.dof if values[name].shape[1] == len(bone.dof) else _TURNS
            rest = euler(bone.axis[[("XYZ").index(a) for a in reversed(bone.order)]][None], bone.order[::-1])
            turns[name] = turns[name] @ rest @ _turn(values[name], dof, bone.order) @ rest.transpose(0, 2, 1)
        ends[name] = ends[bone.parent] + turns[name] @ bone.vector
    return np.stack(list(ends.values()), axis=1)


def _hint(candidate: Candidate) -> str | None:
    known = "is the skeleton of .amc files, expected one of those, or their folder"
    return known if candidate.suffix == ".asf" else None


FORMATS.register(replace(recordings("amc", "motion capture, Acclaim ASF/AMC", read_amc, options=(ASF,)), hint=_hint))

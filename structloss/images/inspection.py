"""The report on people in images: what there is, and what looks wrong with it."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data._words import count, some
from ..errors import StructlossError
from ..progress import track
from .frames.images import ImageFolders, folders_with_images
from .frames.pairs import trained_pairs
from .image_people import ImagePeople
from .joint_layouts import MPII
from .opening import open_images, recognise_images
from .people import People
from .video import VideoPeople

__all__ = ["ImagesReport", "inspect_images"]

_SAMPLE = 200  # images and poses that are looked at one by one
_MOST_SIZES = 5
_WRONG_SIDE = 0.9  # share of people with left and right on the wrong sides that is no chance
_OUTSIDE = 0.05  # share of joints outside of their boxes that is worth a word
_PELVIS, _NECK = 6, 8


@dataclass
class ImagesReport:
    """What :func:`inspect_images` found.

    Attributes:
        path, format, description: what was inspected.
        gives: "2D", "2D and 3D" or "no joints".
        people, images: how many, of those that can be used.
        subjects: their names.
        annotated: joint -> share of the people for whom it is annotated.
        visible: share of the annotated joints that are said to be visible.
        sizes: [width, height, images] of the most frequent sizes in a sample.
        boxes: smallest, median and largest side of people's boxes, pixels.
        grey, deep: images of a sample that are grey, or of 16 bits; both are used, as RGB of 8 bits.
        fps: of a video.
        folders: of a folder of folders of images: how many folders, the least and most frames in one, pairs of frames,
            frames with joints.
        body: mean sum of the limbs' lengths, m, where there is 3D.
        skipped: images that can't be used, each with what is wrong with it.
        notes: what to know.
        problems: what looks wrong, a sentence each.
    """

    path: str
    format: str
    description: str
    gives: str
    people: int = 0
    images: int = 0
    subjects: list[str] = field(default_factory=list)
    annotated: dict[str, float] = field(default_factory=dict)
    visible: float = 0.0
    sizes: list[list[int]] = field(default_factory=list)
    boxes: dict[str, float] = field(default_factory=dict)
    grey: int = 0
    deep: int = 0
    fps: float | None = None
    folders: dict[str, int] = field(default_factory=dict)
    body: float | None = None
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, text and lists, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [("path", self.path), ("format", f"{self.format}: {self.description}")]
        rows.append(("people", f"{self.people} in {count(self.images, 'image')}; {self.gives}"))
        if self.subjects:
            rows.append(("subjects", some(self.subjects, 12)))
        if self.folders:
            keys = ("folders", "least", "most", "pairs", "labelled")
            number, least, most, pairs, known = (self.folders[key] for key in keys)
            rows.append(("folders", f"{number} of {least} to {most} frames, {pairs} pairs; joints of {known} frames"))
        if self.fps is not None:
            rows.append(("rate", f"{self.fps:g} fps"))
        sizes = ", ".join(f"{width} x {height} ({images})" for width, height, images in self.sizes)
        if sizes:
            rows.append(("sizes", f"{sizes} px"))
        if self.boxes:
            low, middle, high = (self.boxes[key] for key in ("smallest", "median", "largest"))
            rows.append(("boxes", f"{low:.0f} to {high:.0f} px, median {middle:.0f}"))
        if self.annotated:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.annotated.items())
            rows.append(("annotated", shares))
            rows.append(("visible", f"{self.visible:.1%} of the annotated joints"))
        if self.body is not None:
            rows.append(("poses", f"bones of {self.body:.2f} m in all, mean"))
        rows += [("note", note) for note in self.notes] + [("problem", problem) for problem in self.problems]
        return "\n".join(f"{name:10} {text}" for name, text in rows)


def inspect_images(path: str | os.PathLike[str], *, progress: bool = False, **options: Any) -> ImagesReport:
    """Inspect people in images: all annotations, the headers of all images.

    Images that are missing or broken are left out and told among the problems.

    Args:
        path: any file or folder that :func:`~structloss.images.opening.open_images` reads.
        progress: show progress bars on a terminal.
        options: those of :func:`~structloss.images.opening.open_images`.

    Raises:
        MissingFileError, DataError, ArgumentError: as there.
    """
    _, source = recognise_images(path, options.get("format"))
    if source.takes("missing"):
        options = {"missing": "skip", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what was left out is told below
        people = open_images(path, progress=progress, **options)
    report = ImagesReport(str(Path(path)), source.name, source.says, _gives(people), people=len(people))
    if isinstance(people, ImagePeople):
        _files(report, people)
        if source.name == "image-folder" and Path(path).is_dir():
            _frames(report, Path(path))
        _joints(report, people, progress)
    elif isinstance(people, VideoPeople):
        report.images, report.fps = len(people), people.fps
        report.sizes = [[*people.size, len(people)]]
    return report


def _gives(people: People) -> str:
    if people.labelled:
        return "2D and 3D"
    return "2D" if getattr(people, "has_joints", True) else "no joints"


def _files(report: ImagesReport, people: ImagePeople) -> None:
    of = people.annotations
    report.notes += people.notes
    report.skipped = list(people.skipped)
    if people.skipped:
        report.problems.append(f"{count(len(people.skipped), 'image')} can't be used: {some(people.skipped, 3)}")
    report.images = len(np.unique(of.file))
    report.subjects = sorted({*of.subjects} - {""})  # images at the top of a folder are nobody's
    headers = list(people.headers.values())
    sizes = Counter((header.width, header.height) for header in headers)
    report.sizes = [[*size, images] for size, images in sizes.most_common(_MOST_SIZES)]
    if len(sizes) > _MOST_SIZES:
        report.notes.append(f"{count(len(sizes) - _MOST_SIZES, 'more size')} of images")
    report.grey = sum(header.channels < 3 for header in headers)
    report.deep = sum(header.bits > 8 for header in headers)
    if report.grey:
        report.notes.append(f"{count(report.grey, 'image', 'are')} grey, read as RGB with three equal channels")
    if report.deep:
        report.notes.append(f"{count(report.deep, 'image', 'have')} more than 8 bits a channel; the upper 8 are used")
    if not of.whole:
        sides = np.asarray(of.side)
        report.boxes = {
            "smallest": round(float(sides.min()), 1),
            "median": round(float(np.median(sides)), 1),
            "largest": round(float(sides.max()), 1),
        }


def _frames(report: ImagesReport, path: Path) -> None:
    """What a folder of folders is as frames for shape templates, each folder of one person before one background."""
    if [*folders_with_images(path)] == ["."]:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # images that can't be used are told already
        try:
            found = ImageFolders(path, missing="skip")
        except StructlossError as error:
            report.notes.append(f"no frames for shape templates: {str(error).rstrip('.')}")
            return
    lengths = found.lengths
    report.folders = {
        "folders": len(lengths),
        "least": min(lengths),
        "most": max(lengths),
        "pairs": len(trained_pairs(lengths)),
        "labelled": found.labelled,
    }
    of_another_size = [text for text in found.skipped if text not in report.skipped and "pixels" in text]
    if of_another_size:
        report.notes.append(
            f"{count(len(of_another_size), 'image', 'are')} of another size than the first of the folder, which shape "
            f"templates can't use as frames: {some(of_another_size, 3)}"
        )


def _joints(report: ImagesReport, people: ImagePeople, progress: bool) -> None:
    of = people.annotations
    if not people.has_joints:
        return
    shares = of.annotated.mean(0)
    report.annotated = {name: round(float(share), 4) for name, share in zip(MPII.joint_names, shares, strict=True)}
    report.visible = round(float(of.visible.sum() / of.annotated.sum()), 4)
    if never := [name for name, share in report.annotated.items() if not share]:
        report.notes.append(f"{some(never, 16)} annotated for nobody")
    away = np.abs(of.joints - of.centre[:, None]).max(-1) > of.side[:, None] / 2
    outside = float((away & of.annotated).sum() / of.annotated.sum())
    if outside > _OUTSIDE:
        report.problems.append(f"{outside:.0%} of the annotated joints are outside of their boxes")
    upright = _upright(of.joints, of.annotated)
    if len(upright) and upright.mean() < 1 - _WRONG_SIDE:
        report.problems.append(f"heads are below the pelvis in {1 - upright.mean():.0%} of the images: y may point up")
    if of.pose is not None:
        _poses(report, of.pose[:: max(1, len(of) // _SAMPLE)], progress)


def _upright(joints: np.ndarray, annotated: np.ndarray) -> np.ndarray:
    """Of people whose neck and pelvis are annotated, whether the neck is above."""
    known = annotated[:, _NECK] & annotated[:, _PELVIS]
    return joints[known, _NECK, 1] < joints[known, _PELVIS, 1]


def _poses(report: ImagesReport, poses: np.ndarray, progress: bool) -> None:
    bones = np.array(MPII.bones)
    lengths, sides = [], []
    for pose in track(list(poses), "inspecting poses", progress):
        lengths.append(np.linalg.norm(pose[bones[:, 0]] - pose[bones[:, 1]], axis=-1).sum() / 1000)
        sides.append(_knees(pose))
    report.body = round(float(np.mean(lengths)), 3)
    if not 2.5 < report.body < 7:
        report.problems.append(f"bones are {report.body:.2f} m in all, expected about 4.5: S may not be in metres")
    bent = np.array([side for side in sides if side is not None])
    if len(bent) >= 20 and bent.mean() < 1 - _WRONG_SIDE:
        report.problems.append("knees bend forwards: left and right may be exchanged, or a coordinate mirrored")


def _knees(pose: np.ndarray) -> bool | None:
    """Whether bent knees bend backwards, as they can; None where both are about straight.

    The test is that of Dabral et al., ECCV 2018, on the hinges of the skeleton.
    """
    signs = []
    for hinge in MPII.hinges:
        if not hinge.name.endswith("knee"):
            continue
        c, s, e, w = (pose[joint] for joint in hinge.joints)
        upper, lower = e - s, w - e
        cosine = upper @ lower / max(1e-9, float(np.linalg.norm(upper) * np.linalg.norm(lower)))
        if cosine < np.cos(np.radians(30)):
            signs.append(hinge.legal_sign * float(np.cross(s - c, upper) @ lower) > 0)
    return None if not signs else all(signs)

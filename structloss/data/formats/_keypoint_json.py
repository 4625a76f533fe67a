"""2D keypoints in JSON: COCO and PoseTrack annotations, result lists of detectors, OpenPose's folders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ._keypoint_arrays import as_track
from ._tracks import Detection, choose_tracks, make_tracks
from .keypoint_maps import LAYOUTS
from .keypoints import Keypoints

__all__ = ["read_json", "read_openpose"]

# Number of keypoints a person -> layout; COCO-WholeBody's 133 are those of h3wb, Halpe's 136 begin with its 26.
_SIZES = {17: "coco", 25: "body25", 26: "halpe26", 133: "h3wb", 136: "halpe26"}


def read_json(path: Path, layout: str | None, person: str | int) -> list[Keypoints]:
    content = _load(path)
    if isinstance(content, Mapping) and "annotations" in content and "images" in content:
        return _coco(path, content, layout, person)
    if isinstance(content, list) and content and isinstance(content[0], Mapping) and "keypoints" in content[0]:
        return _results(path, content, layout, person)
    raise DataError(
        f"{path} holds {_kind(content)}, expected COCO annotations (an object with images and annotations) or a "
        "detector's results (a list of objects with image_id and keypoints)."
    )


def read_openpose(path: Path, layout: str | None, person: str | int) -> list[Keypoints]:
    """A folder with a file a frame, `NAME_000000000012_keypoints.json`."""
    files = sorted(path.glob("*_keypoints.json"))
    if not files:
        raise DataError(f"the folder {path} has no *_keypoints.json, expected OpenPose's output.")
    detections = []
    for file, frame in zip(files, _frame_numbers(path, [f.name.removesuffix("_keypoints.json") for f in files]),
                           strict=True):  # fmt: skip
        content = _load(file)
        people = content.get("people") if isinstance(content, Mapping) else None
        if not isinstance(people, list):
            raise DataError(f"{file} has no list 'people', expected OpenPose's output.")
        for one in people:
            values = one.get("pose_keypoints_2d") if isinstance(one, Mapping) else None
            if values:  # OpenPose leaves the list empty where body keypoints are switched off
                identity = one.get("person_id")
                identity = identity[0] if isinstance(identity, list) and identity else identity
                known = isinstance(identity, int) and identity >= 0
                detections.append(
                    Detection(frame, _person(file, "pose_keypoints_2d", values), identity if known else None)
                )
    return _tracks(path, path.name, detections, layout, person)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {' '.join(str(error).split())[:120].rstrip('.')}.") from error


def _kind(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"an object with {', '.join(map(str, list(content)[:5])) or 'nothing'}"
    return f"a {type(content).__name__} of {len(content)}" if isinstance(content, (list, str)) else repr(content)


def _person(path: Path, where: str, values: Any) -> np.ndarray:
    """`[J, 3]` from x, y, confidence, x, y, ..."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} in {path} is {_kind(values)}, expected numbers.") from error
    if array.ndim == 2 and array.shape[1] == 3:
        return array
    if array.ndim != 1 or array.size == 0 or array.size % 3:
        raise DataError(f"{where} in {path} has shape {list(array.shape)}, expected x, y, confidence of each keypoint.")
    return array.reshape(-1, 3)


def _frame_numbers(path: Path, names: Sequence[Any]) -> list[int]:
    """The number of each frame from its name (the last digits in it) or from the number that it is."""
    numbers = []
    for name in names:
        digits = re.findall(r"\d+", Path(str(name)).stem) if not isinstance(name, int) else [name]
        if not digits:
            raise DataError(f"{path} has the frame {name!r}, expected a number in its name.")
        numbers.append(int(digits[-1]))
    distinct = len(set(numbers))
    if max(numbers) - min(numbers) >= 100 * distinct:
        raise DataError(
            f"{path} has {distinct} frames with numbers from {min(numbers)} to {max(numbers)}, expected consecutive "
            "frames of a video."
        )
    return numbers


def _layout(path: Path, size: int, layout: str | None) -> str:
    layout = layout or _SIZES.get(size)
    if layout is None:
        raise DataError(f"{path} has {size} keypoints a person, expected {', '.join(map(str, _SIZES))}.")
    return layout


def _tracks(
    path: Path, name: str, detections: list[Detection], layout: str | None, person: str | int,
    width: int | None = None, height: int | None = None,
) -> list[Keypoints]:  # fmt: skip
    """The chosen people of one video."""
    sizes = {len(detection.keypoints) for detection in detections}
    if len(sizes) > 1:
        raise DataError(f"{path} has people of {' and '.join(map(str, sorted(sizes)))} keypoints, expected one number.")
    if not sizes:
        raise DataError(f"{path} has no people in any frame.")
    (size,) = sizes
    layout = _layout(path, size, layout)
    wanted = LAYOUTS[layout].size
    if size < wanted:
        raise DataError(f"{path} has {size} keypoints a person, expected {wanted} for the layout {layout!r}.")
    out = []
    chosen = choose_tracks(path, make_tracks(detections), person)
    for track in chosen:
        start = track.detections[0].frame
        values = np.full((track.detections[-1].frame - start + 1, wanted, 3), np.nan)
        for detection in track.detections:
            values[detection.frame - start] = detection.keypoints[:wanted]
        values[..., 2] = np.minimum(values[..., 2], 1.0)
        label = name if len(chosen) == 1 else f"{name}/{track.person}"
        out.append(as_track(path, label, values, layout, width, height, start=start))
    return out


def _results(path: Path, content: list[Any], layout: str | None, person: str | int) -> list[Keypoints]:
    """AlphaPose's list, or MMPose's and others': a dictionary a person and frame."""
    for i, entry in enumerate(content):
        if not isinstance(entry, Mapping) or "image_id" not in entry or "keypoints" not in entry:
            raise DataError(f"entry {i} of {path} is {_kind(entry)}, expected an object with image_id and keypoints.")
    frames = _frame_numbers(path, [entry["image_id"] for entry in content])
    detections = []
    for i, (frame, entry) in enumerate(zip(frames, content, strict=True)):
        identity = entry.get("idx", entry.get("track_id"))
        known = isinstance(identity, (int, float)) and not isinstance(identity, bool) and identity == int(identity)
        keypoints = _person(path, f"keypoints of entry {i}", entry["keypoints"])
        detections.append(Detection(frame, keypoints, int(identity) if known else None))
    return _tracks(path, path.stem, detections, layout, person)


def _coco(path: Path, content: Mapping[str, Any], layout: str | None, person: str | int) -> list[Keypoints]:
    """Images, a track of one frame each; or the videos of PoseTrack, by `vid_id`."""
    try:
        images = {image["id"]: image for image in content["images"]}
        kept = [a for a in content["annotations"] if _usable(a)]
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} has malformed images or annotations, expected objects with an id.") from error
    if not kept:
        raise DataError(f"{path} has no annotation with labelled keypoints.")
    categories = content.get("categories")
    names = [str(n) for c in (categories if isinstance(categories, list) else []) if isinstance(c, Mapping)
             for n in c.get("keypoints") or []]  # fmt: skip
    if layout is None and "head_bottom" in names:
        layout = "posetrack"
    in_videos = all("track_id" in a for a in kept)
    videos: dict[Any, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for annotation in kept:
        image = images.get(annotation.get("image_id"))
        if image is None:
            raise DataError(
                f"an annotation of {path} has the image {annotation.get('image_id')!r}, which is not listed."
            )
        videos.setdefault(image.get("vid_id", 0) if in_videos else image["id"], []).append((image, annotation))
    out: list[Keypoints] = []
    for video, pairs in videos.items():
        image = pairs[0][0]
        width, height = (int(image[key]) if image.get(key) else None for key in ("width", "height"))
        label = str(image.get("file_name", video))
        frames = [0] * len(pairs)
        if in_videos:
            label = path.stem if len(videos) == 1 else str(video)
            named = [i.get("frame_id", i.get("file_name", i["id"])) for i, _ in pairs]
            frames = _frame_numbers(path, named)
        detections = []
        for number, (frame, (_, annotation)) in enumerate(zip(frames, pairs, strict=True)):
            keypoints = _person(path, f"keypoints of annotation {annotation.get('id')}", annotation["keypoints"])
            keypoints[:, 2] /= 2  # unlabelled, hidden, visible
            identity = int(annotation["track_id"]) if in_videos else number
            detections.append(Detection(frame, keypoints, identity))
        if isinstance(person, int) and not any(d.person == person for d in detections):
            continue
        out += _tracks(path, label, detections, layout, person, width, height)
    if not out:
        raise DataError(f"{path} has no person {person} in any of its {len(videos)} videos or images.")
    return out


def _usable(annotation: Mapping[str, Any]) -> bool:
    keypoints = annotation.get("keypoints") or []
    labelled = annotation.get("num_keypoints", sum(v > 0 for v in keypoints[2::3]))
    return bool(labelled > 0 and annotation.get("area", 1) > 0 and not annotation.get("iscrowd", 0))

"""COCO's keypoint annotations: images, a track of one frame each; or the videos of PoseTrack, by `vid_id`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError, shown
from .._json import first_of, told
from .._people import FrameNumbers, Video, frame_numbers, identity_of, keypoints_of, positive, told_pixels, tracks_of
from .._tracks import Detection
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []

_Annotation = Mapping[str, Any]
_Image = Mapping[str, Any]


def _sniff(file: KeypointFile) -> int:
    content = file.json
    return CERTAIN if isinstance(content, Mapping) and "annotations" in content and "images" in content else NO


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    path, content = file.path, file.json
    try:
        images = {image["id"]: image for image in content["images"] if isinstance(image["id"], (int, str, float))}
        kept = [a for a in content["annotations"] if _usable(a)]
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} has malformed images or annotations, expected objects with an id.") from error
    if not kept:
        raise DataError(f"{path} has no annotation with labelled keypoints.")
    names = _names(content.get("categories"), kept[0])
    in_videos = all(_track(a) is not _NOTHING for a in kept)
    videos: dict[Any, list[tuple[_Image, _Annotation, np.ndarray]]] = {}
    levels: set[float] = set()
    for annotation in kept:
        image = _image_of(path, images, annotation)
        video = image.get("vid_id", 0) if in_videos else image["id"]
        if not isinstance(video, (int, str, float)):
            raise DataError(f"an image of {path} has the vid_id {shown(video)}, expected a number or a name.")
        where = f"keypoints of annotation {shown(annotation.get('id'))}"
        keypoints = keypoints_of(path, where, annotation["keypoints"])
        levels.update(keypoints[np.isfinite(keypoints[:, 2]), 2].tolist())
        videos.setdefault(video, []).append((image, annotation, keypoints))
    seen = 2 if levels <= {0.0, 1.0, 2.0} else 1  # unlabelled, hidden, visible; otherwise they are confidences
    out: list[Keypoints] = []
    for name, pairs in videos.items():
        video_of, frames = _video(file, name, pairs, in_videos, len(videos), names)
        detections = []
        for number, (frame, (_, annotation, keypoints)) in enumerate(zip(frames.numbers, pairs, strict=True)):
            where = f"track_id of annotation {shown(annotation.get('id'))}"
            identity = identity_of(path, where, _track(annotation)) if in_videos else number
            detections.append(Detection(frame, keypoints / [1, 1, seen], identity))
        if isinstance(person, int) and not any(d.person == person for d in detections):
            continue
        out += tracks_of(file, video_of, detections, layout, person)
    if not out:
        raise DataError(f"{path} has no person {person} in any of its {len(videos)} videos or images.")
    return out


def _usable(annotation: _Annotation) -> bool:
    keypoints = annotation.get("keypoints") or []
    labelled = annotation.get("num_keypoints")
    if labelled is None:
        labelled = sum(v > 0 for v in keypoints[2::3])
    area, crowd = annotation.get("area"), annotation.get("iscrowd", 0)
    return bool(keypoints and labelled > 0 and (area is None or area > 0) and not crowd)


_NOTHING = object()


def _track(annotation: _Annotation) -> Any:
    """The identity of a track, of its own or among the attributes of an annotation tool; or `_NOTHING`."""
    if "track_id" in annotation:
        return annotation["track_id"]
    attributes = annotation.get("attributes")
    return attributes.get("track_id", _NOTHING) if isinstance(attributes, Mapping) else _NOTHING


def _names(categories: Any, annotation: _Annotation) -> list[object]:
    """Names of the keypoints: those of the annotation's category, else of the first that has any."""
    known = [c for c in categories if isinstance(c, Mapping)] if isinstance(categories, list) else []
    named = [c for c in known if isinstance(c.get("keypoints"), list) and c["keypoints"]]
    own = [c for c in named if c.get("id") is not None and c.get("id") == annotation.get("category_id")]
    return list((own or named)[0]["keypoints"]) if named else []


def _image_of(path: Path, images: Mapping[Any, _Image], annotation: _Annotation) -> _Image:
    wanted = annotation.get("image_id")
    if not isinstance(wanted, (int, str, float)) or wanted not in images:
        raise DataError(f"an annotation of {path} has the image {shown(wanted)}, which is not listed.")
    return images[wanted]


def _video(
    file: KeypointFile, name: Any, pairs: list[tuple[_Image, _Annotation, np.ndarray]], in_videos: bool, videos: int,
    names: list[object],
) -> tuple[Video, FrameNumbers]:  # fmt: skip
    """What is told of a video or an image, and the frame of each of its annotations."""
    path, image = file.path, pairs[0][0]
    size: tuple[int | None, int | None] = file.image_size or (None, None)
    if file.image_size is None:
        where = f"of the image {shown(image['id'])}"
        width, height = (told_pixels(path, f"the {key} {where}", image.get(key)) for key in ("width", "height"))
        size = (width, height)
    if not in_videos:
        return Video(str(image.get("file_name", name)), *size, names=names), FrameNumbers([0] * len(pairs))
    named = [i["frame_id"] if "frame_id" in i else first_of(i, "file_name", "id") for i, _, _ in pairs]
    frames = frame_numbers(path, named)
    label = path.stem if videos == 1 else str(name)
    fps = frames.fps or positive(told(file.json).get("fps"))  # COCO has no place for it; "info" is anybody's
    return Video(label, *size, fps, names, notes=frames.notes), frames


FORMS.register(
    KeypointForm(
        "coco", "COCO annotations (an object with images and annotations)", _read, suffixes=(".json",), sniff=_sniff
    )
)

"""COCO's keypoint annotations: images, a track of one frame each; or the videos of PoseTrack, by `vid_id`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....errors import DataError
from .._people import frame_numbers, keypoints_of, tracks_of
from .._tracks import Detection
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []


def _sniff(file: KeypointFile) -> int:
    content = file.json
    return CERTAIN if isinstance(content, Mapping) and "annotations" in content and "images" in content else NO


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    path, content = file.path, file.json
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
            frames = frame_numbers(path, named)
        detections = []
        for number, (frame, (_, annotation)) in enumerate(zip(frames, pairs, strict=True)):
            keypoints = keypoints_of(path, f"keypoints of annotation {annotation.get('id')}", annotation["keypoints"])
            keypoints[:, 2] /= 2  # unlabelled, hidden, visible
            identity = int(annotation["track_id"]) if in_videos else number
            detections.append(Detection(frame, keypoints, identity))
        if isinstance(person, int) and not any(d.person == person for d in detections):
            continue
        out += tracks_of(path, label, detections, layout, person, width, height)
    if not out:
        raise DataError(f"{path} has no person {person} in any of its {len(videos)} videos or images.")
    return out


def _usable(annotation: Mapping[str, Any]) -> bool:
    keypoints = annotation.get("keypoints") or []
    labelled = annotation.get("num_keypoints", sum(v > 0 for v in keypoints[2::3]))
    return bool(labelled > 0 and annotation.get("area", 1) > 0 and not annotation.get("iscrowd", 0))


FORMS.register(
    KeypointForm(
        "coco", "COCO annotations (an object with images and annotations)", _read, suffixes=(".json",), sniff=_sniff
    )
)

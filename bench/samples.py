"""Makes the package's samples from a clip archive of real motion: the clips, and keypoints as a detector gives them.

    python -m bench.samples real_mocap.npz                 # into structloss/samples/
    python -m bench.samples real_mocap.npz --out folder    # somewhere else, to compare

A clip is filmed by a camera that somebody could have had there. Its joints are COCO's or OpenPose's, made from the
clip's 17, projected, and found with the errors of a detector: white ones, and slow ones that last for a quarter of a
second, both larger for hidden joints; sides exchanged while one hides the other; joints that are not found, and for a
moment nobody. Everything follows from the archive and the seeds below, so that the same archive gives the same files.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from structloss import skeletons
from structloss.data.archive import load_archive, save_archive
from structloss.data.cameras import Camera
from structloss.data.clips import Clip
from structloss.data.detections import occlusion
from structloss.data.drawn import to_coco
from structloss.data.drawn.keypoints import autoregressive
from structloss.data.sample_views import camera_to_meta
from structloss.files import new_folder, write_text

__all__ = ["FILMED", "Filmed", "main", "make_samples"]

FOLDER = Path(__file__).resolve().parents[1] / "structloss" / "samples"
#: what is copied from the archive's `meta` to that of every sample
_ORIGIN = ("source", "licence", "acknowledgement", "processing", "world")


@dataclass(frozen=True)
class Filmed:
    """A clip, and how it was filmed.

    Attributes:
        key: of the clip in the archive.
        step: every n-th frame of its 50 a second.
        size: width and height of the picture, pixels.
        focal: focal length, pixels.
        position, target: where the camera stands, and what is in the middle of its picture; metres, z up.
        roll: of the picture, degrees.
        radial: distortion k1, k2, k3 of the lens.
        gap: first frame in which nobody is found, and the first after that.
        lost: confidence below which a joint is not found.
        openpose: write OpenPose's files rather than COCO's.
    """

    key: str
    step: int
    size: tuple[int, int]
    focal: float
    position: tuple[float, float, float]
    target: tuple[float, float, float]
    roll: float = 0.0
    radial: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gap: tuple[int, int] = (0, 0)
    lost: float = 0.12
    openpose: bool = False

    def camera(self, name: str) -> Camera:
        """The camera, called after the sample."""
        position = np.array(self.position)
        ahead = _unit(np.array(self.target) - position)
        right = _unit(np.cross(ahead, [0.0, 0.0, 1.0]))
        down = np.cross(ahead, right)
        c, s = np.cos(np.radians(self.roll)), np.sin(np.radians(self.roll))
        rotation = np.stack([c * right + s * down, c * down - s * right, ahead])
        width, height = self.size
        return Camera(
            name, width, height, (self.focal, self.focal), (width / 2, height / 2), self.radial, (0.0, 0.0),
            # Six digits are a hundredth of a pixel, and the same in every version of numpy.
            np.round(rotation, 6), position,
        )  # fmt: skip


FILMED = {
    # a phone on a tripod
    "dance": Filmed(
        "cmu05/05_03", 2, (1920, 1080), 1500.0, (-2.6, 2.4, 1.25), (0.0, -0.2, 0.9), roll=1.0, gap=(58, 62)
    ),
    # a phone held upright, somebody comes towards it
    "walk": Filmed("cmu35/35_16", 1, (1080, 1920), 1500.0, (1.0, -5.6, 1.4), (0.05, -2.0, 0.8), roll=-1.5),
    # a camera at the side of a pitch
    "kick": Filmed(
        "cmu11/11_01", 2, (1280, 720), 960.0, (-2.7, -1.7, 1.4), (0.35, 0.8, 0.85), gap=(31, 34), lost=0.55,
        openpose=True
    ),
    # a camera below the ceiling of a gym, with a wide lens
    "roll": Filmed(
        "cmu127/127_24", 1, (1920, 1080), 1400.0, (4.0, -3.2, 3.0), (-0.1, 0.15, 0.55), radial=(-0.12, 0.03, 0.0),
        gap=(57, 65),
    ),
}  # fmt: skip
"""Name of a sample -> how it is made. The clips are of subjects that no network in the package was trained on."""


# ---- what a detector finds ------------------------------------------------------------------------------------------

_JITTER, _DRIFT = 1.0, 2.0  # pixels per axis of a person 5 m in front of Human3.6M's cameras: white and slow errors
_PIXELS_PER_METRE = 229.0  # of these
_HIDDEN = 3.0  # by which the errors of a hidden joint are larger, beyond 1
_MEMORY = 0.25  # seconds that slow errors last
_NEAR = 50.0  # pixels, as above, within which sides are exchanged
_LIMB_OF = (9, 10, 10, 8, 8, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3)  # Human3.6M's joint for each of COCO's
_SIDES = (((13, 15), (14, 16)), ((7, 9), (8, 10)))  # COCO's: legs, arms


def detect(
    poses: np.ndarray, camera: Camera, fps: float, rng: np.random.Generator, lost: float = 0.12, swaps: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's joints of a person as a detector finds them.

    Args:
        poses: `[T, 17, 3]` of Human3.6M's joints in the world, metres.
        camera: that sees them.
        fps: frames per second.
        rng: source of all randomness.
        lost: confidence below which a joint is not found.
        swaps: exchange sides now and then.

    Returns:
        The true places `[T, 17, 2]`, pixels, and what is found `[T, 17, 3]`: x, y and confidence, all 0 of a joint that
        is not found.
    """
    seen = camera.to_camera(poses)
    joints = to_coco(seen, yaw=np.radians(8.0))
    true = camera.project(joints)
    hidden = _hidden(seen, joints)
    scale = camera.focal[0] / _PIXELS_PER_METRE / seen[:, :1, 2]  # [T, 1]
    frames = len(poses)
    noise = rng.standard_normal((2, frames, 17, 2))
    mood = rng.standard_normal((frames, 17 + len(_SIDES)))
    slow, lasting = (autoregressive(part[None], np.array([_MEMORY * fps]))[0] for part in (noise[1], mood))
    growth = 1 + _HIDDEN * hidden
    error = _DRIFT * growth[..., None] * slow + _JITTER * np.sqrt(growth)[..., None] * noise[0]
    error[:, :5] *= 0.6  # faces are found more exactly
    found = true + error * scale[..., None]
    if swaps:
        for k, (left, right) in enumerate(_SIDES):
            covered = hidden[:, left + right].max(-1) > 0.5
            near = np.linalg.norm(true[:, left[0]] - true[:, right[0]], axis=-1) < _NEAR * scale[:, 0]
            frame = np.nonzero(covered & near & (lasting[:, 17 + k] > 1.3))[0][:, None]
            found[frame, left + right] = found[frame, right + left]
    wrong = np.linalg.norm(found - true, axis=-1) / scale
    doubt = 3.2 * hidden + 0.12 * np.minimum(wrong, 25.0) + 0.5 * lasting[:, :17]
    confidence = 1 / (1 + np.exp(doubt - 3.0))
    out = np.concatenate([found, confidence[..., None]], axis=-1)
    inside = ((out[..., :2] >= 0) & (out[..., :2] < [camera.width, camera.height])).all(-1)
    out[(confidence < lost) | ~inside] = 0
    return true, out


def _hidden(seen: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """0 to 1: how much each of COCO's joints is hidden by the body, those of the face by the head."""
    hidden = occlusion(seen)[:, list(_LIMB_OF)].astype(np.float64)
    middle = joints[:, 3:5].mean(1, keepdims=True)  # of the head, between the ears
    behind = np.linalg.norm(joints[:, :5], axis=-1) - np.linalg.norm(middle, axis=-1)
    covered = np.clip((behind - 0.02) / 0.05, 0, 1)
    hidden[:, :5] = 1 - (1 - covered) * (1 - hidden[:, :5])
    return hidden


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


# ---- files ----------------------------------------------------------------------------------------------------------

#: OpenPose's 25 joints: COCO's joint, two of which it is the middle, or (ankle of COCO, part of the foot)
_BODY25: tuple[Any, ...] = (
    0, (5, 6), 6, 8, 10, 5, 7, 9, (11, 12), 12, 14, 16, 11, 13, 15, 2, 1, 4, 3,
    ("toe", 15, 1), ("small toe", 15, 1), ("heel", 15, 1), ("toe", 16, -1), ("small toe", 16, -1), ("heel", 16, -1),
)  # fmt: skip


def to_body25(found: np.ndarray, poses: np.ndarray, camera: Camera) -> np.ndarray:
    """`[T, 25, 3]`: OpenPose's joints of a person of whom COCO's were found, `[T, 17, 3]`.

    The neck and the middle of the hips are between those of both sides, and found where both are. Feet, which the
    motion lacks, are flat below the ankle, as long as an adult's, and point to where the hips do; they have the ankle's
    error.
    """
    hips = poses[:, 4] - poses[:, 1]
    left = _unit(hips * [1, 1, 0])
    ahead = np.cross(left, [0.0, 0.0, 1.0])
    out = np.zeros((len(found), 25, 3))
    for joint, of in enumerate(_BODY25):
        if isinstance(of, int):
            out[:, joint] = found[:, of]
        elif len(of) == 2:
            both = found[:, list(of)]
            out[:, joint] = np.where((both[..., 2] > 0).all(1)[:, None], both.mean(1), 0)
        else:
            part, ankle, side = of
            at = poses[:, 6 if ankle == 15 else 3]
            forward, aside = {"toe": (0.16, -0.02), "small toe": (0.13, 0.06), "heel": (-0.05, 0.0)}[part]
            place = at + forward * ahead + side * aside * left - [0, 0, 0.06]
            moved = camera.project(camera.to_camera(place)) - camera.project(camera.to_camera(at))
            out[:, joint, :2] = found[:, ankle, :2] + moved
            out[:, joint, 2] = 0.85 * found[:, ankle, 2]
            out[found[:, ankle, 2] == 0, joint] = 0
    return out


def _numbers(person: np.ndarray) -> list[float]:
    """x, y, confidence of every joint in a row: tenths of a pixel, thousandths."""
    rounded = np.concatenate([np.round(person[:, :2], 1), np.round(person[:, 2:], 3)], axis=-1)
    return [int(value) if value == int(value) else value for value in rounded.reshape(-1).tolist()]


def _compact(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def coco_json(name: str, found: np.ndarray, there: np.ndarray, camera: Camera, fps: float, origin: str) -> str:
    """COCO's annotations of a video: an image for every frame, a line each; nobody in a frame is no annotation."""
    coco = skeletons.get("coco")
    images, annotations = [], []
    for frame, person in enumerate(found):
        image = {"id": frame, "file_name": f"{name}_{frame:06d}.jpg", "width": camera.width, "height": camera.height}
        images.append(_compact(image))
        if not there[frame]:
            continue
        seen = person[person[:, 2] > 0]
        low, high = seen[:, :2].min(0), seen[:, :2].max(0)
        margin = 0.1 * (high - low)
        low = np.maximum(low - margin, 0)
        box = np.concatenate([low, np.minimum(high + margin, [camera.width, camera.height]) - low])
        annotation = {
            "id": len(annotations), "image_id": frame, "category_id": 1, "track_id": 0,
            "bbox": np.round(box).astype(int).tolist(), "score": round(float(seen[:, 2].mean()), 3),
            "num_keypoints": len(seen), "keypoints": _numbers(person),
        }  # fmt: skip
        annotations.append(_compact(annotation))
    info = {"description": f"{name}: keypoints of a simulated detector for real motion", "fps": fps, "source": origin}
    category = {"id": 1, "name": "person", "keypoints": list(coco.joint_names)}
    lists = (("images", images), ("annotations", annotations), ("categories", [_compact(category)]))
    parts = [f'"info":{_compact(info)}']
    parts += [f'"{key}":[\n' + ",\n".join(rows) + "\n]" for key, rows in lists]
    return "{" + ",\n".join(parts) + "}\n"


def openpose_files(name: str, found: np.ndarray, there: np.ndarray, camera: Camera, fps: float) -> dict[str, str]:
    """File name -> text of OpenPose's output for every frame, with the video's size and rate beside the people."""
    told = {"version": 1.3, "canvas_width": camera.width, "canvas_height": camera.height, "fps": fps}
    out = {}
    for frame, person in enumerate(found):
        people = [{"person_id": [-1], "pose_keypoints_2d": _numbers(person)}] if there[frame] else []
        out[f"{name}_{frame:012d}_keypoints.json"] = _compact(told | {"people": people}) + "\n"
    return out


def make_samples(archive: str | Path, folder: Path) -> None:
    """Write all samples.

    Args:
        archive: clip archive that has the clips of :data:`FILMED`.
        folder: gets `keypoints/` and `motion/`; what is there of these is replaced.
    """
    clips, meta = load_archive(archive)
    by_key = {clip.key: clip for clip in clips}
    with new_folder(folder / "keypoints") as keypoints, new_folder(folder / "motion") as motion:
        for number, (name, filmed) in enumerate(FILMED.items()):
            whole = by_key[filmed.key]
            fps = whole.fps / filmed.step
            clip = Clip(whole.positions[:: filmed.step], whole.subject, whole.action, whole.name, fps)
            camera = filmed.camera(name)
            _, found = detect(clip.positions, camera, fps, np.random.default_rng(number), filmed.lost)
            there = np.ones(len(clip), dtype=bool)
            there[slice(*filmed.gap)] = False
            told = int(fps) if fps == int(fps) else fps
            if filmed.openpose:
                body = to_body25(found, clip.positions, camera)
                for file, text in openpose_files(name, body, there, camera, told).items():
                    write_text(keypoints / name / file, text)
            else:
                origin = f"{meta['source'].split(';')[0]}, {clip.key}. {meta['acknowledgement']}"
                write_text(keypoints / f"{name}.json", coco_json(name, found, there, camera, told, origin))
            kept = {key: meta[key] for key in _ORIGIN if key in meta}
            save_archive(motion / f"{name}.npz", [clip], {**kept, "camera": camera_to_meta(camera)})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", help="clip archive with the clips of CMU's subjects 5, 11, 35 and 127")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write (default: the package's)")
    args = parser.parse_args(argv)
    make_samples(args.archive, args.out)
    for path in sorted(args.out.rglob("*")):
        if path.is_file() and path.parent.name in ("keypoints", "motion"):
            print(f"{path.relative_to(args.out)}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

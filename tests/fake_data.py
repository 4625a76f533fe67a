"""Files with the keys and shapes of the published data sets, filled with made-up motion of any size.

Poses and keypoints belong together: a synthetic person moves in the world and Human3.6M's cameras look on. Functions
return what they wrote, for tests to compare with.
"""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from structloss.data import generate_clips, h36m_cameras
from structloss.skeletons import convert

KEPT = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
LEFT, RIGHT = [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]
CAMERAS = ("54138969", "55011271", "58860488", "60457274")


def world(frames: int, *key: object) -> np.ndarray:
    """Float32 `[frames, 17, 3]`, metres, z up; the same for the same key."""
    seed = zlib.crc32(repr(key).encode())
    return generate_clips(1, 1, frames, seed=seed, actions=("random",))[0].centred().positions


def write_h36m_npz(
    folder: Path,
    *,
    subjects: Sequence[str] = ("S1", "S9"),
    actions: Sequence[str] = ("Walking", "Photo 1"),
    frames: int = 40,
    keypoints: Sequence[str] = ("gt",),
    noise: float = 0.0,
    confidence: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
    """`data_3d_h36m.npz` and a `data_2d_h36m_NAME.npz` for each of `keypoints`; cameras 1 and 3 run on for a frame."""
    poses, points = {}, {}
    rng = np.random.default_rng(0)
    for subject in subjects:
        poses[subject], points[subject] = {}, {}
        for action in actions:
            body = world(frames + 1, subject, action)
            full = rng.normal(0, 1, (frames, 32, 3)).astype(np.float32)
            full[:, KEPT] = body[:frames]
            poses[subject][action] = full
            seen = []
            for i, camera in enumerate(h36m_cameras(subject)):
                pixels = camera.project(camera.to_camera(body[: frames + i % 2]))
                pixels = pixels + noise * rng.standard_normal(pixels.shape)
                if confidence:
                    pixels = np.concatenate([pixels, rng.uniform(0, 1, (*pixels.shape[:2], 1))], axis=-1)
                seen.append(pixels.astype(np.float32))
            points[subject][action] = seen
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=poses)
    for name in keypoints:
        metadata = {"num_joints": 17, "keypoints_symmetry": [LEFT, RIGHT]}
        if name != "gt":
            metadata["layout_name"] = "h36m"
        np.savez_compressed(folder / f"data_2d_h36m_{name}.npz", positions_2d=points, metadata=metadata)
    return {subject: {a: full[:, KEPT] for a, full in of.items()} for subject, of in poses.items()}


#: (video, frames) of the splits whose clips are known: at 243 frames, training clips start at 0, 81, 162, 243, 324 and
#: the last, short video gives none; test clips at 0, 243, 500, 743, 986.
H36M_VIDEOS = {
    "train": (("s_01_act_02_subact_01_ca_01", 600), ("s_05_act_03_subact_01_ca_02", 100)),
    "test": (
        ("s_09_act_05_subact_02_ca_01", 500),
        ("s_11_act_02_subact_01_ca_04", 486),
        ("s_11_act_03_subact_01_ca_03", 260),
    ),
}


def h36m_pickle(videos: dict[str, Sequence[tuple[str, int]]] = H36M_VIDEOS, *, lists: bool = True) -> dict:
    """MotionBERT's pickle: image space as its database builder makes it, poses in millimetres behind it."""
    names = "Directions Discussion Eating Greeting Phoning Posing Purchases Sitting SittingDown Smoking TakingPhoto "
    names = (names + "Waiting Walking WalkingDog WalkTogether").split()
    out = {}
    for split, entries in videos.items():
        rng = np.random.default_rng(len(split))
        columns: dict[str, list] = {key: [] for key in (
            "joint_2d", "confidence", "joint3d_image", "camera_name", "source", "action", "2.5d_factor",
            "joints_2.5d_image",
        )}  # fmt: skip
        for source, frames in entries:
            number = int(source[-2:]) - 1
            camera = h36m_cameras(f"S{int(source[2:4])}")[number]
            pose = camera.to_camera(world(frames, source[:-6])) * 1000
            root = pose[:, :1, 2:]
            ratio = camera.focal[0] / root  # pixels per millimetre
            image = camera.project(pose / 1000, distort=False)
            image = np.concatenate([image, ratio * (pose[..., 2:] - root)], axis=-1)
            columns["joint_2d"].append(image[..., :2] + rng.normal(0, 3, image[..., :2].shape))
            columns["confidence"].append(rng.uniform(0, 1, (frames, 17, 1)))
            columns["joint3d_image"].append(image)
            columns["2.5d_factor"].append(1 / ratio[:, 0, 0])
            columns["joints_2.5d_image"].append(image / ratio)
            columns["camera_name"] += [CAMERAS[number]] * frames
            columns["source"] += [source] * frames
            columns["action"] += [names[int(source[9:11]) - 2]] * frames
        for key, values in columns.items():
            if isinstance(values[0], str):
                columns[key] = values if lists else np.array(values)
            else:
                columns[key] = np.concatenate(values)
        if split == "train":
            del columns["2.5d_factor"], columns["joints_2.5d_image"]
        out[split] = columns
    return out


def write_pickle(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 4))
    return path


def clips_of(content: dict, frames: int) -> dict[str, list[dict[str, np.ndarray]]]:
    """The clips that MotionBERT's converter cuts, by a loop over the frames' video names."""
    out = {}
    rng = np.random.default_rng(7)
    for split, half in content.items():
        width = 1000
        height = np.array([1002 if c in ("54138969", "60457274") else 1000 for c in half["camera_name"]])[:, None, None]
        seen = 2 * half["joint_2d"] / width - np.concatenate([np.ones_like(height), height / width], axis=-1)
        target = half["joint3d_image"]
        label = np.concatenate(
            [
                2 * target[..., :1] / width - 1,
                2 * target[..., 1:2] / width - height / width,
                2 * target[..., 2:] / width,
            ],
            axis=-1,
        )
        seen = np.concatenate([seen, half["confidence"]], axis=-1)
        stride = frames // 3 if split == "train" else frames
        chosen, start, videos = [], 0, list(half["source"])
        while start < len(videos):
            end = start
            while end < len(videos) and videos[end] == videos[start]:
                end += 1
            if end - start < frames:
                if end < len(videos):
                    chosen.append(np.sort(rng.integers(start, end, frames)))
            else:
                first = start
                while first + frames <= end:
                    chosen.append(np.arange(first, first + frames))
                    first += stride
            start = end
        out[split] = [
            {"data_input": seen[rows].astype(np.float32), "data_label": label[rows].astype(np.float32)}
            for rows in chosen
        ]
    return out


def write_h36m_clips(folder: Path, content: dict, frames: int) -> dict[str, list[dict[str, np.ndarray]]]:
    """`train/%08d.pkl` and `test/%08d.pkl`."""
    clips = clips_of(content, frames)
    for split, entries in clips.items():
        for number, clip in enumerate(entries):
            write_pickle(folder / split / f"{number:08d}.pkl", clip)
    return clips


def write_3dhp(
    folder: Path,
    *,
    sequences: Sequence[str] = ("S1 Seq1", "S1 Seq2", "S2 Seq1"),
    frames: int = 90,
    tests: Sequence[str] = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6"),
    test_frames: int = 100,
    suffix: str = "",
) -> tuple[dict, dict]:
    """`data_train_3dhp.npz` and `data_test_3dhp.npz`: millimetres, eight cameras, every 7th test frame not valid."""
    true = bool(suffix)

    def person(count: int, number: int, *key: object) -> np.ndarray:
        camera = h36m_cameras("S5" if number > 3 else "S1")[number % 4]
        return convert(camera.to_camera(world(count, *key)), "h36m", "mpi_inf_3dhp") * 1000

    train = {}
    for name in sequences:
        cameras = {}
        for number, camera in enumerate("01245678"):
            pose = person(frames, number, name)
            cameras[camera] = {"data_2d": 1500 * pose[..., :2] / pose[..., 2:] + 1024, "data_3d": pose}
        train[name] = [cameras, 50 if name == "S1 Seq2" else 25]
    test = {}
    for name in tests:
        pose = person(test_frames, 0, name)
        k = (1683.98, 1672.6, 939.86, 560.14) if name in ("TS5", "TS6") else (1500.17, 1500.8, 1017.4, 1043.0)
        image = pose[..., :2] / pose[..., 2:] * np.array(k[:2]) + np.array(k[2:])
        valid = np.ones(test_frames)
        valid[::7] = 0
        test[name] = {"data_2d": image, "data_3d": pose if true else pose * 0.9554, "valid": valid}
    if train:
        np.savez_compressed(folder / f"data_train_3dhp{suffix}.npz", data=train)
    if test:
        np.savez_compressed(folder / f"data_test_3dhp{suffix}.npz", data=test)
    return train, test


def whole_bodies(frames: int, camera, *key: object) -> tuple[np.ndarray, np.ndarray]:
    """Camera-space poses `[frames, 133, 3]`, mm, and their pixels: limbs of a person, the rest scattered near them."""
    body = camera.to_camera(world(frames, *key)) * 1000
    rng = np.random.default_rng(zlib.crc32(repr(key).encode()))
    where = [9, 9, 9, 9, 9, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3]  # the Human3.6M joint near each of COCO's
    near = np.concatenate([where, [6] * 3, [3] * 3, [9] * 68, [13] * 21, [16] * 21])
    offset = rng.normal(0, 30, (133, 3)) * ~np.isin(np.arange(133), range(5, 17))[:, None]
    pose = body[:, near] + offset
    return pose, camera.project(pose / 1000)


def write_h3wb_npz(folder: Path, *, frames: int = 30, actions: Sequence[str] = ("Directions 1", "Walking")) -> dict:
    """`h3wb_train.npz` (S1, S5) and `task1_test_3d.npz` (S8)."""
    out: dict[str, dict] = {"train": {}, "test": {}}
    metadata: dict = {}
    for subject in ("S1", "S5", "S8"):
        half = out["test" if subject == "S8" else "train"][subject] = {}
        metadata[subject] = {}
        for action in actions:
            entry = half[action] = {"frame_id": np.arange(frames) * 7, "global_3d": np.zeros((frames, 133, 3))}
            for i, camera in enumerate(h36m_cameras(subject)):
                pose, pixels = whole_bodies(frames, camera, subject, action)
                entry[camera.id] = {"camera_3d": pose[:, None] if i else pose, "pose_2d": pixels, "sample_id": []}
                k = np.array(
                    [[camera.focal[0], 0, camera.center[0]], [0, camera.focal[1], camera.center[1]], [0, 0, 1]]
                )
                metadata[subject][camera.id] = {"K": k[None] / 1000, "R": np.eye(3)[None], "T": np.zeros((1, 1, 3))}
    metadata["left_side"] = [1, 3]
    np.savez_compressed(folder / "h3wb_train.npz", train_data=out["train"], metadata=metadata)
    np.savez_compressed(folder / "task1_test_3d.npz", data=out["test"])
    return out


def h3wb_samples(
    numbers: Sequence[int], *, poses: bool = True, points: bool = True, path: str = ""
) -> tuple[dict[str, dict], np.ndarray, np.ndarray]:
    """Samples of the JSON files, and their pixels `[N, 133, 2]` and poses `[N, 133, 3]` in mm."""
    pose, pixels = whole_bodies(len(numbers), h36m_cameras("S1")[0], "json")
    samples = {}
    for row, number in enumerate(numbers):
        sample: dict = {"bbox": {"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}}
        if path:
            sample["image_path"] = path.format(number)
        if points:
            sample["keypoints_2d"] = {str(j): {"x": float(p[0]), "y": float(p[1])} for j, p in enumerate(pixels[row])}
        if poses:
            sample["keypoints_3d"] = {
                str(j): dict(zip("xyz", map(float, p), strict=True)) for j, p in enumerate(pose[row])
            }
        samples[str(number)] = sample
    return samples, pixels, pose


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path

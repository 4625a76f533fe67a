"""The arithmetic of the published evaluations of Human3.6M, written out in float64 numpy, apart from the package.

Everything is in millimetres, relative to the true root, and starts from predictions of whole videos. Source: the
description of VideoPose3D's and its successors' evaluations (Pavllo et al., CVPR 2019, and others).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

#: what is done to the predicted root, joint 0, before anything is measured
ROOTS = ("kept", "zeroed", "subtracted")


def with_root(pose: np.ndarray, root: str) -> np.ndarray:
    """`[T, J, 3]`."""
    assert root in ROOTS
    pose = np.array(pose, dtype=np.float64)
    if root == "zeroed":
        pose[:, 0] = 0.0
    elif root == "subtracted":
        pose = pose - pose[:, 0:1]
    return pose


def p1(pred: np.ndarray, true: np.ndarray) -> float:
    """Mean distance over frames and joints, the root among them."""
    return float(np.sqrt(((pred - true) ** 2).sum(-1)).mean())


def p2(pred: np.ndarray, true: np.ndarray) -> float:
    """The same after the similarity of each frame that fits best; no reflection."""
    centre_p, centre_t = pred.mean(1, keepdims=True), true.mean(1, keepdims=True)
    a, b = pred - centre_p, true - centre_t
    size_a, size_b = (np.sqrt((x**2).sum((1, 2), keepdims=True)) for x in (a, b))
    u, s, vt = np.linalg.svd((b / size_b).transpose(0, 2, 1) @ (a / size_a))
    v = vt.transpose(0, 2, 1)
    sign = np.sign(np.linalg.det(v @ u.transpose(0, 2, 1)))
    v[:, :, -1] *= sign[:, None]
    s[:, -1] *= sign
    rotation = v @ u.transpose(0, 2, 1)
    scale = s.sum(1)[:, None, None] * size_b / size_a
    fitted = scale * pred @ rotation + centre_t - scale * centre_p @ rotation
    return float(np.linalg.norm(fitted - true, axis=-1).mean())


def p3(pred: np.ndarray, true: np.ndarray) -> float:
    """The same after the scale of each frame that fits best, about the origin."""
    scale = (pred * true).sum((1, 2)) / (pred * pred).sum((1, 2))
    return float(np.linalg.norm(scale[:, None, None] * pred - true, axis=-1).mean())


def mpjve(pred: np.ndarray, true: np.ndarray) -> float:
    """Mean distance of the steps from frame to frame along the whole video."""
    return float(np.linalg.norm(np.diff(pred, axis=0) - np.diff(true, axis=0), axis=-1).mean())


MEASURES = {"p1": p1, "p2": p2, "p3": p3, "mpjve": mpjve}


def by_action(videos: Iterable[tuple[str, np.ndarray, np.ndarray]], root: str) -> dict[str, dict[str, float]]:
    """Measures of each action: the mean over its videos, weighted by their frames.

    Args:
        videos: action, such as "Walking 1", predicted poses `[T, J, 3]` and true ones. The number of the take is no
            part of an action's name.
        root: one of ROOTS.
    """
    sums: dict[str, dict[str, float]] = {}
    frames: dict[str, int] = {}
    for name, pred, true in videos:
        action = name.split(" ")[0]
        pred, true = with_root(pred, root), np.asarray(true, dtype=np.float64)
        frames[action] = frames.get(action, 0) + len(pred)
        of = sums.setdefault(action, dict.fromkeys(MEASURES, 0.0))
        for key, measure in MEASURES.items():
            of[key] += len(pred) * measure(pred, true)
    return {action: {key: total / frames[action] for key, total in of.items()} for action, of in sums.items()}


def mean_over_actions(actions: dict[str, dict[str, float]]) -> dict[str, float]:
    """Each action counts alike, however many frames it has."""
    return {key: float(np.mean([of[key] for of in actions.values()])) for key in MEASURES}

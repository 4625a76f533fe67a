"""Values and gradients of the losses against figures computed by the published code.

Where no published program exists (symmetry, illegal angles, bone ratios) the figures are those of the printed formulas.
"""

from pathlib import Path

import backends
import numpy as np
import pytest
import torch
from compare import assert_close_values, value_and_grad
from golden.fill import fill_input
from reference import terms

import structloss

GOLDEN = np.load(Path(__file__).parent / "golden" / "losses.npz")
# The oracle of the other tests has to reproduce the figures as well.
BACKENDS = ["reference", *backends.BACKENDS]
SHAPE = (4, 27, 17, 3)

STRUCTURE_AWARE = {"illegal_angle": 0.03, "bone_symmetry": 0.05, "bone_ratio": 0.03}
# Golden key -> weights of the terms, their options.
FIGURES = {
    "loss_mpjpe": ({"mpjpe": 1.0}, {}),
    "weighted_mpjpe": ({"weighted_mpjpe": 1.0}, {}),
    "n_mpjpe": ({"n_mpjpe": 1.0}, {}),
    "loss_velocity": ({"velocity": 1.0}, {}),
    "loss_limb_gt": ({"limb_length": 1.0}, {}),
    "loss_limb_var": ({"limb_variance": 1.0}, {}),
    "loss_angle": ({"bone_angle": 1.0}, {}),
    "loss_angle_velocity": ({"bone_angle_velocity": 1.0}, {}),
    "motionbert_total": ({"mpjpe": 1.0, "n_mpjpe": 0.5, "velocity": 20.0}, {}),
    "illegal_angle": ({"illegal_angle": 1.0}, {}),
    "illegal_angle_unit": ({"illegal_angle": 1.0}, {"illegal_angle": {"normalize_bones": True}}),
    "symmetry": ({"bone_symmetry": 1.0}, {}),
    "symmetry_six": ({"bone_symmetry": 1.0}, {"bone_symmetry": {"pairs": "six"}}),
    "symmetry_squared": ({"bone_symmetry": 1.0}, {"bone_symmetry": {"squared": True}}),
    "geometric": ({"bone_ratio": 1.0}, {}),
    "geometric_masked": ({"bone_ratio": 1.0}, {}),
    "geometric_paper": ({"bone_ratio": 1.0}, {"bone_ratio": {"form": "paper"}}),
    "structure_aware": (STRUCTURE_AWARE, {}),
}
for _term, _key in (("depth_ranking_joints", "repose_spatial"), ("depth_ranking_frames", "repose_temporal")):
    FIGURES |= {f"{_key}{variant}": ({_term: 1.0}, {}) for variant in ("", "_sum", "_ties", "_zeropred")}


def inputs(key):
    """Predicted and target poses and the weights that a figure was computed from."""
    pred, target = (torch.from_numpy(fill_input(name, SHAPE)).double() for name in ("loss-pred", "loss-gt"))
    weight = None
    if key.endswith("_ties"):
        pred, target = (pred * 4).round() / 4, (target * 4).round() / 4
    if key.endswith("_zeropred"):
        pred = torch.zeros_like(pred)
    if key.endswith("_depth"):  # true x and y, predicted z
        pred = torch.cat([target[..., :2], pred[..., 2:]], -1)
    if key == "weighted_mpjpe":
        weight = torch.from_numpy(0.5 + np.abs(fill_input("loss-w", SHAPE[:3]))).double()
    if key.startswith("geometric_masked"):
        weight = torch.from_numpy(fill_input("loss-visible", SHAPE[:3]) > -0.2).double()
    return pred, target, weight


def objective(backend, pred, target, weights, *, weight=None, options=None, reduction="mean"):
    if backend == "reference":
        return terms.objective(pred, target, weights, weight, reduction, options)[0]
    keywords = {"weight": weight, "options": options, "reduction": reduction, "backend": backend}
    return structloss.objective(pred, target, weights, **keywords).total


KEYS = [k for k in GOLDEN if not k.endswith("__grad") and not k.startswith(("poses__", "triple_product"))]


def test_all_figures_are_compared():
    assert set(FIGURES) == {key.removesuffix("_depth") for key in KEYS}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", KEYS)
def test_published_figures(key, backend):
    weights, options = FIGURES[key.removesuffix("_depth")]
    pred, target, weight = inputs(key)
    value, gradient = value_and_grad(
        lambda p: objective(
            backend,
            p,
            target,
            weights,
            weight=weight,
            options=options,
            reduction="sum" if key.endswith("_sum") else "mean",
        ),
        pred,
    )
    golden = float(GOLDEN[key])
    assert abs(float(value) - golden) <= 1e-10 * max(1.0, abs(golden))
    if f"{key}__grad" in GOLDEN:  # the published sums come without
        expected = torch.from_numpy(GOLDEN[f"{key}__grad"])
        gradient = gradient[..., 2] if key.endswith("_depth") else gradient
        assert (gradient - expected).abs().max() <= 1e-8 * expected.abs().max()


# Elbows and knees: joints of each hinge and the sign of an illegal triple product, in the order of the stored figures.
HINGES = {
    "right_elbow": (8, 14, 15, 16),
    "left_elbow": (8, 11, 12, 13),
    "right_knee": (0, 1, 2, 3),
    "left_knee": (0, 4, 5, 6),
}
SIGNS = {"right_elbow": -1, "left_elbow": +1, "right_knee": +1, "left_knee": -1}


def hinge_by_itself(backend, poses, hinge, **options):
    """Illegal-angle loss of one hinge, summed over the poses: only its joints have weight."""
    weight = torch.zeros(poses.shape[:-1], dtype=torch.float64)
    weight[..., list(HINGES[hinge])] = 1
    weights, options = {"illegal_angle": 1.0}, {"illegal_angle": options}
    return objective(backend, poses, None, weights, weight=weight, options=options, reduction="sum")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("handedness", ["right", "left"])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("hinge", HINGES)
def test_triple_products(hinge, unit, handedness, backend):
    """The loss of a hinge is u * exp(u) of the stored triple products."""
    pred, _, _ = inputs("")
    stored = GOLDEN["triple_product_unit" if unit else "triple_product"][..., list(HINGES).index(hinge)]
    u = np.maximum(SIGNS[hinge] * (1 if handedness == "right" else -1) * stored, 0)
    found = hinge_by_itself(backend, pred, hinge, normalize_bones=unit, handedness=handedness)
    assert_close_values(found, (u * np.exp(u)).sum(), relative=1e-12)


def hand_made(function):
    """The loss of each hand-made pose by its name, and the gradients."""
    poses = torch.from_numpy(GOLDEN["poses__xyz_m"])
    values, gradients = zip(*(value_and_grad(function, pose[None]) for pose in poses), strict=True)
    return dict(zip(GOLDEN["poses__name"].tolist(), torch.stack(values), strict=True)), torch.cat(gradients)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "key, term, options",
    [
        ("poses__illegal_angle", "illegal_angle", {}),
        ("poses__illegal_angle_unit", "illegal_angle", {"normalize_bones": True}),
        ("poses__symmetry", "bone_symmetry", {}),
        ("poses__symmetry_six", "bone_symmetry", {"pairs": "six"}),
        ("poses__geometric", "bone_ratio", {}),
    ],
)
def test_hand_made_poses(key, term, options, backend):
    values, gradients = hand_made(lambda pose: objective(backend, pose, None, {term: 1.0}, options={term: options}))
    assert torch.stack([*values.values()]).numpy() == pytest.approx(GOLDEN[key], abs=1e-12)
    if f"{key}__grad" in GOLDEN:
        assert gradients.numpy() == pytest.approx(GOLDEN[f"{key}__grad"], abs=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hand_made_poses_have_the_stated_losses(backend):
    """A bent elbow has |E| = 0.010825, a bent knee 0.020166; legal and straight ones have no loss."""
    values, gradients = hand_made(lambda pose: objective(backend, pose, None, {"illegal_angle": 1.0}))
    stated = {"illegal_elbow": 0.010943, "illegal_knee": 0.020577, "all_illegal": 0.063040}
    for (name, value), gradient in zip(values.items(), gradients, strict=True):
        kind = name.replace("right_", "").replace("left_", "")
        if name.startswith("all_illegal") or name == "all_legal_mirrored_unswapped":
            kind = "all_illegal"
        assert float(value) == pytest.approx(stated.get(kind, 0.0), abs=5e-7), name
        assert (value == 0) == (gradient == 0).all() == (kind not in stated), name


MIRROR = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]  # exchanges left and right
REFLECTION = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mirrors_and_handedness(backend):
    """A reflected frame needs the other handedness; a mirrored person, relabelled, stays as legal as they were."""
    poses = [torch.from_numpy(GOLDEN["poses__xyz_m"]), inputs("")[0].flatten(0, 1)]
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    rotation = rotation * torch.linalg.det(rotation).sign()

    def loss(pose, **options):
        return objective(backend, pose[:, None], None, {"illegal_angle": 1.0}, options={"illegal_angle": options})

    for pose in poses:
        for handedness, other in (("right", "left"), ("left", "right")):
            expected = loss(pose, handedness=handedness)
            assert expected > 0
            for same in (
                loss(pose * REFLECTION, handedness=other),
                loss((pose * REFLECTION)[:, MIRROR], handedness=handedness),
                loss(pose[:, MIRROR], handedness=other),
                loss(pose @ rotation, handedness=handedness),
                loss(pose + 5.0, handedness=handedness),
                loss(1000 * pose, handedness=handedness, scale=1e-3),
            ):
                assert_close_values(same, expected, relative=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_share_of_real_frames_that_bend_the_wrong_way(real_mocap, backend):
    with np.load(real_mocap) as archive:
        poses = torch.from_numpy(np.concatenate([archive[key] for key in archive if key != "meta"])).double()
    # One frame a clip. A hinge is violated where its last joint, wrist or ankle, has a gradient.
    _, gradient = value_and_grad(
        lambda p: objective(backend, p, None, {"illegal_angle": 1.0}, reduction="sum"), poses[:, None]
    )
    violated = torch.stack([(gradient[:, 0, joints[-1]] != 0).any(-1) for joints in HINGES.values()])
    shares = 100 * torch.cat([violated, violated.any(0)[None]]).double().mean(1)
    assert [round(share, 1) for share in shares.tolist()] == [3.6, 1.0, 0.6, 0.5, 5.0]

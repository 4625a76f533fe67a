"""Synthetic negatives: what each fault does to a pose, measured in numpy, on every skeleton."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from structloss import skeletons
from structloss.errors import ArgumentError, DtypeError, UnknownNameError
from structloss.learned.negatives import CORRUPTIONS, corrupt

H36M = skeletons.get("h36m")
SKELETONS = ("h36m", "mpi_inf_3dhp", "coco", "h3wb", "mpii")
DRAWN = [name for name in CORRUPTIONS if name != "mirrored_depth"]
SINGLE = [name for name, c in CORRUPTIONS.items() if name != "other_pose" and not c.temporal]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def poses(skeleton, *shape, seed=5, dtype=torch.float64):
    """People of different size and posture, in metres and relative to their pelvis."""
    pose = 0.3 * torch.randn(*shape, skeleton.num_joints, 3, generator=seeded(seed), dtype=torch.float64)
    return (pose - pose[..., list(skeleton.pelvis), :].mean(-2, keepdim=True)).to(dtype)


def mean_distance(a, b):
    return (a - b).norm(dim=-1).mean().item()


def bone_vectors(pose, bones):
    pose = pose.numpy()
    return np.stack([pose[..., c, :] - pose[..., p, :] for c, p in bones], -2)


def tree_bones(skeleton):
    return [(c, p) for c, p in skeleton.bones if skeleton.parents[c] == p]


def named(skeleton, *words):
    """Joints whose name has one of the words, side apart: {left: right}."""
    keys = {n.lower().replace("_", ""): j for j, n in enumerate(skeleton.joint_names)}
    pairs = {}
    for key, joint in keys.items():
        for left, right in (("left", "right"), ("l", "r")):
            part = key.removeprefix(left)
            if part != key and right + part in keys and any(part.startswith(word) for word in words):
                pairs[joint] = keys[right + part]
                break
    return pairs


# Noise


@pytest.mark.parametrize("name", ["h36m", "coco"])
def test_noise_is_normal_and_recentred(name):
    body = skeletons.get(name)
    pose = poses(body, 20_000)
    off = (corrupt("noise", pose, body, size=25.0, generator=seeded()) - pose).numpy() * 1000
    roots = list(body.pelvis)
    np.testing.assert_allclose(off[:, roots].mean(1), 0, atol=1e-9)
    free = [j for j in range(body.num_joints) if j not in roots]
    # The pelvis' own noise is taken off every joint: variances add, and joints share the pelvis' part.
    one, both = 25.0**2, 25.0**2 / len(roots)
    np.testing.assert_allclose(off[:, free].var(0), one + both, rtol=0.06)
    a, b = off[:, free[0]], off[:, free[5]]
    np.testing.assert_allclose((a * b).mean(0), both, rtol=0.15)
    np.testing.assert_allclose(off.mean(0), 0, atol=1.2)
    assert abs((off[:, free] ** 4).mean() / (one + both) ** 2 - 3) < 0.05


# Bones


@pytest.mark.parametrize("name", SKELETONS)
def test_rotation_keeps_lengths_and_turns_by_the_angle(name):
    body = skeletons.get(name)
    pose, bones = poses(body, 3000 if body.num_joints < 20 else 300), tree_bones(body)
    out = corrupt("bone_rotation", pose, body, size=20.0, generator=seeded())
    v, w = bone_vectors(pose, bones), bone_vectors(out, bones)
    length = np.linalg.norm(v, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(w, axis=-1), length, rtol=1e-10)
    every = body.bones  # links across the trunk too
    for before, after in zip(
        bone_vectors(pose, every).swapaxes(0, 1), bone_vectors(out, every).swapaxes(0, 1), strict=True
    ):
        np.testing.assert_allclose(np.linalg.norm(after, axis=-1), np.linalg.norm(before, axis=-1), rtol=1e-10)

    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(v, w), axis=-1), (v * w).sum(-1)))
    turned = angle > 1e-5
    assert angle[turned].min() >= 4 - 1e-9 and angle.max() <= 20 + 1e-9
    assert angle[turned].mean() == pytest.approx(12, abs=0.3)
    counts = turned.sum(-1)
    n = len(bones)
    assert counts.min() >= 1 and counts.max() <= n
    assert counts.mean() == pytest.approx((n + 1) / 2, rel=0.1)
    assert turned.mean(0).std() < 0.06, "no bone is preferred"
    if n <= 16:
        expected = len(counts) / n
        histogram = np.bincount(counts, minlength=n + 1)[1:]
        assert ((histogram - expected) ** 2 / expected).sum() < 45, "each number is equally likely"  # chi-square, 15
    # The rest of the tree keeps its shape: only bones turn, what hangs on them is carried along.
    rest = [(c, p) for c, p in enumerate(body.parents) if p >= 0 and (c, p) not in bones]
    if rest:
        np.testing.assert_allclose(bone_vectors(out, rest), bone_vectors(pose, rest), atol=1e-12)


def test_rotation_goes_everywhere_around_the_bone():
    pose = poses(H36M, 1).expand(20_000, 17, 3)
    bone = [(2, 1)]
    v, w = bone_vectors(pose, bone)[0, 0], bone_vectors(corrupt("bone_rotation", pose, H36M, size=15.0), bone)[:, 0]
    axis = v / np.linalg.norm(v)
    aside = w - (w @ axis)[:, None] * axis
    aside = aside[np.linalg.norm(aside, axis=-1) > 1e-9]
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    e = np.linalg.svd(axis[None])[2][1:]  # a basis of the plane
    direction = np.arctan2(aside @ e[0], aside @ e[1])
    histogram = np.histogram(direction, 12, (-np.pi, np.pi))[0]
    expected = len(direction) / 12
    assert ((histogram - expected) ** 2 / expected).sum() < 35  # chi-square, 11 degrees of freedom


def test_shared_rotation_is_one_rotation_of_the_moving_bone():
    bones = tree_bones(H36M)
    pose = poses(H36M, 60, 9)
    out = corrupt("bone_rotation", pose, H36M, size=15.0, shared_frames=True, generator=seeded())
    v, w = bone_vectors(pose, bones), bone_vectors(out, bones)
    np.testing.assert_allclose(np.linalg.norm(w, axis=-1), np.linalg.norm(v, axis=-1), rtol=1e-10)
    turned = 0
    for clip in range(60):
        for bone in range(16):
            rotation, *_ = np.linalg.lstsq(v[clip, :, bone], w[clip, :, bone])
            np.testing.assert_allclose(v[clip, :, bone] @ rotation, w[clip, :, bone], atol=1e-9)
            a, b = v[clip, 4, bone], w[clip, 4, bone]
            if np.abs(a - b).max() > 1e-9:
                angle = np.degrees(np.arccos(a @ b / (a @ a)))
                assert angle == pytest.approx(np.degrees(np.arccos((np.trace(rotation) - 1) / 2)), abs=1e-4)
                assert 3 - 1e-6 < angle < 15 + 1e-6
                turned += 1
    assert turned == pytest.approx(60 * 8.5, rel=0.2)


@pytest.mark.parametrize("name", SKELETONS)
def test_scaling_of_one_limb_or_all(name):
    body = skeletons.get(name)
    pose, bones = poses(body, 1500), tree_bones(body)
    out = corrupt("bone_scaling", pose, body, size=0.4, generator=seeded())
    v, w = bone_vectors(pose, bones), bone_vectors(out, bones)
    factor = (v * w).sum(-1) / (v * v).sum(-1)
    np.testing.assert_allclose(w, factor[..., None] * v, atol=1e-12)  # no bone turns
    arm, leg = named(body, "shoulder", "elbow", "wrist"), named(body, "hip", "knee", "ankle", "foot")
    sides = [set(arm), set(arm.values()), set(leg), set(leg.values())]
    kinds = [[c in side and p in side for c, p in bones] for side in sides] + [[True] * len(bones)]
    if name in ("h36m", "mpi_inf_3dhp", "mpii"):
        assert [sum(kind) for kind in kinds] == [2, 2, 2, 2, len(bones)]
    found = np.zeros(5, int)
    changes = []
    for row in factor - 1:
        changed = np.abs(row) > 1e-9
        found[[list(changed) == kind for kind in kinds].index(True)] += 1
        np.testing.assert_allclose(row[changed], row[changed][0], atol=1e-11)
        changes.append(row[changed][0])
    changes = np.array(changes)
    assert found.min() > 240 and found.max() < 360  # 300 expected, standard deviation 15.5
    assert np.abs(changes).min() >= 0.2 - 1e-9 and np.abs(changes).max() <= 0.4 + 1e-9
    assert np.abs(changes).mean() == pytest.approx(0.3, abs=0.01)
    assert (changes > 0).mean() == pytest.approx(0.5, abs=0.06)


# Joints and frames that change places


@pytest.mark.parametrize("name", SKELETONS)
def test_swaps_of_arms_legs_or_all(name):
    body = skeletons.get(name)
    arms = named(body, "shoulder", "elbow", "wrist")
    legs = named(body, "hip", "knee", "ankle", "foot")
    if name == "h3wb":
        arms |= {91 + i: 112 + i for i in range(21)}
        legs |= {17: 20, 18: 21, 19: 22}
    elif name in ("h36m", "mpi_inf_3dhp", "mpii"):
        assert len(arms) == len(legs) == 3
    everything = dict(zip(body.left, body.right, strict=True))
    pose = poses(body, 600)
    expected = []
    for pairs in (arms, legs, everything):
        swapped = pose.numpy().copy()
        for left, right in pairs.items():
            swapped[:, [left, right]] = swapped[:, [right, left]]
        expected.append(swapped)
    out = corrupt("limb_swap", pose, body, generator=seeded()).numpy()
    fits = np.stack([np.abs(out - e).max((-2, -1)) < 1e-12 for e in expected])
    assert (fits.sum(0) == 1).all() and (fits.sum(1) > 150).all()
    half = corrupt("limb_swap", pose, body, size=0.5, generator=seeded()).numpy()
    np.testing.assert_allclose(half, (pose.numpy() + out) / 2, atol=1e-12)


@pytest.mark.parametrize("name", SKELETONS)
def test_mirrored_depth(name):
    body = skeletons.get(name)
    pose = poses(body, 3, 4)
    flipped = pose.numpy() * np.array([1, 1, -1.0])
    np.testing.assert_allclose(corrupt("mirrored_depth", pose, body).numpy(), flipped, atol=1e-12)
    quarter = corrupt("mirrored_depth", pose + 3.0, body, size=0.25).numpy()  # of a pose that is not centred
    np.testing.assert_allclose(quarter, pose.numpy() * 0.75 + 0.25 * flipped, atol=1e-12)


@pytest.mark.parametrize("name", SKELETONS)
def test_joints_shuffled_in_one_circle(name):
    body = skeletons.get(name)
    most = 33 if name == "h3wb" else 4
    pose = poses(body, 400)
    out = corrupt("joint_shuffle", pose, body, generator=seeded())
    counts, starts = [], []
    for before, after in zip(pose.numpy(), out.numpy(), strict=True):
        near = np.abs(after[:, None] - before[None]).max(-1)
        source = near.argmin(1)
        assert near.min(1).max() < 1e-12 and len(set(source)) == body.num_joints
        assert all(source[j] == j for j in body.pelvis)
        moved = np.flatnonzero(source != np.arange(body.num_joints))
        circle, joint = [moved[0]], source[moved[0]]
        while joint != moved[0]:
            circle.append(joint)
            joint = source[joint]
        assert sorted(circle) == moved.tolist()
        counts.append(len(moved))
        starts.extend(moved)
    assert min(counts) == 2 and max(counts) == most
    assert np.mean(counts) == pytest.approx((2 + most) / 2, rel=0.1)
    assert set(starts) == set(range(body.num_joints)) - set(body.pelvis)


def test_other_pose_is_another_sample():
    pose = poses(H36M, 2, 3)
    flat = pose.view(6, 17, 3)
    shifts = set()
    for seed in range(60):
        out = corrupt("other_pose", pose, H36M, generator=seeded(seed)).view(6, 17, 3)
        fits = [s for s in range(6) if np.array_equal(np.roll(flat.numpy(), s, 0), out.numpy())]
        assert len(fits) == 1
        shifts.update(fits)
    assert shifts == {1, 2, 3, 4, 5}

    clips = poses(H36M, 2, 2, 5)
    out = corrupt("other_pose", clips, H36M, shared_frames=True).view(4, 5, 17, 3)
    source = [[torch.equal(a, b) for b in clips.view(4, 5, 17, 3)] for a in out]
    assert np.sum(source) == 4 and not np.diag(source).any()
    half = corrupt("other_pose", pose[:, :1], H36M, size=0.5)
    torch.testing.assert_close(half, (pose[:, :1] + pose[:, :1].flip(0)) / 2)


@pytest.mark.parametrize(
    "size, frames, in_window", [(1.0, 27, 9), (0.5, 27, 4), (0.01, 27, 2), (1.0, 2, 2), (0.7, 9, 6)]
)
def test_frames_shuffled_within_windows(size, frames, in_window):
    pose = poses(H36M, 40, frames)
    out = corrupt("shuffled_frames", pose, H36M, size=size, generator=seeded())
    orders = set()
    for before, after in zip(pose.numpy(), out.numpy(), strict=True):
        source = np.abs(after[:, None] - before[None]).max((-2, -1)).argmin(1)
        np.testing.assert_array_equal(after, before[source])
        assert sorted(source) == list(range(frames))
        assert (source // 9 == np.arange(frames) // 9).all()
        moved = (source != np.arange(frames)).reshape(-1, min(frames, 9)).sum(1)
        assert (moved == in_window).all()
        orders.add(tuple(source))
    assert len(orders) > 20 or frames == 2


def test_last_window_of_frames():
    """12 frames are windows of 9 and 3; 10 are 9 and one frame, which has nowhere to go."""
    for frames, last in ((12, 3), (10, 0)):
        pose = poses(H36M, 8, frames)
        moved = (corrupt("shuffled_frames", pose, H36M) != pose).any(-1).any(-1)
        assert moved[:, :9].all() and (moved[:, 9:].sum(1) == last).all()


# What all corruptions have in common


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("body", SKELETONS)
def test_every_skeleton(body, name):
    body, corruption = skeletons.get(body), CORRUPTIONS[name]
    pose = poses(body, 6, 18)
    kept = pose.clone()
    unchanged = corrupt(name, pose, body, size=0.0)
    torch.testing.assert_close(unchanged, pose, rtol=0, atol=1e-12)
    sizes = corruption.sweep
    assert list(sizes) == sorted(set(sizes)) and sizes[0] > 0 and corruption.default <= corruption.largest >= sizes[-1]
    sweep = [corrupt(name, pose, body, size=size, generator=seeded()) for size in sizes]
    distances = [mean_distance(out, pose) for out in sweep]
    assert distances[0] > 1e-4 and all(a < b for a, b in pairwise(distances))
    for out in sweep:
        assert out.shape == pose.shape and out.dtype == pose.dtype and torch.isfinite(out).all()
        assert out[..., list(body.pelvis), :].mean(-2).abs().max() < 1e-12
    by_default = corrupt(name, pose, body, generator=seeded())
    assert torch.equal(by_default, corrupt(name, pose, body, size=corruption.default, generator=seeded()))
    assert torch.equal(pose, kept)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_generators(name):
    pose = poses(H36M, 4, 9)
    before = torch.get_rng_state()
    a, b, c = (corrupt(name, pose, H36M, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b) and (name not in DRAWN or name == "other_pose" or not torch.equal(a, c))
    outs = []
    for _ in range(2):
        torch.manual_seed(3)
        outs.append(corrupt(name, pose, H36M))
    assert torch.equal(*outs)


@pytest.mark.parametrize("name", SINGLE)
def test_shared_frames(name):
    """Frames of a clip get the same fault: a person that stands still does so afterwards; without it, it jitters."""
    still = poses(H36M, 5, 1).expand(5, 7, 17, 3)
    shared = corrupt(name, still, H36M, shared_frames=True, generator=seeded())
    assert shared.shape == still.shape and mean_distance(shared, still) > 1e-3
    assert (shared - shared[:, :1]).abs().max() < 1e-12
    each = corrupt(name, still, H36M, generator=seeded())
    if name in DRAWN:
        assert (each - each[:, :1]).abs().amax((-2, -1))[:, 1:].gt(1e-6).any(1).all()
        fault = shared[:, 0] - still[:, 0]
        assert len({tuple(f.abs().gt(1e-9).flatten().tolist()) for f in fault}) > 1 or name == "noise"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shapes(name):
    if name in SINGLE:
        one = poses(H36M)
        assert corrupt(name, one, H36M).shape == (17, 3)
    for shape in ((0, 9), (3, 0), (2, 0, 9)):
        if name != "shuffled_frames" or shape[-1]:
            assert corrupt(name, poses(H36M, *shape), H36M).shape == (*shape, 17, 3)
        if shape[-1]:
            assert corrupt(name, poses(H36M, *shape), H36M, shared_frames=True).shape == (*shape, 17, 3)
    deep = poses(H36M, 2, 3, 9)
    for shared in (False, True):
        out = corrupt(name, deep, H36M, shared_frames=shared, generator=seeded())
        wide = torch.stack([deep, deep], -1)[..., 0]  # strided
        assert not wide.is_contiguous()
        assert torch.equal(corrupt(name, wide, H36M, shared_frames=shared, generator=seeded()), out)
        folded = corrupt(name, deep.view(6, 9, 17, 3), H36M, shared_frames=shared, generator=seeded())
        assert torch.equal(folded.view_as(deep), out)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_dtypes_and_gradient(name):
    pose = poses(H36M, 4, 9)
    exact = corrupt(name, pose, H36M, generator=seeded())
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)):
        out = corrupt(name, pose.to(dtype), H36M, generator=seeded())
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=tolerance)
    assert not corrupt(name, pose.requires_grad_(), H36M).requires_grad


def test_a_bone_of_no_length_stays():
    pose = torch.zeros(50, 17, 3, dtype=torch.float64)
    for name in ("bone_rotation", "bone_scaling"):
        assert torch.equal(corrupt(name, pose, H36M), pose)


def test_sizes_on_real_motion(real_mocap):
    """Bone rotation is 10 to 64 mm off for most poses, and noise by default as much on average."""
    from structloss.data import load_archive

    clips, _ = load_archive(real_mocap)
    pose = torch.from_numpy(np.concatenate([clip.positions for clip in clips]))[::5]
    pose = pose - pose[:, :1]

    def off(name):
        return 1000 * (corrupt(name, pose, H36M, generator=seeded()) - pose).norm(dim=-1).mean(-1)

    low, high = off("bone_rotation").quantile(torch.tensor([0.1, 0.9])).tolist()
    assert 8.5 < low < 11 and 56 < high < 65
    assert off("noise").mean().item() == pytest.approx(off("bone_rotation").mean().item(), rel=0.12)


# Bad input

P = torch.zeros(2, 9, 17, 3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: corrupt("bone_rotaton", P, H36M), UnknownNameError, "unknown corruption 'bone_rotaton': did you mean"),
        (lambda: corrupt("noise", P[..., :16, :], H36M), ArgumentError, r"pose has shape \[2, 9, 16, 3\], expected"),
        (lambda: corrupt("noise", P[..., :2], H36M), ArgumentError, r"expected \[\.\.\., 17, 3\] for 'h36m'"),
        (lambda: corrupt("noise", P[0, 0], H36M, shared_frames=True), ArgumentError, r"expected \[\.\.\., T, 17, 3\]"),
        (lambda: corrupt("shuffled_frames", P[0, 0], H36M), ArgumentError, r"expected \[\.\.\., T, 17, 3\]"),
        (lambda: corrupt("shuffled_frames", P[:, :1], H36M), ArgumentError, "expected at least two frames"),
        (lambda: corrupt("other_pose", P[:1, :1], H36M), ArgumentError, "expected at least two poses to exchange"),
        (lambda: corrupt("other_pose", P[:1], H36M, shared_frames=True), ArgumentError, "expected at least two clips"),
        (lambda: corrupt("noise", P.long(), H36M), DtypeError, "pose has dtype torch.int64"),
        (lambda: corrupt("noise", P.numpy(), H36M), DtypeError, "pose is a numpy array"),
        (lambda: corrupt("noise", P, "h36m"), ArgumentError, "skeleton is 'h36m', expected what"),
        (lambda: corrupt("noise", P, H36M, size=-1), ArgumentError, "size is -1, expected a finite number >= 0"),
        (lambda: corrupt("noise", P, H36M, size=float("nan")), ArgumentError, "size is nan"),
        (lambda: corrupt("limb_swap", P, H36M, size=1.5), ArgumentError, "size is 1.5, expected a number from 0 to 1"),
        (lambda: corrupt("bone_rotation", P, H36M, size=181), ArgumentError, "from 0 to 180 for 'bone_rotation'"),
        (lambda: corrupt("bone_scaling", P, H36M, size=True), ArgumentError, "size is True"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)

"""Cameras, the 2.5D image space and the simulated detector."""

import numpy as np
import pytest
import torch

from structloss.data import (
    H36M_SUBJECTS,
    TARGETS,
    denormalize_screen,
    flip,
    flip_batch,
    generate_clips,
    h36m_cameras,
    normalize_screen,
    occlusion,
    simulate_detections,
    to_image_space,
    to_millimetres,
)
from structloss.errors import ArgumentError, UnknownNameError
from structloss.skeletons import get

H36M = get("h36m")


@pytest.fixture(scope="module")
def walk():
    return generate_clips(1, 1, 300, seed=5, actions=("walk",))[0]


def side_info(pose, k):
    return {
        "root_depth": pose[..., 0, 2],
        "intrinsics": k,
        "factor": pose[..., 0, 2] * 1000 / k[..., :1],
        "camera_pose": pose * 1000,
    }


# Cameras ------------------------------------------------------------------------------------------------------------


def test_every_rig_is_four_rotations_that_look_at_the_origin():
    assert H36M_SUBJECTS == ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    for subject in H36M_SUBJECTS:
        cameras = h36m_cameras(subject)
        assert [c.id for c in cameras] == ["54138969", "55011271", "58860488", "60457274"]
        assert [(c.width, c.height) for c in cameras] == [(1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002)]
        for c in cameras:
            np.testing.assert_allclose(c.rotation @ c.rotation.T, np.eye(3), atol=1e-12)
            assert np.linalg.det(c.rotation) == pytest.approx(1)
            up = c.rotation @ [0, 0, 1]  # y is down in the image
            assert up[1] < -0.9
            u, v = c.project(c.to_camera(np.array([0, 0, 0.9])))
            assert abs(u - 500) < 250 and abs(v - 500) < 250
            assert 3 < np.linalg.norm(c.position) < 6


def test_rotation_is_that_of_the_quaternion():
    """S1's first camera by the quaternion sandwich instead of a matrix."""
    q = np.array([0.14070565, -0.15007018, -0.7552408, 0.62232804])
    point, position = np.array([0.3, -0.7, 1.2]), np.array([1.841107, 4.9552847, 1.5634454])

    def product(a, b):
        return np.concatenate([[a[0] * b[0] - a[1:] @ b[1:]], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])])

    conjugate = q * [1, -1, -1, -1]
    expected = product(product(conjugate, np.concatenate([[0], point - position])), q)[1:]
    np.testing.assert_allclose(h36m_cameras("S1")[0].to_camera(point), expected, atol=1e-6)


def test_projection_by_the_written_formula():
    c = h36m_cameras("S9")[2]
    x, y, z = 0.9, -0.6, 4.2
    px, py = x / z, y / z
    r2 = px * px + py * py
    k1, k2, k3 = c.radial
    t1, t2 = c.tangential
    gain = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + t1 * px + t2 * py
    expected = [
        c.focal[0] * (px * gain + t1 * r2) + c.center[0],
        c.focal[1] * (py * gain + t2 * r2) + c.center[1],
    ]
    np.testing.assert_allclose(c.project(np.array([x, y, z])), expected, rtol=1e-12)
    linear = [c.focal[0] * px + c.center[0], c.focal[1] * py + c.center[1]]
    np.testing.assert_allclose(c.project(np.array([x, y, z]), distort=False), linear, rtol=1e-12)
    # clamped: far to the side the image does not move any further
    np.testing.assert_array_equal(c.project(np.array([9.0, 0, 1])), c.project(np.array([5.0, 0, 1])))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_screen_round_trip_and_corners(kind):
    xy = np.array([[0.0, 0.0], [1000.0, 1002.0], [500.0, 501.0], [123.4, 876.5]])
    xy = torch.from_numpy(xy) if kind == "torch" else xy
    screen = normalize_screen(xy, 1000, 1002)
    np.testing.assert_allclose(screen[:3], [[-1, -1.002], [1, 1.002], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(denormalize_screen(screen, 1000, 1002), xy, atol=1e-9)


def test_screen_intrinsics_are_the_normalised_pinhole(walk):
    c = h36m_cameras("S5")[3]
    points = c.to_camera(walk.positions)
    k = c.screen_intrinsics()
    expected = normalize_screen(c.project(points, distort=False), c.width, c.height)
    np.testing.assert_allclose(points[..., :2] / points[..., 2:] * k[:2] + k[2:], expected, atol=1e-12)


def test_camera_errors():
    with pytest.raises(UnknownNameError, match="'S2'"):
        h36m_cameras("S2")
    with pytest.raises(ArgumentError, match=r"points has shape \[17, 2\]"):
        h36m_cameras("S1")[0].to_camera(np.zeros((17, 2)))
    with pytest.raises(ArgumentError, match=r"xy has shape \[3\]"):
        normalize_screen(np.zeros(3), 1000, 1000)
    with pytest.raises(ArgumentError, match="positive"):
        normalize_screen(np.zeros(2), 0, 1000)


# 2.5D image space ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_millimetres_invert_the_image_space(walk, target):
    for subject in ("S1", "S9"):
        poses = [torch.from_numpy(c.to_camera(walk.positions).astype(np.float32)) for c in h36m_cameras(subject)]
        pose = torch.stack(poses)  # [4, T, 17, 3]
        k = torch.from_numpy(np.stack([c.screen_intrinsics() for c in h36m_cameras(subject)])).float()
        image = to_image_space(pose, k, target)
        back = to_millimetres(image, side_info(pose, k), target)
        assert back.dtype == torch.float32
        assert (back - pose * 1000).abs().max() < 0.01
        one = to_millimetres(image[2], {key: v[2] for key, v in side_info(pose, k).items()}, target)
        torch.testing.assert_close(one, back[2], rtol=0, atol=2e-3)


def test_image_space_is_the_published_one(walk):
    """u, v and depth in pixels by hand, then normalised by half of the width."""
    c = h36m_cameras("S1")[0]
    points = c.to_camera(walk.positions)
    ratio = c.focal[0] / points[:, 0, 2]  # pixels a metre at the root
    depth = ratio[:, None] * (points[..., 2] - points[0, 0, 2])
    uv = normalize_screen(c.project(points, distort=False), c.width, c.height)
    expected = np.concatenate([uv, 2 * depth[..., None] / c.width], axis=-1)
    k = torch.from_numpy(c.screen_intrinsics())
    image = to_image_space(torch.from_numpy(points), k, "global")
    np.testing.assert_allclose(image, expected, atol=1e-12)
    assert image[0, 0, 2] == 0 and image[-1, 0, 2].abs() > 1e-3  # the root moves in depth
    relative = to_image_space(torch.from_numpy(points), k, "root_relative")
    np.testing.assert_allclose(relative, expected - expected[:, :1], atol=1e-12)


def test_a_depth_error_is_scored_in_millimetres(walk):
    """One joint pushed 100 mm away along its ray."""
    c = h36m_cameras("S1")[1]
    pose = torch.from_numpy(c.to_camera(walk.positions)[:5].astype(np.float32))
    k = torch.from_numpy(c.screen_intrinsics()).float()
    info = side_info(pose, k)
    prediction = to_image_space(pose, k)
    prediction[2, 13, 2] += 100 / info["factor"][2]
    error = to_millimetres(prediction, info) - pose * 1000
    assert error[2, 13, 2] == pytest.approx(100, abs=0.01)
    ray = pose[2, 13] / pose[2, 13, 2]
    torch.testing.assert_close(error[2, 13], 100 * ray, rtol=0, atol=0.02)
    error[2, 13] = 0
    assert error.abs().max() < 0.01


def test_half_precision_is_computed_in_float32(walk):
    c = h36m_cameras("S1")[1]
    pose = torch.from_numpy(c.to_camera(walk.positions)[:5].astype(np.float32))
    k = torch.from_numpy(c.screen_intrinsics()).float()
    image = to_image_space(pose, k).bfloat16()
    out = to_millimetres(image, side_info(pose, k))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, to_millimetres(image.float(), side_info(pose, k)))


def test_image_space_errors(walk):
    pose = torch.rand(4, 17, 3) + 4
    k = torch.tensor([2.3, 2.3, 0.0, 0.0])
    with pytest.raises(ArgumentError, match="target is 'relative'"):
        to_image_space(pose, k, "relative")
    with pytest.raises(ArgumentError, match="no 'factor'"):
        to_millimetres(pose, {"root_depth": pose[..., 0, 2], "intrinsics": k})
    with pytest.raises(ArgumentError, match=r"prediction has shape \[1, 17, 3\]"):
        to_millimetres(pose[:1], side_info(pose, k))


# Flips --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_flip_twice_is_the_identity_and_swaps_sides(channels):
    pose = torch.randn(2, 5, 17, channels)
    before = pose.clone()
    once = flip(pose, H36M)
    torch.testing.assert_close(pose, before, rtol=0, atol=0)
    torch.testing.assert_close(flip(once, H36M), pose, rtol=0, atol=0)
    torch.testing.assert_close(once[..., 3, 0], -pose[..., 6, 0])  # right ankle from the left one
    torch.testing.assert_close(once[..., 16, 1:], pose[..., 13, 1:])
    torch.testing.assert_close(once[..., 0, 0], -pose[..., 0, 0])


def test_flip_keeps_limbs_legal(walk):
    """A mirrored left elbow bends like a right one."""
    mirrored = flip(torch.from_numpy(walk.positions), H36M).numpy()
    for hinge in H36M.hinges:
        c, s, e, w = (mirrored[:, j] for j in hinge.joints)
        side = (np.cross(s - c, e - s) * (w - e)).sum(-1) * hinge.legal_sign
        assert (side > 0).all()


def test_flip_batch_touches_the_masked_samples_only():
    batch = {
        "input": torch.randn(4, 6, 17, 3),
        "target": torch.randn(4, 6, 17, 3),
        "weight": torch.rand(4, 6, 17),
        "camera_pose": torch.randn(4, 6, 17, 3),
        "clip": torch.arange(4),
    }
    before = {key: value.clone() for key, value in batch.items()}
    mask = torch.tensor([True, False, True, False])
    out = flip_batch(batch, mask, H36M)
    for key, value in before.items():
        torch.testing.assert_close(batch[key], value, rtol=0, atol=0)  # the batch itself is not changed
        torch.testing.assert_close(out[key][~mask], value[~mask], rtol=0, atol=0)
    torch.testing.assert_close(out["camera_pose"], before["camera_pose"])
    torch.testing.assert_close(out["target"][mask], flip(before["target"][mask], H36M))
    torch.testing.assert_close(out["weight"][mask][..., 3], before["weight"][mask][..., 6])
    again = flip_batch(out, mask, H36M)
    for key in ("input", "target", "weight"):
        torch.testing.assert_close(again[key], before[key], rtol=0, atol=0)
    with pytest.raises(ArgumentError, match=r"torch.bool \[4\]"):
        flip_batch(batch, mask[:2], H36M)


# Simulated detections -----------------------------------------------------------------------------------------------


def arms_out(depth_of_wrist):
    """A person facing the camera whose right wrist is in front of, beside or behind the trunk's axis."""
    pose = np.zeros((17, 3))
    pose[:, 2] = 5.0
    pose[:, 1] = [0, 0, 0.42, 0.84, 0, 0.42, 0.84, -0.23, -0.47, -0.6, -0.75, -0.45, -0.2, 0.05, -0.45, -0.2, -0.23]
    pose[:, 0] = [0, -0.12, -0.12, -0.12, 0.12, 0.12, 0.12, 0, 0, 0, 0, 0.17, 0.2, 0.22, -0.17, -0.2, 0.0]
    pose[16, 2] = 5.0 + depth_of_wrist
    return pose


def test_occlusion_follows_the_depth_order():
    depths = np.linspace(-0.4, 0.4, 41)
    hidden = occlusion(np.stack([arms_out(d) for d in depths]))
    assert hidden.dtype == np.float32 and hidden.min() >= 0 and hidden.max() <= 1
    wrist = hidden[:, 16]
    assert (np.diff(wrist) >= -1e-6).all()  # never less hidden when farther back
    assert wrist[0] == 0 and wrist[-1] > 0.95
    assert hidden[:, 13].max() < 0.05  # the other wrist hangs beside the body


def test_more_bones_in_front_hide_more():
    one, two = arms_out(0.10), arms_out(0.10)
    two[12], two[13] = [0.05, -0.23, 4.7], [-0.15, -0.23, 4.7]  # the left forearm crosses in front as well
    assert occlusion(two)[16] > occlusion(one)[16] + 0.05


def test_occlusion_does_not_depend_on_where_the_person_stands():
    near, far = arms_out(0.2), arms_out(0.2)
    far[:, 2] += 2
    assert abs(occlusion(near)[16] - occlusion(far)[16]) < 0.05


def detect(clip, seed, **options):
    camera = h36m_cameras("S1")[0]
    points = camera.to_camera(clip.centred().positions)
    pixels = camera.project(points)
    found = simulate_detections(points, pixels, camera, np.random.default_rng(seed), **options)
    return (*found, np.linalg.norm(found[0] - pixels, axis=-1))


def test_detector_errors_scores_and_occlusion_hang_together():
    clips = generate_clips(2, 6, 400, seed=1)
    results = [detect(clip, i) for i, clip in enumerate(clips)]
    keypoints, confidence, hidden, error = (np.concatenate(x) for x in zip(*results, strict=True))
    assert keypoints.dtype == confidence.dtype == hidden.dtype == np.float32
    assert confidence.min() > 0 and confidence.max() < 1
    visible, covered = hidden < 0.1, hidden > 0.7
    assert 0.02 < covered.mean() < 0.4
    assert 2 < error[visible].mean() < 5
    assert error[covered].mean() > 2.5 * error[visible].mean()
    assert confidence[visible].mean() > confidence[covered].mean() + 0.3
    assert np.corrcoef(error.ravel(), confidence.ravel())[0, 1] < -0.6
    # knows about its errors beyond knowing what is hidden
    assert np.corrcoef(error[visible], confidence[visible])[0, 1] < -0.3


def test_detector_error_is_slow_and_its_size_can_be_set(walk):
    still = type(walk)(np.repeat(walk.positions[:1], 4000, axis=0), "a", "stand", "still")
    camera = h36m_cameras("S1")[0]
    points = camera.to_camera(still.positions)
    pixels = camera.project(points)
    found, *_ = simulate_detections(
        points, pixels, camera, np.random.default_rng(0), jitter=0, drift=3, hidden=0, swaps=False
    )
    error = (found - pixels) / (camera.focal[0] / points[:, :1, 2:] / 229)
    assert error.std() == pytest.approx(3, rel=0.1)
    lag = 12  # a quarter of a second at 50 fps: correlation 1/e
    r = np.mean(error[lag:] * error[:-lag]) / error.var()
    assert 0.28 < r < 0.48
    exact, *_ = simulate_detections(points, pixels, camera, np.random.default_rng(0), jitter=0, drift=0, swaps=False)
    np.testing.assert_allclose(exact, pixels, atol=1e-3)


def test_detector_is_deterministic_by_its_generator(walk):
    a, b, c = (detect(walk, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1
    with pytest.raises(ArgumentError, match=r"pixels has shape \[2, 17, 2\]"):
        simulate_detections(np.ones((3, 17, 3)), np.ones((2, 17, 2)), h36m_cameras("S1")[0], np.random.default_rng(0))

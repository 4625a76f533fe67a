"""Windows drawn anew: bodies, cameras, rates, detections and COCO's joints, and the data module's options for them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from structloss.data import Clip, MotionDataModule, PoseWindows, generate_clips, observe, open_store, save_store
from structloss.data.coco import to_coco
from structloss.data.conditions import Detections
from structloss.data.drawn import Drawing, DrawnWindows, RandomKeypoints, RandomViews, reshape_bodies
from structloss.data.drawn.bodies import GROUPS
from structloss.data.drawn.cameras import frame_of_up
from structloss.data.drawn.keypoints import autoregressive, normal_quantile
from structloss.data.loading import EpochSampler, window_loader
from structloss.data.windows import to_image_space
from structloss.errors import ArgumentError, DataError
from structloss.skeletons import convert, get

H36M = get("h36m")
BONES = [parent for _, parent in sorted(H36M.bones)]  # parents of the joints 1 to 16
CLIPS = generate_clips(2, 3, 90, seed=3)
EVERYTHING = Drawing(RandomViews(), 0.12, (20.0, 60.0), RandomKeypoints(), 0.5)


def lengths(poses: np.ndarray) -> np.ndarray:
    return np.linalg.norm(poses[..., 1:, :] - poses[..., BONES, :], axis=-1)


def walking(batch: int, frames: int = 20) -> np.ndarray:
    return np.stack([CLIPS[i % len(CLIPS)].positions[:frames] for i in range(batch)])


@pytest.fixture(scope="module")
def store():
    return observe(CLIPS, views=1, detections="exact")


# ---- bodies


def test_bones_get_their_factors_and_keep_their_directions():
    poses = walking(4).astype(np.float64)
    factors = np.random.default_rng(0).uniform(0.8, 1.2, (4, len(GROUPS)))
    made = reshape_bodies(poses, factors)
    of_joint = np.array([next(g for g, joints in enumerate(GROUPS) if joint in joints) for joint in range(1, 17)])
    np.testing.assert_allclose(lengths(made), lengths(poses) * factors[:, None, of_joint], rtol=1e-9)
    for joint, parent in H36M.bones:
        before, after = (p[:, :, joint] - p[:, :, parent] for p in (poses, made))
        np.testing.assert_allclose(np.cross(before, after), 0, atol=1e-9)
    np.testing.assert_array_equal(made[:, 0, 0], poses[:, 0, 0])  # it starts where it did
    path = made[:, -1, 0] - made[:, 0, 0]
    expected = (poses[:, -1, 0] - poses[:, 0, 0]) * factors[:, 1:3].mean(-1)[:, None]
    np.testing.assert_allclose(path, expected, atol=1e-9)
    np.testing.assert_allclose(reshape_bodies(poses, np.ones((4, len(GROUPS)))), poses, atol=1e-9)


@pytest.mark.parametrize(
    ("poses", "factors", "message"),
    [
        (np.zeros((2, 17, 3)), np.ones((2, 10)), "poses has shape [2, 17, 3], expected [B, T, 17, 3]"),
        (np.zeros((2, 5, 17, 3)), np.ones((2, 9)), "factors has shape [2, 9], expected [2, 10]"),
    ],
)
def test_bodies_of_other_shapes(poses, factors, message):
    with pytest.raises(ArgumentError) as error:
        reshape_bodies(poses, factors)
    assert message in str(error.value)


# ---- cameras


def test_a_drawn_camera_sees_the_same_body_from_where_it_says():
    poses, draws = walking(200), np.random.default_rng(1).random((200, 8))
    views = RandomViews()
    seen, k, up = views.see(poses, draws)
    np.testing.assert_allclose(lengths(seen), lengths(poses), atol=1e-5)
    np.testing.assert_allclose(_side(seen), _side(poses), atol=1e-5)  # turned, not mirrored
    # The vertical is that of the world: heights differ by the same.
    rise = np.einsum("btjc,bc->btj", (seen - seen[:, :, :1]).astype(np.float64), up)
    np.testing.assert_allclose(rise, poses[..., 2] - poses[:, :, :1, 2], atol=1e-4)
    middle = np.einsum("bij,bj->bi", frame_of_up(up), np.zeros((200, 3)) + up)
    np.testing.assert_allclose(middle, np.broadcast_to([0, 0, 1], middle.shape), atol=1e-9)
    # From the middle of what is seen the camera stands at the elevation, at least as far as it says.
    ball = (poses.min((1, 2)) + poses.max((1, 2))) / 2
    first = seen[:, 0, 0] + np.einsum("bij,bj->bi", _rotation(poses, seen), ball - poses[:, 0, 0])
    distance = np.linalg.norm(first, axis=-1)
    elevation = np.degrees(np.arcsin(-np.einsum("bc,bc->b", first, up) / distance))
    np.testing.assert_allclose(elevation, -20 + 70 * draws[:, 1], atol=0.02)
    assert (distance >= 2 + 8 * draws[:, 2] - 1e-3).all()
    focal = 2 * 0.7 * (3 / 0.7) ** draws[:, 3]
    np.testing.assert_allclose(k, np.stack([focal, focal, 0 * focal, 0 * focal], -1), rtol=1e-5)
    screen = seen[..., :2] / seen[..., 2:] * k[:, None, None, :2]
    aspect = 0.5625 * (1.7778 / 0.5625) ** draws[:, 5]
    inside = (np.abs(screen[..., 0]) <= 1) & (np.abs(screen[..., 1]) <= aspect[:, None, None])
    assert inside.mean() > 0.999 and seen[..., 2].min() > 0.99


def _side(p: np.ndarray) -> np.ndarray:
    """On which side of the plane through hips and thorax the right foot is: its sign is that of the handedness."""
    normal = np.cross(p[:, :, 4] - p[:, :, 1], p[:, :, 8] - p[:, :, 0])
    return np.einsum("btc,btc->bt", normal, p[:, :, 3] - p[:, :, 0])


def _rotation(poses: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The rotation from one to the other, by least squares (Kabsch)."""
    a, b = ((p - p.mean((1, 2), keepdims=True)).reshape(len(p), -1, 3).astype(np.float64) for p in (poses, seen))
    u, _, vt = np.linalg.svd(np.einsum("bni,bnj->bij", a, b))
    return np.swapaxes(u @ vt, 1, 2)


def test_people_off_the_centre_are_where_they_are_drawn():
    draws = np.full((2, 8), 0.5)
    draws[:, 2] = 1.0  # 10 m away
    draws[1, 6:] = 1.0, 0.0
    poses = walking(1, 1).repeat(2, axis=0)
    seen, k, _ = RandomViews(off_centre=1.0).see(poses, draws)
    screen = seen[..., :2] / seen[..., 2:] * k[:, None, None, :2]
    middle = (screen.min((1, 2)) + screen.max((1, 2))) / 2
    assert np.abs(middle[0]).max() < 0.05
    assert middle[1, 0] > 0.4 and middle[1, 1] < -0.3
    centred, _, _ = RandomViews(off_centre=0.0).see(poses, draws)
    np.testing.assert_array_equal(centred[0], centred[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elevation": (50, -20)}, "elevation of random_views is (50, -20), expected two numbers [least, most]"),
        ({"focal": (0, 3)}, "focal of random_views is (0, 3)"),
        ({"distance": 3}, "distance of random_views is 3"),
        ({"distance": (2, math.nan)}, "distance of random_views is (2, nan)"),
        ({"roll": -1}, "roll of random_views is -1, expected a number from 0 to 180"),
        ({"off_centre": True}, "off_centre of random_views is True"),
    ],
)
def test_impossible_views(settings, message):
    with pytest.raises(ArgumentError) as error:
        RandomViews(**settings)
    assert message in str(error.value)


# ---- COCO's joints


def test_the_face_is_in_front_and_turns():
    poses = CLIPS[0].positions.astype(np.float64)
    coco = to_coco(poses)
    ahead = np.cross(poses[:, 11] - poses[:, 14], poses[:, 10] - poses[:, 8])
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    nose = np.einsum("tc,tc->t", coco[:, 0] - poses[:, 9], ahead)
    np.testing.assert_allclose(nose, 0.105, atol=1e-9)
    left = np.einsum("tc,tc->t", coco[:, 1] - coco[:, 2], poses[:, 11] - poses[:, 14])
    assert (left > 0).all()  # the left eye is on the left
    turned = to_coco(poses, math.pi / 2)
    assert (np.einsum("tc,tc->t", turned[:, 0] - poses[:, 9], poses[:, 11] - poses[:, 14]) > 0.03).all()
    np.testing.assert_array_equal(coco[:, [5, 7, 9, 13, 15]], poses[:, [11, 12, 13, 5, 6]])
    wide = np.linalg.norm(coco[:, 11] - coco[:, 12], axis=-1) / np.linalg.norm(poses[:, 4] - poses[:, 1], axis=-1)
    np.testing.assert_allclose(wide, 1.25, rtol=1e-6)
    assert (coco[:, 11, 2] > poses[:, 4, 2]).mean() > 0.9


def test_cocos_joints_turn_with_the_body_and_make_ours_again():
    poses = CLIPS[1].positions.astype(np.float64)
    c, s = math.cos(2.0), math.sin(2.0)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    np.testing.assert_allclose(to_coco(poses @ turn.T, 0.3), to_coco(poses, 0.3) @ turn.T, atol=1e-9)
    made = convert(to_coco(poses), "coco", "h36m", variant="motionbert")
    off = np.linalg.norm(made - poses, axis=-1).mean(0)
    limbs = [2, 3, 5, 6, 11, 12, 13, 14, 15, 16]
    assert off[limbs].max() < 1e-9 and off[[0, 7, 8, 9, 10]].min() > 0.005 and off.max() < 0.2


# ---- detections


def test_autoregression_has_its_memory_and_variance():
    noise = np.random.default_rng(0).standard_normal((2, 400, 300))
    made = autoregressive(noise, np.array([1e-3, 10.0]))
    np.testing.assert_allclose(made[0], noise[0])
    for lag in (0, 1, 5, 10):
        found = (made[1, : 400 - lag] * made[1, lag:]).mean()
        assert found == pytest.approx(math.exp(-lag / 10), abs=0.03)


def test_normal_quantiles():
    share = np.array([0, 1e-6, 0.01, 0.1, 0.3, 0.5])
    expected = torch.special.ndtri(torch.from_numpy(share)).numpy()
    np.testing.assert_allclose(normal_quantile(share), expected, atol=5e-4)


def _detected(settings: RandomKeypoints, batch: int = 400, frames: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    screen = np.zeros((batch, frames, 17, 2))
    found = settings.detect(
        screen, np.full((batch, frames), 4.0), np.full(batch, 2.29), np.full(batch, 50.0),
        rng.random((batch, settings.UNIFORM)), rng.standard_normal((batch, frames, settings.NORMAL), dtype=np.float32),
    )  # fmt: skip
    return found, found[..., :2] * (4.0 / 2.29 * 229)  # in the pixels in which noise is said


def test_noise_is_as_large_as_it_says():
    found, pixels = _detected(RandomKeypoints(exact=0, noise=(3, 3), complete=1, lost=0, hidden=1))
    assert pixels.std() == pytest.approx(3.0, rel=0.02) and (found[..., 2] > 0).all()
    steps = np.diff(pixels, axis=1).std() / pixels.std()
    assert steps == pytest.approx(math.sqrt(2 * (1 - 0.5 * math.exp(-1 / 12.5))), rel=0.03)  # half of it lasts
    hidden = _detected(RandomKeypoints(exact=0, noise=(3, 3), complete=1, lost=0, hidden=4))[1]
    assert hidden.std() / pixels.std() == pytest.approx(math.sqrt(0.9332 + 0.0668 * 16), rel=0.05)


def test_windows_without_errors_are_exact():
    found, pixels = _detected(RandomKeypoints(exact=1.0))
    assert (pixels == 0).all() and (found[..., 2] == 1).all()
    found, pixels = _detected(RandomKeypoints(exact=0.4))
    assert (pixels == 0).all((1, 2, 3)).mean() == pytest.approx(0.4, abs=0.06)


def test_joints_go_missing_in_shares_limbs_together():
    found, _ = _detected(RandomKeypoints(exact=0, complete=0, dropped=0.4, lost=0, noise=(1, 1)), batch=1500)
    gone = found[..., 2] == 0
    assert gone.mean() == pytest.approx(0.2, abs=0.02) and (found[gone] == 0).all()
    together = (gone[..., 15] & gone[..., 16]).mean() / gone[..., 15].mean()
    apart = (gone[..., 15] & gone[..., 2]).mean() / gone[..., 15].mean()
    assert together > apart + 0.1
    lost, _ = _detected(RandomKeypoints(exact=0, complete=1, lost=1, noise=(1, 1)), batch=1500)
    nobody = (lost[..., 2] == 0).all(-1)
    assert 0.1 < nobody.mean() < 0.2 and ((lost[..., 2] == 0).any(-1) == nobody).all()


def test_confidence_tells_of_errors_in_some_windows():
    found, pixels = _detected(RandomKeypoints(exact=0, noise=(8, 8), complete=1, lost=0, unsure=1.0))
    wrong = np.linalg.norm(pixels, axis=-1)
    assert np.corrcoef(wrong.ravel(), found[..., 2].ravel())[0, 1] < -0.5
    assert (_detected(RandomKeypoints(exact=0, complete=1, lost=0, unsure=0))[0][..., 2] == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": (0, 3)}, "noise of random_keypoints is (0, 3)"),
        ({"dropped": 0.7}, "dropped of random_keypoints is 0.7, expected a number from 0 to 0.5"),
        ({"hidden": 0.5}, "hidden of random_keypoints is 0.5"),
        ({"exact": "half"}, "exact of random_keypoints is 'half'"),
    ],
)
def test_impossible_detections(settings, message):
    with pytest.raises(ArgumentError) as error:
        RandomKeypoints(**settings)
    assert message in str(error.value)


# ---- windows


def test_arrays_of_other_shapes_are_named():
    poses, keypoints = np.zeros((2, 3, 17, 3), np.float32), RandomKeypoints()
    arrays = {
        "screen": np.zeros((2, 3, 17, 2), np.float32),
        "depth": np.ones((2, 3), np.float32),
        "focal": np.ones(2, np.float32),
        "fps": np.full(2, 25.0),
        "draws": np.zeros((2, keypoints.UNIFORM)),
        "noise": np.zeros((2, 3, keypoints.NORMAL), np.float32),
    }
    assert keypoints.detect(**arrays).shape == (2, 3, 17, 3)
    for name, array in arrays.items():
        with pytest.raises(ArgumentError, match=rf"^{name} has shape \[.*\], expected \["):
            keypoints.detect(**{**arrays, name: array[..., None]})
    for given, name in (
        ({"poses": poses[0]}, "poses"),
        ({"draws": np.zeros((3, 8))}, "draws"),
        ({"to_world": np.eye(3)}, "to_world"),
    ):
        with pytest.raises(ArgumentError, match=rf"^{name} has shape \[.*\], expected \["):
            RandomViews().see(**{"poses": poses, "draws": np.zeros((2, 8)), **given})


def test_nothing_drawn_is_the_windows_as_they_are(store):
    cut = {"window": 27, "target": "camera"}
    plain, drawn = PoseWindows(store, "train", **cut), DrawnWindows(store, Drawing(), **cut)
    for key, value in plain.batch([0, 5]).items():
        torch.testing.assert_close(drawn.batch([(3, 0), (3, 5)])[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("target", ["camera", "root_relative", "global"])
@pytest.mark.parametrize("sampling", ["windows", "centred", "chunks"])
def test_a_sample_is_of_one_scene(store, target, sampling):
    cut = {"window": 27, "target": target, "sampling": sampling}
    windows = DrawnWindows(store, dataclasses.replace(EVERYTHING, keypoints=None, coco=0), **cut)
    batch = windows.batch([(1, i) for i in range(len(windows))])
    plain = PoseWindows(store, "train", **cut).batch(range(len(windows)))
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (v.shape, v.dtype) for k, v in plain.items()}
    pose, k = batch["camera_pose"] / 1000, batch["intrinsics"]
    torch.testing.assert_close(batch["target"], to_image_space(pose, k, target), rtol=1e-4, atol=1e-4)
    screen = pose[..., :2] / pose[..., 2:] * k[:, None, None, :2]
    torch.testing.assert_close(batch["input"][..., :2], screen, rtol=1e-4, atol=1e-4)
    assert (batch["input"][..., 2] == 1).all()
    torch.testing.assert_close(batch["root_depth"], pose[:, :, 0, 2], rtol=1e-4, atol=1e-4)
    ratio = lengths(pose.numpy()).mean(1) / lengths(plain["camera_pose"].numpy() / 1000).mean(1)
    assert ratio.min() > 0.87 and ratio.max() < 1.13 and ratio.std() > 0.04
    np.testing.assert_allclose(ratio[:, 1], ratio[:, 4], rtol=0.01)  # both thighs alike


def test_a_sample_depends_on_seed_epoch_and_number_alone(store):
    cut = {"window": 27, "target": "camera"}
    windows = DrawnWindows(store, EVERYTHING, 7, **cut)
    whole = windows.batch([(4, i) for i in range(6)])
    alone = windows.batch([(4, 3)])
    for key, value in whole.items():
        torch.testing.assert_close(alone[key][0], value[3], rtol=0, atol=0)
    assert not torch.equal(windows.batch([(5, 3)])["input"], alone["input"])
    other = DrawnWindows(store, EVERYTHING, 8, **cut).batch([(4, 3)])
    assert not torch.equal(other["input"], alone["input"])
    torch.testing.assert_close(windows[3]["input"], windows.batch([(0, 3)])["input"][0], rtol=0, atol=0)


def test_rates_are_those_drawn_and_poses_lie_between_frames():
    t = np.arange(200)[:, None, None] / 50.0
    path = CLIPS[0].positions[:1] + np.concatenate([0.8 * t, 0.1 * t**2, 0 * t], -1).astype(np.float32)
    store = observe([Clip(path, "a", "glide", "one")], views=1, detections="exact", recentre=False, too_near="move")
    windows = DrawnWindows(store, Drawing(fps=(25.0, 25.0)), window=9, target="camera")
    batch = windows.batch([(2, i) for i in range(len(windows))])
    inside = batch["weight"][..., 0].all(1)
    root = batch["camera_pose"][inside, :, 0].double() / 1000
    speed = torch.linalg.vector_norm(root.diff(dim=1, n=2), dim=-1)
    # Every step is a 25th of a second: the second difference of 0.1 t^2 is 0.2 / 625.
    torch.testing.assert_close(speed, torch.full_like(speed, 0.2 / 625), atol=3e-6, rtol=0)
    assert inside.sum() > 20 and not inside.all()  # over the ends of the clip frames are repeated, and do not count


def test_a_share_of_the_windows_is_synthetic(store):
    names = ("syn02",)
    for share in (0.1, 0.7):
        windows = DrawnWindows(store, Drawing(), synthetic=(names, share), window=9)
        found = windows.batch(range(len(windows)))["subject"] == windows.subjects.index("syn02")
        assert found.double().mean().item() == pytest.approx(share, abs=0.02)


def test_samplers_tell_the_epoch_also_to_processes(store):
    windows = DrawnWindows(store, EVERYTHING, 0, window=27, target="camera")
    sampler = EpochSampler(windows, 0)
    sampler.set_epoch(2)
    assert {epoch for epoch, _ in sampler} == {2}
    here = list(window_loader(windows, 4, sampler))
    there = list(window_loader(windows, 4, sampler, workers=1))
    for a, b in zip(here, there, strict=True):
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


def test_what_can_not_be_drawn_for():
    single = observe(CLIPS[:1], views=1, detections="exact")
    views = tuple(dataclasses.replace(view, up=(math.nan,) * 3) for view in single.views)
    unknown = dataclasses.replace(single, views=views)
    with pytest.raises(ArgumentError, match="random_views is given, expected data that tell where up is: that of"):
        DrawnWindows(unknown, Drawing(views=RandomViews()), window=9)
    DrawnWindows(unknown, Drawing(bodies=0.1), window=9).batch([(0, 0)])  # needs no vertical
    other = observe(CLIPS[:1], views=1, skeleton="mpi_inf_3dhp")
    with pytest.raises(ArgumentError, match="skeleton is 'mpi_inf_3dhp', expected 'h36m'"):
        DrawnWindows(other, Drawing(bodies=0.1), window=9)
    still = dataclasses.replace(single, temporal=False)
    with pytest.raises(ArgumentError, match="random_fps is"):
        DrawnWindows(still, Drawing(fps=(20, 60)), window=1)


# ---- the vertical in stores


def test_stores_keep_where_up_is(store, tmp_path):
    path = save_store(store, tmp_path / "a.poses")
    assert [view.up for view in open_store(path).views] == [view.up for view in store.views]
    text = (path / "meta.json").read_text()
    import json

    meta = json.loads(text)
    for view in meta["views"]:
        del view["up"]  # as versions before wrote them
    (path / "meta.json").write_text(json.dumps(meta))
    assert all(math.isnan(value) for view in open_store(path).views for value in view.up)


# ---- kinds of 2D


def _input(kind: str) -> np.ndarray:
    return observe(CLIPS, "test", views=1, detections=kind).input


def test_kinds_of_detections():
    exact = _input("exact")
    noise = (_input("noise:5")[..., :2] - exact[..., :2]) * 500  # half of the image's width is 500 px
    assert (
        noise.std() == pytest.approx(5, rel=0.03)
        and np.abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.05
    )
    dropped = _input("dropped:0.3")
    gone = dropped[..., 2] == 0
    assert gone.mean() == pytest.approx(0.3, abs=0.02) and (dropped[~gone] == exact[~gone]).all()
    assert np.abs(dropped[gone][:, :2] - exact[gone][:, :2]).max() < 0.2  # between the frames that have it
    coco = _input("coco")
    off = np.linalg.norm(coco[..., :2] - exact[..., :2], axis=-1).mean(0)
    assert off[[2, 3, 5, 6, 11, 12, 13, 14, 15, 16]].max() == 0 and off[[0, 7, 8, 9, 10]].min() > 0.002
    np.testing.assert_array_equal(_input("noise:5"), _input("noise:5"))


@pytest.mark.parametrize(
    "kind", ["", "exactly", "noise", "noise:", "noise:-1", "noise:nan", "dropped:1", "coco:1", "exact:0"]
)
def test_other_kinds_are_refused(kind):
    with pytest.raises(ArgumentError) as error:
        Detections.of(kind)
    assert str(error.value).startswith(f"detections is {kind!r}, expected simulated, exact, coco, noise:PIXELS or ")


# ---- the data module


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    from structloss.data import save_archive

    path = tmp_path_factory.mktemp("drawn") / "motion.npz"
    people = generate_clips(3, 2, 60, seed=1)
    save_archive(path, [dataclasses.replace(clip, subject=f"p{clip.subject[-1]}") for clip in people])
    return str(path)


def test_the_data_module_draws_for_training_alone(archive):
    options = {"window": 9, "target": "camera", "views": 1, "val_subjects": ["p3"], "progress": False}
    plain = MotionDataModule(archive, **options)
    drawn = MotionDataModule(archive, random_views=True, random_bodies=0.1, random_fps=[20, 60], **options)
    assert isinstance(drawn.train_dataset, DrawnWindows) and drawn.train_dataset.drawing.keypoints == RandomKeypoints()
    for key, value in plain.val_dataset.batch([0, 1]).items():
        torch.testing.assert_close(drawn.val_dataset.batch([0, 1])[key], value, rtol=0, atol=0)
    exact = MotionDataModule(archive, random_views={"roll": 0}, detections="exact", **options)
    assert exact.train_dataset.drawing == Drawing(views=RandomViews(roll=0))
    told = MotionDataModule(archive, random_keypoints={"noise": [1, 2]}, **options)
    assert told.train_dataset.drawing == Drawing(keypoints=RandomKeypoints(noise=(1.0, 2.0)))


def test_synthetic_people_are_mixed_in_and_subjects_left_out(archive):
    options = {"window": 9, "target": "camera", "views": 1, "progress": False}
    options |= {"num_subjects": 2, "clips_per_subject": 2, "frames": 40}
    data = MotionDataModule(archive, val_subjects=["p3"], without_subjects=["p2"], synthetic_share=0.5, **options)
    assert data.subjects == ("p1", "p3", "syn01", "syn02")
    batch = data.train_dataset.batch(range(len(data.train_dataset)))
    share = (batch["subject"] >= 2).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.05) and set(batch["subject"].tolist()) == {0, 2, 3}
    assert set(data.val_dataset.batch(range(len(data.val_dataset)))["subject"].tolist()) == {1}
    # without anything drawn their detections are the simulated ones
    assert (batch["input"][..., 2] < 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"random_views": "yes"}, "random_views is 'yes', expected true, false or a dict of settings"),
        ({"random_views": {"height": 2}}, "random_views has 'height', expected some of elevation, distance, focal"),
        ({"random_bodies": -0.1}, "random_bodies is -0.1, expected a number from 0 to 0.5"),
        ({"random_fps": [60]}, "random_fps is (60,), expected two numbers [least, most] from 1 to 1000"),
        ({"random_fps": []}, "random_fps is (), expected two numbers [least, most] from 1 to 1000"),
        ({"random_fps": 60}, "random_fps is 60, expected two numbers [least, most] from 1 to 1000"),
        ({"random_keypoints": {"noise": [5, 1]}}, "noise of random_keypoints is (5, 1)"),
        ({"coco_joints": 2}, "coco_joints is 2, expected a number from 0 to 1"),
        ({"synthetic_share": 1.0}, "synthetic_share is 1.0, expected a number from 0 to 0.99"),
    ],
)
def test_options_that_can_not_be(archive, options, message):
    with pytest.raises(ArgumentError) as error:
        MotionDataModule(archive, **options)
    assert message in str(error.value)


def test_settings_that_change_nothing_are_the_defaults(archive):
    made = [MotionDataModule(archive, random_views=views, window=9, progress=False) for views in ({}, True)]
    first, second = (module.train_dataset.batch([(0, 0)])["input"] for module in made)
    assert torch.equal(first, second)


def test_subjects_that_are_not_there(archive):
    with pytest.raises(
        ArgumentError, match=r"without_subjects has 'p9', expected subjects or motions of .*: p1, p2, p3"
    ):
        MotionDataModule(archive, window=9, without_subjects=["p9"], progress=False).setup()
    with pytest.raises((ArgumentError, DataError)):
        MotionDataModule(archive, window=9, without_subjects=["p1", "p2"], val_subjects=["p3"], progress=False).setup()

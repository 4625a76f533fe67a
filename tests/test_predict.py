"""`structloss predict`: networks from checkpoints and published weights, poses in metres, files, videos, commands."""

import json
import os
import sys
import tracemalloc
import weakref

import lightning as L
import numpy as np
import pytest
import torch
from backbone_cases import filled
from torch import nn

from structloss import backbones, skeletons
from structloss.backbones.base import Backbone
from structloss.cli import main
from structloss.data import Clip, generate_clips, h36m_cameras, load_archive, to_image_space
from structloss.data.formats import Keypoints, read_bvh, read_keypoints
from structloss.data.formats.bvh import parse_bvh
from structloss.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    MissingDependencyError,
    MissingFileError,
    UnknownNameError,
)
from structloss.harness import LiftingModule
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.predict import Lifter, load_lifter, predict
from structloss.reports.encoders import encode_gif, encode_mp4
from structloss.reports.pose_video import pose_frames, write_pose_video

H36M = skeletons.get("h36m")


@pytest.fixture(scope="module")
def clip():
    return generate_clips(1, 1, 40, seed=3)[0].centred()


def seen(clip: Clip, camera=0):
    """The clip's camera-space poses relative to the hip, metres, and its keypoints."""
    camera = h36m_cameras("S1")[camera]
    poses = camera.to_camera(clip.positions)
    size = {"width": camera.width, "height": camera.height}
    keypoints = Keypoints("clip", camera.project(poses), np.full(poses.shape[:2], 0.9), fps=50, **size)
    return camera, poses, keypoints


class Recorded(Backbone):
    """Answers with recorded poses: those of the frame whose keypoints are the nearest to what it sees."""

    def __init__(self, poses, keypoints):
        super().__init__(kind="frame", frames=1, shortest=1)
        self.weight = nn.Parameter(torch.zeros(()))
        w, h = keypoints.width, keypoints.height
        self.seen = torch.from_numpy(keypoints.keypoints * np.float32(2 / w) - np.float32([1, h / w])).flatten(1)
        self.poses = torch.as_tensor(poses).float()

    def forward(self, x):
        frames = torch.cdist(x[..., :2].flatten(2).flatten(0, 1), self.seen).argmin(1)
        return self.poses[frames].unflatten(0, x.shape[:2])


class Linear(Backbone):
    """A pose that is a fixed function of the input and not symmetric."""

    def __init__(self):
        super().__init__(kind="frame", frames=1, shortest=1, channels=3)
        self.weight = nn.Parameter(torch.randn(51, 51, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return (self.prepare(x).flatten(2) @ self.weight).unflatten(2, (17, 3))


def lifter(model, target="camera", skeleton="h36m", flip=False):
    return Lifter(model, "made-up", target, skeleton, flip, "nowhere")


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A training checkpoint, as Lightning writes it with our plugin."""
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    module = LiftingModule(backbone="repose-tiny", target="root_relative", flip_test=False)
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, plugins=[SafeCheckpointIO()])
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path, module


def test_a_training_checkpoint_knows_its_network(checkpoint):
    path, module = checkpoint
    found = load_lifter(path)
    assert (found.name, found.target, found.skeleton, found.flip) == ("repose-tiny", "root_relative", "h36m", False)
    x = torch.randn(2, 27, 17, 3)
    with torch.no_grad():
        torch.testing.assert_close(found.model(x), module.model.eval()(x))
    assert not found.model.training and load_lifter(path, target="camera").target == "camera"


@pytest.mark.parametrize(
    ("name", "target"),
    [("repose-tiny", "global"), ("videopose3d-27", "camera"), ("motionagformer-xsmall", "root_relative"),
     ("videopose3d-27-causal", "camera")],
)  # fmt: skip
def test_published_weights_answer_in_the_space_of_their_recipe(tmp_path, name, target):
    model = filled(name)
    backbones.save_checkpoint(model, tmp_path / "w.safetensors")
    found = load_lifter(backbone=name, weights=tmp_path / "w.safetensors")
    assert (found.name, found.target, found.skeleton, found.flip) == (name, target, "h36m", True)
    for mine, theirs in zip(found.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_networks_that_cannot_be_used(tmp_path, checkpoint):
    path, _ = checkpoint
    for options in ({"checkpoint": path, "backbone": "repose-tiny"}, {"checkpoint": path, "weights": path}):
        with pytest.raises(ArgumentError, match="expected either a training checkpoint, or a backbone's name"):
            load_lifter(**options)
    with pytest.raises(ArgumentError, match="repose-tiny has no weights in the package"):
        load_lifter(backbone="repose-tiny")
    with pytest.raises(ArgumentError, match="target is 'world'"):
        load_lifter(path, target="world")
    with pytest.raises(UnknownNameError, match="repose-tyni"):
        load_lifter(backbone="repose-tyni", weights=path)
    with pytest.raises(MissingFileError, match=r"none\.ckpt"):
        load_lifter(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of this"):
        load_lifter(backbone="videopose3d-27", weights=path)
    for name, message in (("jointformer-h36m-refine", "kind 'refine'"), ("videopose3d-27-humaneva15", "no registered")):
        backbones.save_checkpoint(backbones.create(name), tmp_path / "w.safetensors")
        with pytest.raises(ArgumentError, match=message):
            load_lifter(backbone=name, weights=tmp_path / "w.safetensors")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "hyper_parameters": {}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="doesn't say which network"):
        load_lifter(tmp_path / "a.ckpt")
    del content["state_dict"][next(iter(content["state_dict"]))]
    torch.save(content, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="doesn't fit its own description"):
        load_lifter(tmp_path / "b.ckpt")


# -------------------------------------------------------------------------------------------------------- prediction


@pytest.mark.parametrize("flip", [False, True])
def test_what_the_network_sees_and_says(clip, flip):
    """Normalised pixels and confidence go in; metres relative to the hip come out, averaged with the mirror image's."""
    _, _, keypoints = seen(clip)
    model = Linear()
    got = predict(lifter(model), keypoints, flip=flip)
    w, h = keypoints.width, keypoints.height
    x = np.concatenate([keypoints.keypoints * 2 / w - [1, h / w], keypoints.confidence[..., None]], -1)
    want = x.reshape(-1, 51) @ model.weight.detach().double().numpy()
    if flip:
        mirrored = (x * [-1, 1, 1])[:, list(H36M.mirror)].reshape(-1, 51) @ model.weight.detach().double().numpy()
        mirrored = (mirrored.reshape(-1, 17, 3) * [-1, 1, 1])[:, list(H36M.mirror)].reshape(-1, 51)
        want = (want + mirrored) / 2
    want = want.reshape(-1, 17, 3)
    np.testing.assert_allclose(got.positions, want - want[:, :1], atol=1e-4)
    np.testing.assert_array_equal(got.keypoints, keypoints.keypoints)
    assert got.meta["flip"] is flip and got.meta["units"] == "metre" and got.fps == 50 and (got.scale == 1).all()


@pytest.mark.parametrize("factor", [1, 1000])
def test_camera_space_is_metres_even_from_networks_in_millimetres(clip, factor):
    _, poses, keypoints = seen(clip)
    got = predict(lifter(Recorded(poses * factor, keypoints)), keypoints)
    np.testing.assert_allclose(got.positions, poses - poses[:, :1], atol=1e-5)
    assert got.notes == () and got.meta["size"] == "as predicted"


def test_weights_of_another_target_are_noticed(clip):
    _, poses, keypoints = seen(clip)
    (note,) = predict(lifter(Recorded(poses * 0.1, keypoints)), keypoints).notes
    assert "limbs come out 0.1 times as long as a person's" in note


@pytest.mark.parametrize("target", ["global", "root_relative"])
def test_image_space_gets_a_nominal_size(real_mocap, target):
    """True image-space targets of real people, who walk towards and away from the camera, come out as their poses."""
    clips, _ = load_archive(real_mocap)
    ratios = []
    for clip in clips[::8]:
        camera, poses, keypoints = seen(clip.centred(), 1)
        k = torch.from_numpy(camera.screen_intrinsics())
        raw = to_image_space(torch.from_numpy(poses), k, target)
        got = predict(lifter(Recorded(raw, keypoints), target), keypoints)
        truth = poses - poses[:, :1]
        body = [bone for _, group in H36M.bone_groups for bone in group]
        limbs = sum(np.linalg.norm(got.positions[:, c] - got.positions[:, p], axis=-1) for c, p in body)
        canonical = sum(map(sum, H36M.bone_group_lengths)) / 1000
        assert 0.96 < limbs.min() / canonical <= limbs.max() / canonical < 1.04
        own = np.mean([sum(np.linalg.norm(truth[:, c] - truth[:, p], axis=-1) for c, p in body)])
        shrunk = truth * (canonical / own)  # the same person at the canonical size
        error = np.linalg.norm(got.positions - shrunk, axis=-1).mean() * 1000
        assert error < 30  # perspective: nearer limbs are larger in the image
        ratios.append(got.scale / (poses[:, 0, 2] / camera.screen_intrinsics()[0]))
        assert "size is nominal" in got.notes[-1] and got.meta["size"].startswith("nominal")
        np.testing.assert_allclose(got.positions / got.scale[:, None, None], raw - raw[:, :1], atol=3e-3)
    spread = np.concatenate(ratios)
    assert spread.max() / spread.min() < 1.15  # follows the distance, 3.4 to 7.4 m, and each person's size


class Flat(Backbone):
    """An ideal orthographic lifter of people who stand in the image plane: what it sees, at depth 0."""

    def __init__(self):
        super().__init__(kind="frame", frames=1, shortest=1)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return torch.cat([x[..., :2], torch.zeros_like(x[..., :1])], dim=-1)


@pytest.mark.parametrize("bad", [(14,), (0,), (89,), (14, 15, 16, 40), range(30, 40)])
@pytest.mark.parametrize("factor", [0.05, 20.0, 1e-12])
def test_a_bad_detection_does_not_scale_the_frames_around(bad, factor):
    """One detection 20 times too small used to turn poses of the second around it upside down."""
    walk = generate_clips(1, 1, 90, seed=1, fps=30)[0].positions
    poses = np.stack([walk[..., 0], -walk[..., 2], walk[..., 1]], -1)  # x right, y down, z forward
    poses -= poses[:, :1]
    flat = poses[..., :2] * 300 + [960, 540]
    right = predict(lifter(Flat(), "global"), Keypoints("k", flat, np.ones((90, 17)), 1920, 1080, 30))
    frames = np.array(bad)
    flat[frames] = flat[frames].mean(1, keepdims=True) * (1 - factor) + flat[frames] * factor
    got = predict(lifter(Flat(), "global"), Keypoints("k", flat, np.ones((90, 17)), 1920, 1080, 30))
    assert (got.scale > 0).all() and np.abs(np.log(got.scale / right.scale)).max() < 0.1
    others = np.delete(np.arange(90), frames)
    heads_and_feet = got.positions[others][:, [10, 3, 6], 1]
    assert (heads_and_feet[:, :1] < heads_and_feet[:, 1:]).all()  # y points down
    lost = f"in {len(bad)} frames, the first is {bad[0]}," if len(bad) > 1 else f"in frame {bad[0]} "
    assert got.notes[0].startswith(lost) and "is it a bad detection?" in got.notes[0]
    assert len(right.notes) == 1  # nothing is odd without it


def test_other_layouts_and_skeletons(clip):
    _, poses, keypoints = seen(clip)
    rng = np.random.default_rng(0)
    coco = Keypoints("c", rng.uniform(0, 500, (40, 17, 2)), rng.uniform(0.1, 1, (40, 17)), 640, 480, 25, "coco")
    for variant in (None, "motionbert", "demo"):
        got = predict(lifter(Recorded(poses, coco.to_h36m())), coco, variant=variant)
        want = coco.to_h36m(variant)
        np.testing.assert_array_equal(got.keypoints, want.keypoints)
        np.testing.assert_array_equal(got.confidence, want.confidence)
    assert got.meta["input_layout"] == "coco" and got.meta["input_variant"] == "demo"
    # A network of MPI-INF-3DHP's joints: root at 14.
    theirs = skeletons.convert(poses, "h36m", "mpi_inf_3dhp")
    there = skeletons.convert(coco.to_h36m().keypoints, "h36m", "mpi_inf_3dhp")
    model = Recorded(theirs, Keypoints("c", there, coco.confidence, 640, 480))
    got = predict(lifter(model, skeleton="mpi_inf_3dhp"), coco)
    np.testing.assert_allclose(got.positions, theirs - theirs[:, 14:15], atol=1e-5)
    np.testing.assert_array_equal(got.keypoints, there)
    with pytest.raises(ArgumentError, match="has the layout 'coco', expected 'h3wb'"):
        predict(lifter(Linear(), skeleton="h3wb"), coco)
    # SemGCN's sixteen joints: the neck is put back, so that mirroring works too.
    sixteen = np.delete(poses, 9, axis=1)
    for flip in (False, True):
        got = predict(lifter(Recorded(sixteen, keypoints)), keypoints, flip=flip)
        assert got.positions.shape == (40, 17, 3)
        middle = (got.positions[:, 8] + got.positions[:, 10]) / 2
        np.testing.assert_allclose(got.positions[:, 9], middle, atol=1e-5)


def test_odd_input_is_noted_or_refused(clip):
    _, poses, keypoints = seen(clip)
    x, c = keypoints.keypoints, keypoints.confidence
    made = predict(lifter(Linear()), Keypoints("k", x, c, 1000, 1000, gaps=((3, 5), (9, 10))))
    assert "missing in 3 of 40 frames, up to 2 in a row" in made.notes[0]
    assert "30 frames per second are assumed" in made.notes[1] and made.fps == 30
    assert made.meta["gaps"] == [[3, 5], [9, 10]]
    made = predict(lifter(Linear()), Keypoints("k", x, c, 450, 450), fps=12)
    assert made.fps == 12 and "lie outside of the image of 450 x 450 pixels" in made.notes[0]
    with pytest.raises(ArgumentError, match=r"all keypoints of k lie outside .* 300 x 200 pixels, x from 305 to 581"):
        predict(lifter(Linear()), Keypoints("k", x, c, 300, 200), fps=12)
    made = predict(lifter(Linear()), Keypoints("k", x, c, 1000, 1000, 50, notes=("who was read",)))
    assert made.notes[0] == "who was read"
    with pytest.raises(ArgumentError, match="doesn't say how large its images are, expected image_size"):
        predict(lifter(Linear()), Keypoints("k", x, c))
    with pytest.raises(ArgumentError, match="lie within -2 to 2, expected pixels"):
        predict(lifter(Linear()), Keypoints("k", x / 1000, c, 1000, 1000))
    with pytest.raises(CheckpointError, match="predicts NaN"):
        predict(lifter(Recorded(poses * np.nan, keypoints)), keypoints)


def test_networks_that_draw_noise_give_the_same_poses_again(clip):
    _, _, keypoints = seen(clip)
    model = filled("d3dp-ddim-tiny")
    first = predict(lifter(model), keypoints).positions
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    np.testing.assert_array_equal(predict(lifter(model), keypoints).positions, first)
    assert torch.equal(torch.random.get_rng_state(), before)  # other randomness is left alone


def test_the_file_of_poses(clip, tmp_path):
    _, poses, keypoints = seen(clip)
    made = predict(lifter(Recorded(poses, keypoints)), keypoints)
    path = made.save(tmp_path / "p.npz")
    with np.load(path) as content:
        assert sorted(content.files) == ["confidence", "keypoints", "meta", "positions", "scale"]
        np.testing.assert_array_equal(content["positions"], made.positions)
        assert content["positions"].dtype == np.float32 and content["scale"].shape == (40,)
        meta = json.loads(str(content["meta"]))
    assert meta["joint_names"] == list(H36M.joint_names) and meta["skeleton"] == "h36m" and meta["fps"] == 50
    assert meta["model"] == "made-up" and set(meta["versions"]) == {"structloss", "torch", "numpy"}
    (again,) = read_keypoints(path)  # what was predicted from can be predicted from again
    np.testing.assert_array_equal(again.keypoints, keypoints.keypoints)
    assert (again.width, again.height, again.fps, again.skeleton) == (1000, 1002, 50, "h36m")


def test_its_own_file_gives_the_same_poses(clip, tmp_path):
    """Also where keypoints were never seen, or not in some frames: they stay where they were put."""
    _, poses, keypoints = seen(clip)
    x, c = keypoints.keypoints.copy(), keypoints.confidence.copy()
    c[:, [9, 10]] = 0
    c[7:9] = 0
    x[7:9] += 3
    track = Keypoints("walk", x, c, 1000, 1002, 50, start=12, gaps=((7, 9),))
    first = predict(lifter(Recorded(poses, keypoints)), track)
    (again,) = read_keypoints(first.save(tmp_path / "walk.npz"))
    np.testing.assert_array_equal(again.keypoints, x)
    np.testing.assert_array_equal(again.confidence, c)
    assert (again.start, again.gaps, again.fps) == (12, ((7, 9),), 50)
    second = predict(lifter(Recorded(poses, keypoints)), again)
    np.testing.assert_array_equal(second.positions, first.positions)
    assert second.meta["gaps"] == first.meta["gaps"] and second.meta["first_frame"] == 12
    np.savez(tmp_path / "3d.npz", reconstruction=first.positions)
    with pytest.raises(DataError, match="holds reconstruction, which are 3D poses, expected 2D keypoints"):
        read_keypoints(tmp_path / "3d.npz")


# ------------------------------------------------------------------------------------------------------------- video


def shares(image, colour):
    """(share of the pixels near a colour, their mean column) in the left and the right half of a frame."""
    out = []
    for half in np.split(image[:, : image.shape[1] // 2 * 2], 2, axis=1):
        near = np.abs(half.astype(int) - colour).sum(-1) < 90
        out.append((near.mean(), np.nonzero(near)[1].mean() if near.any() else np.nan))
    return out


RIGHT, LEFT = (213, 94, 0), (0, 114, 178)


def pose_of_a_person_who_faces_us():
    """T-pose: the person's right is at the camera's left; `[17, 3]`, metres."""
    x = np.zeros((17, 3))
    x[[1, 2, 3], 0], x[[4, 5, 6], 0] = -0.15, 0.15
    x[[2, 5], 1], x[[3, 6], 1] = 0.45, 0.9
    x[[7, 8, 9, 10], 1] = (-0.25, -0.5, -0.6, -0.7)
    x[[11, 12, 13], 0], x[[14, 15, 16], 0] = (0.2, 0.45, 0.7), (-0.2, -0.45, -0.7)
    x[11:, 1] = -0.5
    return x


def test_what_is_drawn():
    pose = np.repeat(pose_of_a_person_who_faces_us()[None], 2, 0)
    flat = pose[..., :2] * 300 + 400
    sure = np.ones((2, 17))
    sure[1] = 0.05
    first, second = pose_frames(flat, sure, pose, fps=25, title="$not maths$")
    assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3
    for colour in (RIGHT, LEFT):
        for share, _ in shares(first, colour):
            assert share > 0.003
    for half in (0, 1):  # right limbs on the left of each panel
        assert shares(first, RIGHT)[half][1] < shares(first, LEFT)[half][1] - 30
    assert shares(second, RIGHT)[0][0] < 0.2 * shares(first, RIGHT)[0][0]  # faint: not confident
    assert shares(second, RIGHT)[1][0] == pytest.approx(shares(first, RIGHT)[1][0])
    mirrored, _ = pose_frames(flat * (-1, 1), sure, pose * (-1, 1, 1), fps=25)
    assert all(shares(mirrored, RIGHT)[half][1] > shares(mirrored, LEFT)[half][1] + 30 for half in (0, 1))
    # A step forward (away from the camera) moves to the right and up in the view from the right of the camera.
    far = pose.copy()
    far[:, [4, 5, 6], 2] = 0.5
    moved, _ = pose_frames(flat, sure, far, fps=25)
    assert shares(moved, LEFT)[0][1] == pytest.approx(shares(first, LEFT)[0][1])
    assert not np.array_equal(moved, first)


def test_the_legend_says_which_colour_is_left():
    """Blue words, then orange words, above the 3D panel; nothing else there has these colours."""
    pose = pose_of_a_person_who_faces_us()[None]
    (image,) = pose_frames(pose[..., :2] * 300 + 400, np.ones((1, 17)), pose, fps=25)
    row = image[40:66]
    columns = {}
    for name, colour in (("left", LEFT), ("right", RIGHT)):
        near = np.abs(row.astype(int) - colour).sum(-1) < 60
        columns[name] = np.nonzero(near.any(0))[0]
        assert near.sum() > 60
    assert image.shape[1] * 0.8 < columns["left"].min() < columns["left"].max() < columns["right"].min()


def test_frames_are_drawn_when_they_are_asked_for():
    pose = np.repeat(pose_of_a_person_who_faces_us()[None], 100_000, 0)
    frames = pose_frames(pose[..., :2] * 300, np.ones(pose.shape[:2]), pose, fps=25)
    drawn = [weakref.ref(next(frames)) for _ in range(5)]
    assert [ref() for ref in drawn] == [None] * 5  # nobody keeps a frame that was given away
    frames.close()


@pytest.mark.parametrize("encode", [encode_gif, encode_mp4])
def test_encoders_do_not_keep_frames(tmp_path, encode):
    if encode is encode_mp4:
        pytest.importorskip("av")
    alive: list[weakref.ref] = []
    most = 0

    def frames():
        nonlocal most
        for t in range(300):
            image = np.full((64, 96, 3), 255, np.uint8)
            image[10:30, t % 60 : t % 60 + 20] = (200, t % 200, 0)
            alive.append(weakref.ref(image))
            yield image
            del image
            most = max(most, sum(ref() is not None for ref in alive))

    tracemalloc.start()
    encode(tmp_path / f"a.{encode.__name__[-3:]}", frames(), 25.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(alive) == 300 and most <= 2
    assert peak < 300 * 64 * 96  # less than a byte a pixel of all frames


@pytest.fixture(scope="module")
def motion(clip):
    _, poses, keypoints = seen(clip)
    return keypoints.keypoints[:24], keypoints.confidence[:24], (poses - poses[:, :1])[:24]


def test_mp4(motion, tmp_path):
    av = pytest.importorskip("av")
    path = write_pose_video(tmp_path / "new" / "a.mp4", *motion, fps=29.97)
    want = list(pose_frames(*motion, fps=29.97))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(29.97, rel=1e-4) and stream.codec_context.name == "h264"
        got = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(got) == len(want) == 24
    height, width = got[0].shape[:2]
    assert height % 2 == width % 2 == 0
    for a, b in zip(got[::11], want[::11], strict=True):
        assert np.abs(a.astype(int) - b[:height, :width]).mean() < 4
    assert os.listdir(tmp_path / "new") == ["a.mp4"]


@pytest.mark.parametrize(("fps", "frames"), [(20, 24), (50, 12), (120, 5)])
def test_gif(motion, tmp_path, fps, frames):
    from PIL import Image

    path = write_pose_video(tmp_path / "a.gif", *motion, fps=fps)
    want = list(pose_frames(*motion, fps=fps))
    lasted, step = 0, -(-24 // frames)
    with Image.open(path) as image:
        assert image.n_frames == frames and image.info["loop"] == 0 and image.info["version"] == b"GIF89a"
        for i in range(frames):
            image.seek(i)
            lasted += image.info["duration"]
            got = np.asarray(image.convert("RGB")).astype(int)
            if i % 7 == 0:
                assert np.abs(got - want[i * step]).mean() < 5
    assert lasted == pytest.approx(frames * step / fps * 1000, abs=10)


def test_bad_videos(motion, tmp_path, monkeypatch):
    keypoints, confidence, poses = motion
    for arguments, options, message in (
        ((tmp_path / "a.avi", *motion), {}, "expected a name that ends in .mp4 or .gif"),
        ((tmp_path / "a.gif", *motion), {"fps": 0}, "fps is 0"),
        ((tmp_path / "a.gif", keypoints[:3], confidence, poses), {}, r"shapes \[3, 17, 2\]"),
        ((tmp_path / "a.gif", keypoints[:0], confidence[:0], poses[:0]), {}, "with T >= 1"),
        ((tmp_path / "a.gif", *motion), {"skeleton": "mpii"}, r"expected \[T, 16, 2\]"),
    ):
        with pytest.raises(ArgumentError, match=message):
            write_pose_video(*arguments, **{"fps": 25, **options})
    path = tmp_path / "a.gif"
    path.write_bytes(b"old")
    monkeypatch.setattr("PIL.GifImagePlugin.getdata", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_pose_video(path, *motion, fps=25)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.gif"]
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"pip install -e \"\.\[video\]\""):
        write_pose_video(tmp_path / "b.mp4", *motion, fps=25)


# ----------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def alphapose(clip, tmp_path):
    """Two people in a results file, by name of frame."""
    _, _, keypoints = seen(clip)
    rows = []
    for t, (x, c) in enumerate(zip(keypoints.keypoints[:12], keypoints.confidence[:12], strict=True)):
        points = np.concatenate([x, c[:, None]], -1)
        for person in range(2):
            values = points + np.array([300 * person, 0, 0])
            rows.append({"image_id": f"{t}.jpg", "category_id": 1, "keypoints": values.ravel().tolist(), "score": 1,
                         "idx": person + 1})  # fmt: skip
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    return path


def test_the_command_writes_everything(checkpoint, alphapose, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["predict", alphapose, "--ckpt", checkpoint[0], "--image-size", 1300, 1000, "--fps", 25]
    command += ["--person", "all", "--out", out, "--video", "gif"]
    assert main(list(map(str, command))) == 0
    text = capsys.readouterr().out
    assert "results/1 (1 of 2): 12 frames, coco keypoints" in text and "size is nominal" in text
    names = {f"results_{person}.{ending}" for person in (1, 2) for ending in ("npz", "bvh", "gif")}
    assert set(os.listdir(out)) == names and all(str(out / name) in text for name in names)
    with np.load(out / "results_2.npz") as content:
        positions, meta = content["positions"], json.loads(str(content["meta"]))
    assert meta["model"] == "repose-tiny" and meta["target"] == "root_relative" and meta["fps"] == 25
    motion = parse_bvh(out / "results_2.bvh")
    assert motion.fps == 25
    again = read_bvh(out / "results_2.bvh").positions
    upright = np.stack([positions[..., 0], positions[..., 2], -positions[..., 1]], -1)
    bones = np.stack([np.linalg.norm(positions[:, c] - positions[:, p], axis=-1) for c, p in H36M.bones])
    allowed = np.abs(bones - bones.mean(1, keepdims=True)).sum(0).max()
    assert np.linalg.norm(again - upright, axis=-1).max() <= allowed + 1e-5


def test_the_command_on_published_weights_and_single_files(alphapose, tmp_path, capsys):
    model = filled("videopose3d-27")
    backbones.save_checkpoint(model, tmp_path / "w.safetensors")
    files = [tmp_path / name for name in ("a.npz", "b.bvh")]
    command = ["predict", alphapose, "--backbone", "videopose3d-27", "--weights", tmp_path / "w.safetensors"]
    command += ["--image-size", 1300, 1000, "--person", 2, "--npz", files[0], "--bvh", files[1], "--no-flip"]
    command += ["--variant", "demo", "--device", "cpu", "--batch-size", 3, "--layout", "coco"]
    assert main(list(map(str, command))) == 0
    assert all(file.is_file() for file in files)
    assert "30 frames per second are assumed; set --fps\n" in capsys.readouterr().out
    with np.load(files[0]) as content:
        meta = json.loads(str(content["meta"]))
    assert meta["input_variant"] == "demo" and meta["flip"] is False and meta["weights"] == "w.safetensors"


def test_people_in_bvh_files_stand_on_the_floor(checkpoint, alphapose, tmp_path):
    command = ["predict", alphapose, "--ckpt", checkpoint[0], "--image-size", 1300, 1000, "--fps", 25]
    assert main(list(map(str, [*command, "--bvh", tmp_path / "pelvis.bvh"]))) == 0
    assert main(list(map(str, [*command, "--bvh", tmp_path / "floor.bvh", "--floor"]))) == 0
    pelvis, floor = (read_bvh(tmp_path / f"{name}.bvh").positions for name in ("pelvis", "floor"))
    np.testing.assert_allclose(floor[..., :2], pelvis[..., :2], atol=1e-5)  # z is up here
    moved = floor[..., 2] - pelvis[..., 2]
    np.testing.assert_allclose(moved, moved[:, :1].repeat(17, 1), atol=1e-5)
    np.testing.assert_allclose(pelvis[:, 0, 2], 0, atol=1e-5)
    with np.load(checkpoint_poses(command, tmp_path)) as content:
        lowest = content["positions"][..., 1].max(1)
    np.testing.assert_allclose(moved[:, 0], lowest, atol=1e-5)
    assert np.abs(floor[..., 2].min(1)).max() < 0.1  # bones of one length only nearly reach it


def checkpoint_poses(command, tmp_path):
    assert main(list(map(str, [*command, "--npz", tmp_path / "poses.npz"]))) == 0
    return tmp_path / "poses.npz"


def test_the_command_says_what_it_left_out(checkpoint, alphapose, tmp_path, capsys):
    command = ["predict", alphapose, "--ckpt", checkpoint[0], "--image-size", 1300, 1000, "--out", tmp_path / "o"]
    assert main(list(map(str, command))) == 0
    text = capsys.readouterr().out
    assert "note: 1 other track with 12 detections was left out; set --person to 'all' to keep every track\n" in text


def test_names_in_files_do_not_reach_the_terminal_raw(checkpoint, tmp_path, capsys):
    bad = "\x1b]0;owned\x07"
    x = np.random.default_rng(0).uniform(100, 400, (3, 17, 2))
    sizes = {f"{bad}.mp4": {"w": 640, "h": 480}}
    metadata = {"layout_name": "coco", "video_metadata": sizes}
    np.savez(tmp_path / f"{bad}.npz", metadata=np.array(metadata, dtype=object),
             positions_2d=np.array({f"{bad}.mp4": {"custom": [x]}}, dtype=object))  # fmt: skip
    out = tmp_path / f"out{bad}"
    assert main(["predict", str(tmp_path / f"{bad}.npz"), "--ckpt", str(checkpoint[0]), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and r"\x1b]0;owned\x07.mp4: 3 frames" in said.out
    (out / "walk").mkdir()
    assert main(["predict", str(out / "walk"), "--ckpt", str(checkpoint[0]), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("name", ["pipe.json", "zero.json", "zero.npz", "zero.npy"])
def test_what_is_no_file_is_not_waited_for(checkpoint, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    if name.startswith("pipe"):
        os.mkfifo(name)
    else:
        os.symlink("/dev/zero", name)
    assert main(["predict", name, "--ckpt", str(checkpoint[0]), "--out", "o"]) == 1
    assert f"structloss: error: {name} is not a regular file, expected 2D keypoints" in capsys.readouterr().err
    os.mkfifo("pipe.ckpt")
    np.save("a.npy", np.ones((2, 26, 2)))
    assert main(["predict", "a.npy", "--ckpt", "pipe.ckpt", "--out", "o", "--image-size", "9", "9"]) == 1
    assert "is not a regular file" in capsys.readouterr().err


def test_the_input_is_not_written_over(checkpoint, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, _, keypoints = seen(clip)
    np.savez("walk.npz", keypoints=keypoints.keypoints, width=1000, height=1002, fps=50)
    before = (tmp_path / "walk.npz").read_bytes()
    for options in (["--out", "."], ["--npz", "walk.npz"]):
        command = ["predict", "walk.npz", "--layout", "h36m", "--ckpt", str(checkpoint[0]), *options]
        assert main(command) == 1
        assert "walk.npz is the input, expected another file or folder" in capsys.readouterr().err
    assert (tmp_path / "walk.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing is to be written, expected a folder for --out, or a file for --npz, --bvh or --video."),
        (["--video", "mp4"], "--video is 'mp4' without --out"),
        (["--npz", "a.txt"], "--npz is 'a.txt', expected a name that ends in .npz"),
        (["--video", "a.avi"], "expected a name that ends in .mp4 or .gif"),
        (
            ["--bvh", "a.bvh", "--person", "all"],
            "has 2 tracks, expected one for --bvh; give --out, a folder, or choose one with --person.",
        ),
        (["--out", "results.json"], "--out is 'results.json', a file"),
        (["--out", "o", "--person", "9"], "has no person 9"),
        (["--out", "o"], "doesn't say how large its images are, expected --image-size, in pixels."),
        (
            ["--out", "o", "--image-size", "100", "90"],
            "all keypoints of results lie outside of the image of 100 x 90 pixels, x from ",
        ),
        (["--out", "o", "--image-size", "100", "90"], "expected the --image-size of the video."),
        (["--out", "o", "--layout", "h36n"], "--layout is 'h36n', expected 'auto' or one of"),
        (["--out", "o", "--person", "first"], "--person is 'first', expected 'largest'"),
        (["--out", "o", "--fps", "-1"], "--fps is -1.0, expected a positive number"),
        (["--out", "o", "--image-size", "9", "9", "--layout", "halpe26"], "has 17 keypoints per person, expected 26"),
        (["--npz", "/proc/none/a.npz", "--image-size", "900", "900"], "/proc/none/a.npz can't be written"),
    ],
)
def test_errors_of_the_command(checkpoint, alphapose, monkeypatch, capsys, options, message):
    monkeypatch.chdir(alphapose.parent)
    assert main(["predict", "results.json", "--ckpt", str(checkpoint[0]), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("structloss: error: ") and message in error and error.count("\n") == 1
    assert os.listdir() == ["results.json"] or options[:2] == ["--out", "o"]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (["--ckpt", "a", "--backbone", "b"], "--backbone is 'b' with --ckpt a, which knows its backbone"),
        (
            ["--backbone", "repose-tiny"],
            "--backbone is 'repose-tiny' without --weights, expected a file of weights, or l",
        ),
        (["--weights", "w"], "--weights is 'w', expected it with --backbone or --network."),
    ],
)
def test_the_command_needs_one_network(network, message, capsys):
    assert main(["predict", "results.json", "--out", "o", *network]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"structloss: error: {message}") and error.count("\n") == 1


def test_a_missing_encoder_is_found_out_before_predicting(checkpoint, alphapose, monkeypatch, capsys):
    monkeypatch.chdir(alphapose.parent)
    monkeypatch.setitem(sys.modules, "av", None)
    command = [
        "predict",
        "results.json",
        "--ckpt",
        str(checkpoint[0]),
        "--image-size",
        "900",
        "900",
        "--video",
        "a.mp4",
    ]
    assert main(command) == 1
    assert "MP4 files need av" in capsys.readouterr().err and os.listdir() == ["results.json"]


def test_help_of_the_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and "examples:" in text and "--image-size W H" in text

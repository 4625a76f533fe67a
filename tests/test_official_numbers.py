"""P1, P2, P3 and MPJVE of `test` to 0.01 mm of the published evaluation's arithmetic, on a stand-in for Human3.6M.

The stand-in has the official files' layout, 15 actions of two takes and videos of different lengths, of real motion
where the clips of ../shared are there. The networks are not trained: they only have to be the same on both sides. What
they predict of whole videos is made here, from the files, without the package's data and scores.
"""

import json
from pathlib import Path

import fake_data
import numpy as np
import pytest
import torch
from reference import official_evaluation as official

pytest.importorskip("lightning")

from structloss.cli import main
from structloss.data import MotionDataModule, h36m_cameras
from structloss.harness.evaluation import evaluate
from structloss.harness.lifting import LiftingModule

ACTIONS = "Directions Discussion Eating Greeting Phoning Photo Posing Purchases Sitting SittingDown Smoking Waiting "
ACTIONS = (ACTIONS + "WalkDog Walking WalkTogether").split()
TAKES = [f"{action}{take}" for action in ACTIONS for take in ("", " 1")]
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "real_mocap.npz"
HEIGHT = {"54138969": 1002, "55011271": 1000, "58860488": 1000, "60457274": 1002}
SCORED = ("S9", "S11")


def motion(number: int, frames: int) -> np.ndarray:
    """`[frames, 17, 3]`, metres, z up, in the middle of the room."""
    if not REAL.is_file():
        return fake_data.world(frames, "stand-in", number)
    with np.load(REAL) as clips:
        names = [name for name in clips.files if name != "meta"]
        clip = clips[names[number % len(names)]]
    first = (37 * number) % (len(clip) - frames)
    pose = clip[first : first + frames].copy()
    pose[..., :2] -= pose[:, :1, :2].mean(0)
    return pose


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """The folder of the files, and of every video of S9 and S11: subject, take, pixels, camera and camera-space poses
    in metres."""
    folder = tmp_path_factory.mktemp("h36m")
    poses, points, videos = {}, {}, []
    for s, subject in enumerate(("S1", *SCORED)):
        takes = {"S9": TAKES, "S11": TAKES[::2]}.get(subject, TAKES[:1])
        poses[subject], points[subject] = {}, {}
        for n, take in enumerate(takes):
            world = motion(31 * s + n, 28 + (7 * n + 11 * s) % 20)
            full = np.zeros((len(world), 32, 3), np.float32)
            full[:, fake_data.KEPT] = world
            poses[subject][take], points[subject][take] = full, []
            for i, camera in enumerate(h36m_cameras(subject)):
                seen = camera.to_camera(world)
                pixels = camera.project(seen).astype(np.float32)
                # Some videos run on for a frame after the poses end.
                points[subject][take].append(np.concatenate([pixels, pixels[-1:]]) if i % 2 else pixels)
                if subject in SCORED and (subject, take) != ("S11", "Directions"):  # known to be broken
                    videos.append((subject, take, pixels, camera, np.asarray(seen, dtype=np.float64)))
    metadata = {"num_joints": 17, "keypoints_symmetry": [fake_data.LEFT, fake_data.RIGHT]}
    np.savez(folder / "data_3d_h36m.npz", positions_3d=poses)
    np.savez(folder / "data_2d_h36m_gt.npz", positions_2d=points, metadata=metadata)
    return folder, videos


def mirrored(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[..., 0] *= -1
    if x.shape[-2] == 17:
        both = fake_data.LEFT + fake_data.RIGHT, fake_data.RIGHT + fake_data.LEFT
        x[..., both[0], :] = x[..., both[1], :]
    return x


@torch.no_grad()
def predicted(network, kind: str, window: int, pixels: np.ndarray, height: int, flip: bool):
    """Poses in metres `[N, J, 3]` of a video's frames, and the numbers of those frames: each once, but of chunks as
    many as the windows have, laid end to end."""
    seen = np.concatenate([pixels / 1000 * 2 - (1, height / 1000), np.ones_like(pixels[..., :1])], -1)
    x = torch.from_numpy(seen.astype(np.float32))
    frames = len(x)
    if kind == "frame":
        clips = x[:, None]
    elif kind == "chunk":
        starts = [*range(0, frames - window + 1, window)]
        if frames % window:
            starts.append(frames - window)
        clips = torch.stack([x[start : start + window] for start in starts])
    else:
        half = window // 2
        long = torch.cat([x[:1].expand(half, -1, -1), x, x[-1:].expand(half, -1, -1)])
        clips = long.unfold(0, window, 1).permute(0, 3, 1, 2)
    out = network(clips)
    if flip:
        out = (out + mirrored(network(mirrored(clips)))) / 2
    if kind != "chunk":
        return out[:, out.shape[1] // 2].double().numpy(), np.arange(frames)
    return out.flatten(0, 1).double().numpy(), np.concatenate([np.arange(start, start + window) for start in starts])


def of_videos(module, kind, window, videos):
    """Subject, take, predicted and true poses in mm, of every video."""
    found = []
    module.eval()
    for subject, take, pixels, camera, pose in videos:
        flip = module.hparams["flip_test"]
        pred, frames = predicted(module.model, kind, window, pixels, HEIGHT[camera.id], flip)
        pred, true = 1000 * pred, 1000 * (pose - pose[:, :1])[frames]
        if pred.shape[1] == 16:
            true = np.delete(true, 9, axis=1)
        found.append((subject, take, pred, true))
    return found


def network(backbone: str, **settings) -> LiftingModule:
    torch.manual_seed(3)
    return LiftingModule(backbone, target="camera", **settings)


def remembering(network: torch.nn.Module) -> None:
    """From now on the network answers an input that it has seen with what it gave then."""
    forward, given = network.forward, {}

    def answer(x: torch.Tensor) -> torch.Tensor:
        key = x.numpy().tobytes()
        if key not in given:
            given[key] = forward(x)
        return given[key]

    network.forward = answer


def by_action(videos, root, subjects=SCORED):
    return official.by_action([video for subject, *video in videos if subject in subjects], root)


def assert_met(found_actions, found_means, videos, root):
    actions = by_action(videos, root)
    means = official.mean_over_actions(actions)
    assert found_actions.keys() == actions.keys() and len(actions) == 15
    for action, numbers in actions.items():
        assert found_actions[action] == pytest.approx(numbers, abs=0.01), action
    assert {key: found_means[key] for key in means} == pytest.approx(means, abs=0.01)
    return means


#: kind -> backbone, its size, its published convention of the root, data
NETWORKS = {
    "semgcn": ("semgcn-base", {"dim_feat": 16}, "subtracted", "frame", {"window": 1}),
    "videopose3d": ("videopose3d-27", {"channels": 32}, "kept", "centre", {"window": 27, "sampling": "centred"}),
    "mhformer": (
        "mhformer-27",
        {"dim": 32, "hidden": 32, "depth": 1, "mhg_depth": 1},
        "zeroed",
        "centre",
        {"window": 27, "sampling": "centred"},
    ),
    "mixste": ("mixste-27", {"embed_dim": 32, "depth": 1}, "kept", "chunk", {"window": 27, "sampling": "chunks"}),
}


#: by the size of the network
SECONDS = dict.fromkeys(NETWORKS, 13) | {"mhformer": 30}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow(seconds=SECONDS[n])) for n in NETWORKS])
def test_the_official_numbers_by_action(stand_in, name):
    """By the convention of each network's own evaluation, and by the two others."""
    folder, videos = stand_in
    backbone, size, root, kind, cut = NETWORKS[name]
    data = MotionDataModule(str(folder), target="camera", batch_size=64, progress=False, **cut)
    data.setup()
    flip = name != "semgcn"
    module = network(backbone, backbone_args=size, flip_test=flip)
    assert module.root == root
    values, videos = {}, of_videos(module, kind, cut["window"], videos)
    remembering(module.model)
    for chosen in (root, *(other for other in official.ROOTS if other != root)):
        module.root = chosen
        found = evaluate(module, data.val_dataloader(), data.actions, subjects=data.subjects, protocol=data.rules)
        assert found.root == chosen and found.repeats == (kind == "chunk") and found.tested == "test"
        values[chosen] = assert_met(found.by_action, found.protocol, videos, chosen)
        assert found.by_subject.keys() == set(SCORED)
        for subject, numbers in found.by_subject.items():
            means = official.mean_over_actions(by_action(videos, chosen, (subject,)))
            assert {key: numbers[key] for key in means} == pytest.approx(means, abs=0.01), subject
        assert found.metrics["mpjve"] > 0 and 0 < found.metrics["depth_order_frames"] < 1, "of single frames too"
    assert len({round(of["p1"], 1) for of in values.values()}) == 3, "the conventions make a difference here"


def test_test_writes_and_prints_them_and_root_overrules(stand_in, tmp_path, monkeypatch, capsys):
    """By the command line, for a network of chunks."""
    folder, videos = stand_in
    module = network("mixste-27", backbone_args=NETWORKS["mixste"][1])
    torch.save({"model_pos": module.model.state_dict()}, tmp_path / "net.bin")
    videos = of_videos(module, "chunk", 27, videos)
    monkeypatch.chdir(tmp_path)
    command = ["test", "--config", "mixste-27", "--data.data", str(folder), "--data.progress", "false"]
    command += ["--model.backbone_args", "{embed_dim: 32, depth: 1}", "--init-from", "net.bin"]
    for extra, root in (([], "kept"), (["--root", "zeroed"], "zeroed")):
        assert main([*command, *extra]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        newest = max(Path("runs").glob("**/test.json"), key=lambda path: path.stat().st_mtime_ns)
        found = json.loads(newest.read_text())
        assert found["root"] == root
        means = assert_met(found["per_action"], found["protocol"], videos, root)
        assert f"(root: {root})" in shown and "of all frames pooled" in shown
        assert f"mean over actions {found['protocol']['p1']:.2f}" in shown
        assert f"protocol: p1 {found['protocol']['p1']:.2f}" in shown
        assert found["tested"] == "test" and found["repeats"] is True and "frames count twice" in shown
        assert "Scored: the held-out subjects." in shown
        for subject, numbers in found["per_subject"].items():
            assert f"{subject} {numbers['mpjpe']:.2f} {numbers['pa_mpjpe']:.2f} {numbers['p1']:.2f}" in shown
        assert found["metrics"]["mpjve"] > 0 and found["per_action_mpjpe"].keys() == found["per_action"].keys()
        assert means["mpjve"] > 0
        # the table above shows the frames pooled, as the file's metrics are, not the protocol's mean over actions
        assert f"test/mpjve, mm/frame {found['metrics']['mpjve']:.4f}"[:-1] in shown
        assert round(found["metrics"]["mpjve"], 2) != round(means["mpjve"], 2)
    assert main([*command, "--root", "gone"]) == 1
    error = capsys.readouterr().err
    assert "error: --root is 'gone'" in error and "kept" in error and "zeroed" in error and "Traceback" not in error


def test_steps_and_order_of_videos_whose_frames_come_mixed_up():
    """Two videos, their frames in any order, a frame missing from one; a single action."""
    from structloss.harness.videos import WholeVideos

    metric, joints = WholeVideos(1), 2
    rng = np.random.default_rng(0)
    errors, depths = rng.normal(size=(2, 6, joints, 3)), rng.normal(size=(2, 6, joints, 2))
    frames = [[0, 1, 2, 3, 4, 5], [0, 1, 3, 4]]  # of the second, 2 and 5 are not scored
    for video, t in ((1, 3), (0, 5), (0, 0), (1, 0), (0, 2), (1, 4), (0, 1), (1, 1), (0, 3), (0, 4)):
        numbers = torch.tensor([video]), torch.tensor([[t]])
        parts = (torch.tensor(values[video, t])[None, None] for values in (errors, depths))
        error, depth = parts
        weight = torch.ones(1, 1, joints)
        metric.update(error, weight, depth, action=torch.tensor([0]), video=numbers[0], frame=numbers[1])
    metric.pad(joints)
    by_action, pooled, right, frames_of = metric.compute()

    steps = [
        [np.linalg.norm(errors[v, t + 1] - errors[v, t], axis=-1).mean() for t in of if t + 1 in of]
        for v, of in enumerate(frames)
    ]
    want = sum(len(of) * np.mean(mean) for of, mean in zip(frames, steps, strict=True)) / 10
    assert by_action.item() == pytest.approx(want, rel=1e-6) and frames_of.item() == 10
    assert pooled.item() == pytest.approx(np.mean(steps[0] + steps[1]), rel=1e-6)
    pairs = [
        (depths[v, a, j, 0] < depths[v, b, j, 0]) == (depths[v, a, j, 1] < depths[v, b, j, 1])
        for v, of in enumerate(frames)
        for j in range(joints)
        for a in of
        for b in of
        if a < b
    ]
    assert right.item() == pytest.approx(np.mean(pairs))


def test_windows_laid_end_to_end():
    """Of a video of 7 frames, windows of 3: 0 1 2, 3 4 5, 4 5 6; steps from window to window count like others."""
    from structloss.harness.videos import WholeVideos

    metric, joints = WholeVideos(1, end_to_end=True), 2
    windows = [[4, 5, 6], [0, 1, 2], [3, 4, 5]]  # in any order
    errors = np.random.default_rng(1).normal(size=(3, 3, joints, 3))
    for numbers, error in zip(windows, errors, strict=True):
        place = {"frame": torch.tensor([numbers]), "video": torch.tensor([5]), "window": torch.tensor([numbers[0]])}
        metric.update(torch.tensor(error)[None], torch.ones(1, 3, joints), action=torch.tensor([0]), **place)
    value, _, _, frames = metric.compute()
    video = errors[[1, 2, 0]].reshape(9, joints, 3)
    assert value.item() == pytest.approx(np.linalg.norm(np.diff(video, axis=0), axis=-1).mean(), rel=1e-6)
    assert frames.item() == 9

"""Windows, the data module, and the way from clips to batches."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structloss.data import (
    TARGETS,
    Clip,
    MotionDataModule,
    PoseWindows,
    generate_clips,
    h36m_cameras,
    save_archive,
    to_millimetres,
)
from structloss.data.loading import Packed
from structloss.errors import ArgumentError, DataError, MissingFileError, UnknownNameError
from structloss.skeletons import convert, flip

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "real_mocap.npz"
needs_real = pytest.mark.skipif(
    not REAL.is_file(), reason=f"the real motion archive {REAL.name} is not at ../shared/data"
)


@pytest.fixture(scope="module")
def clips():
    """Clips of 50, 81, 100 and 27 frames of two people."""
    made = generate_clips(2, 2, 100, seed=3)
    return [Clip(c.positions[:n], c.subject, c.action, c.name) for c, n in zip(made, (50, 81, 100, 27), strict=True)]


def test_a_sample(clips):
    data = PoseWindows(clips, "train", window=27, views=2)
    sample = data[3]
    floats = {
        "input": (27, 17, 3), "target": (27, 17, 3), "weight": (27, 17), "root_depth": (27,), "intrinsics": (4,),
        "factor": (27,), "camera_pose": (27, 17, 3),
    }  # fmt: skip
    integers = ("subject", "action", "clip", "view", "start", "index")
    assert set(sample) == set(floats) | set(integers)
    for key, shape in floats.items():
        assert sample[key].shape == shape and sample[key].dtype == torch.float32 and sample[key].isfinite().all()
    for key in integers:
        assert sample[key].shape == () and sample[key].dtype == torch.int64
    clip = clips[sample["clip"]].centred()
    assert data.motions[sample["clip"]] == clip.key and sample["index"] == 3
    assert data.subjects[sample["subject"]] == clip.subject and data.actions[sample["action"]] == clip.action
    camera = h36m_cameras("S1")[sample["view"]]
    start = int(sample["start"])
    expected = camera.to_camera(clip.positions[start : start + 27]) * 1000
    np.testing.assert_allclose(sample["camera_pose"], expected, atol=1e-3)
    np.testing.assert_allclose(sample["root_depth"], expected[:, 0, 2] / 1000, atol=1e-6)
    assert (sample["weight"] == 1).all()
    # 2D detections are near the truth, but not on it
    away = (sample["input"] - sample["target"])[..., :2].norm(dim=-1) * 500
    assert 1 < away.mean() < 15
    assert sample["input"][..., 2].min() > 0 and sample["input"][..., 2].max() < 1
    sample["input"].zero_()
    assert data[3]["input"].abs().sum() > 0  # a sample is a copy


@pytest.mark.parametrize("target", TARGETS)
def test_exact_targets_score_zero(clips, target):
    data = PoseWindows(clips, "test", window=81, target=target)
    batch = torch.utils.data.default_collate([data[i] for i in range(len(data))])
    back = to_millimetres(batch["target"], batch, target)
    assert (back - batch["camera_pose"]).abs().max() < 0.01
    one = to_millimetres(data[2]["target"], data[2], target)
    assert (one - data[2]["camera_pose"]).abs().max() < 0.01


def test_exact_detections_are_the_targets_own_image(clips):
    sample = PoseWindows(clips, "test", window=27, detections="exact")[0]
    torch.testing.assert_close(sample["input"][..., :2], sample["target"][..., :2], rtol=0, atol=1e-6)
    assert (sample["input"][..., 2] == 1).all()


@pytest.mark.parametrize("window", [1, 7, 27, 50, 81, 100])
@pytest.mark.parametrize("overlap", [False, True])
def test_every_test_frame_is_scored_exactly_once(clips, window, overlap):
    data = PoseWindows(clips, "test", window=window, stride=(window + 1) // 2 if overlap else None, views=2)
    counts = [np.zeros((2, len(c), 17)) for c in clips]
    for i in range(len(data)):
        sample = data[i]
        weight, start = sample["weight"].numpy(), int(sample["start"])
        frames = min(window, len(clips[sample["clip"]]) - start)
        counts[sample["clip"]][sample["view"], start : start + frames] += weight[:frames]
        assert (weight[frames:] == 0).all()  # padding
    for count in counts:
        assert (count == 1).all()


@pytest.mark.parametrize("window", [27, 60])
def test_frames_that_an_earlier_window_has_scored_are_told(clips, window):
    """For evaluations that count them twice, and padding: with both weights every frame of every window counts."""
    data = PoseWindows(clips, "test", window=window, sampling="chunks", views=1)
    samples = [data[i] for i in range(len(data))]
    assert all(not (s["weight"] * s["weight_again"]).any() for s in samples)
    again = sum(float(s["weight_again"].sum()) for s in samples) / 17
    windows = sum(-(-len(clip) // window) for clip in clips)
    assert again == window * windows - sum(map(len, clips)) > 0
    assert "weight_again" not in PoseWindows(clips, "train", window=27, views=1)[0]
    assert "weight_again" not in PoseWindows(clips, "test", window=27, sampling="centred", views=1)[0]


def test_training_windows_by_stride(clips):
    data = PoseWindows(clips, "train", window=27, views=1)
    starts = {}
    for i in range(len(data)):
        starts.setdefault(int(data[i]["clip"]), []).append(int(data[i]["start"]))
    assert starts == {0: [0, 9, 18], 1: [0, 9, 18, 27, 36, 45, 54], 2: list(range(0, 74, 9)), 3: [0]}
    assert PoseWindows(clips, "train", window=81).stride == 27
    assert PoseWindows(clips, "test", window=81).stride == 81


@pytest.mark.parametrize(("window", "step"), [(9, 1), (9, 3), (4, 1), (81, 1)])
def test_centred_windows_repeat_the_ends(clips, window, step):
    """Every frame of every clip is the centre of one window, whose frames stop at the clip's ends."""
    data = PoseWindows(clips, "train", window=window, sampling="centred", frame_step=step, views=1, target="camera")
    assert len(data) == sum(len(clip) for clip in clips)
    whole = PoseWindows(clips[:1], "train", window=len(clips[0]), views=1, target="camera")[0]
    for centre in (0, 1, 20, len(clips[0]) - 1):
        frames = [min(max(centre + step * (k - window // 2), 0), len(clips[0]) - 1) for k in range(window)]
        sample = data[centre]
        for key in ("input", "target", "camera_pose", "root_depth"):
            torch.testing.assert_close(sample[key], whole[key][frames])
        assert (sample["weight"] == 1).all()
    strided = PoseWindows(clips, "train", window=window, sampling="centred", stride=3, views=1)
    assert len(strided) == sum(-(-len(clip) // 3) for clip in clips)
    test = PoseWindows(clips, "test", window=window, sampling="centred", stride=3, frame_step=step, views=1)
    assert len(test) == len(data)
    for i in (0, 30, len(test) - 1):
        assert test[i]["weight"].sum() == 17 and (test[i]["weight"][window // 2] == 1).all()


def test_chunks_lie_side_by_side_and_cover_every_frame(clips):
    """MixSTE's cut: as many windows as are needed, centred on the clip."""
    data = PoseWindows(clips, "train", window=27, sampling="chunks", views=1)
    starts = [[int(data[i]["start"]) for i in range(len(data)) if data[i]["clip"] == c] for c in range(4)]
    assert starts == [[-2, 25], [0, 27, 54], [-4, 23, 50, 77], [0]]  # 50, 81, 100 and 27 frames
    first = data[0]
    torch.testing.assert_close(first["target"][0], first["target"][2])
    assert (first["weight"] == 1).all()
    assert len(PoseWindows(clips, "train", window=243, sampling="chunks", views=1)) == 4  # shorter clips are padded


def test_mirrored_windows_follow_the_plain_ones(clips):
    plain = PoseWindows(clips, "train", window=27, views=1)
    data = PoseWindows(clips, "train", window=27, views=1, mirrored=True)
    assert len(data) == 2 * len(plain)
    one, other = data[3], data[len(plain) + 3]
    torch.testing.assert_close(one["input"], plain[3]["input"])
    torch.testing.assert_close(other["input"], flip(one["input"], data.skeleton))
    torch.testing.assert_close(other["target"], flip(one["target"], data.skeleton))
    torch.testing.assert_close(other["camera_pose"], one["camera_pose"])
    with pytest.raises(IndexError):
        data[len(data)]


def test_joints_of_mpi_inf_3dhp(clips):
    h36m = PoseWindows(clips, "train", window=27, views=1, target="camera")[0]
    data = PoseWindows(clips, "train", window=27, views=1, target="camera", skeleton="mpi_inf_3dhp")
    for key in ("input", "camera_pose"):
        torch.testing.assert_close(data[0][key], convert(h36m[key], "h36m", "mpi_inf_3dhp"))
    torch.testing.assert_close(data[0]["root_depth"], h36m["root_depth"])
    assert (data[0]["target"][:, 14] == 0).all()
    torch.testing.assert_close(data[0]["target"], convert(h36m["target"], "h36m", "mpi_inf_3dhp"))


@pytest.mark.parametrize("sampling", ["windows", "chunks"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_context_is_input_only(clips, sampling, split):
    """The windows are those of the shorter length, with more frames around them; test frames count once."""
    options = {"sampling": sampling, "views": 1, "target": "camera"}
    plain = PoseWindows(clips, split, window=9, **options)
    data = PoseWindows(clips, split, window=15, context=3, **options)
    assert len(data) == len(plain) and data.stride == plain.stride
    whole = {i: PoseWindows(clips[i : i + 1], window=len(c), views=1, target="camera") for i, c in enumerate(clips)}
    for a, b in zip(data, plain, strict=True):
        assert a["start"] == b["start"] - 3
        for key in ("input", "target", "camera_pose", "weight"):
            torch.testing.assert_close(a[key][3:-3], b[key], rtol=0, atol=0)
        if split == "test":
            assert not a["weight"][:3].any() and not a["weight"][-3:].any()
        frames = (a["start"] + torch.arange(15)).clamp(0, len(clips[a["clip"]]) - 1)
        if a["view"] == 0 and a["subject"] == 0 and split == "train":  # the same camera as in `whole`
            torch.testing.assert_close(a["input"], whole[int(a["clip"])][0]["input"][frames])


def test_statistics_are_those_of_all_windows(clips):
    data = PoseWindows(clips, "train", window=1, stride=1, views=1, target="camera", mirrored=True)
    found = data.statistics()
    targets = torch.cat([data[i]["target"] for i in range(len(data) // 2)]).double()
    torch.testing.assert_close(found["target_mean"], targets.mean(0).float())
    torch.testing.assert_close(found["target_std"], targets.std(0).float())
    assert found["input_mean"].shape == found["input_std"].shape == (17, 2) and not found["target_std"][0].any()


def test_short_clips(clips):
    padded = PoseWindows(clips, "train", window=81, views=1)
    last = padded[len(padded) - 1]
    assert last["clip"] == 3 and (last["weight"][:27] == 1).all() and (last["weight"][27:] == 0).all()
    for key in ("input", "target", "camera_pose"):
        torch.testing.assert_close(last[key][27:], last[key][26:27].expand(54, -1, -1), rtol=0, atol=0)
    skipped = PoseWindows(clips, "train", window=81, views=1, short_clips="skip")
    assert {int(skipped[i]["clip"]) for i in range(len(skipped))} == {1, 2}
    with pytest.raises(DataError, match=r"'syn01/walk_01' has 50 frames, fewer than the window of 81"):
        PoseWindows(clips, "train", window=81, short_clips="error")
    with pytest.raises(DataError, match=r"window of 101 frames, the longest is '.*' with 100"):
        PoseWindows(clips, "train", window=101)


def test_detections_depend_on_the_clip_and_the_seed_only(clips):
    a = PoseWindows(clips, "train", window=27)
    b = PoseWindows(clips[::-1], "train", window=27, actions=a.actions)
    first = {(a.motions[s["clip"]], int(s["view"]), int(s["start"])): s for s in (a[i] for i in range(len(a)))}
    for i in range(len(b)):
        sample = b[i]
        same = first[(b.motions[sample["clip"]], int(sample["view"]), int(sample["start"]))]
        torch.testing.assert_close(sample["input"], same["input"], rtol=0, atol=0)
    assert (PoseWindows(clips, "train", window=27, seed=1)[0]["input"] - a[0]["input"]).abs().max() > 1e-3
    assert (a[0]["input"] - PoseWindows(clips, "train", window=27)[0]["input"]).abs().max() == 0


def test_cameras_can_be_chosen(clips):
    own = [h36m_cameras("S11")[:1]] * 4
    a = PoseWindows(clips, "train", window=27, cameras=own)
    b = PoseWindows(clips, "train", window=27, cameras=lambda i, clip: h36m_cameras("S11")[:1])
    assert len(a) == len(b) and (a[0]["camera_pose"] == b[0]["camera_pose"]).all()
    default = PoseWindows(clips, "test", window=27, views=1)  # S9 for the first subject, S11 for the second
    assert (default[0]["camera_pose"] - a[0]["camera_pose"]).abs().max() > 10
    assert default[len(default) - 1]["intrinsics"].equal(a[len(a) - 1]["intrinsics"])
    with pytest.raises(ArgumentError, match="cameras has 1 entries, expected 4"):
        PoseWindows(clips, "train", window=27, cameras=own[:1])
    with pytest.raises(ArgumentError, match="has 1 cameras, expected at least 2"):
        PoseWindows(clips, "train", window=27, cameras=own, views=2)


def test_window_errors(clips):
    for options, expected in (
        ({"split": "val"}, "split is 'val'"),
        ({"target": "world"}, "target is 'world'"),
        ({"detections": "real"}, "detections is 'real'"),
        ({"short_clips": "drop"}, "short_clips is 'drop'"),
        ({"window": 0}, "window is 0"),
        ({"sampling": "random"}, "sampling is 'random'"),
        ({"window": 27, "frame_step": 2}, "frame_step is 2, expected 1, or more with sampling 'centred'"),
        ({"window": 27, "sampling": "chunks", "stride": 9}, "stride is 9, expected None with sampling 'chunks'"),
        ({"window": 27, "stride": 28}, "stride is 28, expected 1 to 27"),
        ({"window": 27, "views": 5}, "has 4 cameras, expected at least 5"),
        ({"window": 27, "subjects": ["x"]}, "subjects does not list 'syn01'"),
        ({"window": 27, "skeleton": "coco"}, "no conversion from 'h36m' to 'coco'"),
        ({"window": 27, "seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ArgumentError, match=expected):
            PoseWindows(clips, **options)
    with pytest.raises(UnknownNameError, match="'h36'"):
        PoseWindows(clips, window=27, skeleton="h36")
    with pytest.raises(DataError, match="clips is empty"):
        PoseWindows([], window=27)
    positions = clips[2].positions.copy()
    positions[50:] += np.float32([1.8, 8.0, 0.0])  # walks out past a camera
    with pytest.raises(DataError, match=r"'a/b' comes within .* of the image plane of camera 54138969"):
        PoseWindows([Clip(positions, "a", "x", "b")], window=27, recentre=False)


# The data module ----------------------------------------------------------------------------------------------------

SMALL = {"window": 27, "num_subjects": 4, "clips_per_subject": 2, "frames": 60, "views": 1, "batch_size": 4}


def test_split_by_subject_and_shared_labels():
    module = MotionDataModule(**SMALL)
    module.setup("fit")
    train, val = module.train_dataset, module.val_dataset
    module.setup("test")
    assert module.train_dataset is train  # built once
    assert set(train.store.subjects) == {"syn01", "syn02", "syn03"}
    assert set(val.store.subjects) == {"syn04"}
    assert module.subjects == ("syn01", "syn02", "syn03", "syn04") and module.actions == ("reach", "walk")
    assert train.subjects == val.subjects and train.actions == val.actions
    assert val[0]["subject"] == 3 and module.skeleton.name == "h36m"
    val_batches, test_batches = list(module.val_dataloader()), list(module.test_dataloader())
    for a, b in zip(val_batches, test_batches, strict=True):
        assert all(a[key].equal(b[key]) for key in a)
    assert sum(b["weight"].sum() for b in val_batches) == 2 * 60 * 17
    chosen = MotionDataModule(**SMALL, val_subjects=["syn02"])
    assert set(chosen.val_dataset.store.subjects) == {"syn02"}


def order(module, epoch):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [(int(c), int(s)) for b in loader for c, s in zip(b["clip"], b["start"], strict=True)]


def test_training_order_is_fixed_by_seed_and_epoch():
    a, b = MotionDataModule(**SMALL), MotionDataModule(**SMALL)
    assert order(a, 0) == order(b, 0) and order(a, 3) == order(b, 3)
    assert order(a, 0) != order(a, 1) and sorted(order(a, 0)) == sorted(order(a, 1))
    assert order(MotionDataModule(**SMALL, seed=1), 0) != order(a, 1)


def test_the_last_batch_is_dropped_only_if_it_is_a_single_sample():
    sizes = {}
    for batch_size in (1, 4, 5, 23, 100):
        module = MotionDataModule(**{**SMALL, "batch_size": batch_size})
        total = len(module.train_dataset)
        sizes[batch_size] = [len(b["input"]) for b in module.train_dataloader()]
        assert sum(sizes[batch_size]) == total - (total % batch_size == 1 and batch_size > 1)
        assert batch_size == 1 or min(sizes[batch_size]) > 1
    assert total == 24 and sizes[23] == [23] and sizes[5] == [5, 5, 5, 5, 4]


def assert_same_batches(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert list(a) == list(b)
        for key, value in b.items():
            assert a[key].dtype == value.dtype and torch.equal(a[key], value), key


def test_batches_of_loader_processes_are_the_same_in_one_buffer():
    alone, workers = (MotionDataModule(**SMALL, num_workers=n).train_dataloader() for n in (0, 2))
    assert len(alone) == len(workers)
    for epoch in range(2):  # the processes stay
        for loader in (alone, workers):
            loader.sampler.set_epoch(epoch)
        batches = list(workers)
        assert_same_batches(batches, alone)
        for batch in batches:
            assert len({value.untyped_storage().data_ptr() for value in batch.values()}) == 1
    batch = batches[0]
    before = batch["target"].clone()
    batch["input"].fill_(7)  # tensors do not overlap
    assert torch.equal(batch["target"], before)


@given(st.data())
def test_any_batch_survives_packing(data):
    dtypes = st.sampled_from([torch.bool, torch.uint8, torch.float16, torch.float32, torch.int64, torch.float64])
    shapes = st.lists(st.integers(0, 4), min_size=1, max_size=3)
    batch = {}
    for number in range(data.draw(st.integers(1, 5))):
        values = torch.randint(0, 2, data.draw(shapes)).to(data.draw(dtypes))
        batch[f"key{number}"] = values.transpose(0, -1) if data.draw(st.booleans()) else values
    assert_same_batches([Packed.of(batch).batch()], [batch])


@pytest.mark.gpu
def test_batches_of_loader_processes_are_pinned():
    alone, workers = (MotionDataModule(**SMALL, num_workers=n).train_dataloader() for n in (0, 2))
    batches = list(workers)
    assert all(value.is_pinned() for batch in batches for value in batch.values())
    assert_same_batches(batches, alone)


def test_lightning_predicts_with_loader_processes(tmp_path):
    """It builds the loader anew around another sampler."""
    lightning = pytest.importorskip("lightning")

    class Echo(lightning.LightningModule):
        def predict_step(self, batch, index):
            return batch

    options = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "default_root_dir": tmp_path}
    data = MotionDataModule(**SMALL, num_workers=2)
    found = lightning.Trainer(**options).predict(Echo(), datamodule=data)
    assert_same_batches(found, MotionDataModule(**SMALL).predict_dataloader())


def test_lightning_tells_the_epoch_and_a_resumed_run_sees_the_same_order(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Recorder(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen = []

        def training_step(self, batch, index):
            self.seen.append((self.current_epoch, batch["clip"].tolist(), batch["start"].tolist()))
            return self.weight * batch["input"].mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(epochs, checkpoint=None):
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=tmp_path, enable_checkpointing=False, **options)
        model = Recorder()
        trainer.fit(model, datamodule=MotionDataModule(**SMALL, num_workers=0), ckpt_path=checkpoint)
        return trainer, model.seen

    _, seen = fit(3)
    epochs = [[batch for epoch, *batch in seen if epoch == e] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    short, first = fit(1)
    short.save_checkpoint(tmp_path / "one.ckpt")
    _, rest = fit(3, tmp_path / "one.ckpt")
    assert first + rest == seen


def test_module_errors(tmp_path, clips):
    with pytest.raises(
        DataError, match=r"no training clip of the synthetic motion .* window of 61 .* has 60; .*frames of"
    ):
        MotionDataModule(**{**SMALL, "window": 61}).setup()
    with pytest.raises(ArgumentError, match="val_subjects has 'bob', expected subjects of the synthetic motion: syn01"):
        MotionDataModule(**SMALL, val_subjects=["bob"]).setup()
    with pytest.raises(DataError, match="the training split of the synthetic motion is empty"):
        MotionDataModule(**{**SMALL, "num_subjects": 1}).setup()
    with pytest.raises(DataError, match="the validation split of the synthetic motion is empty"):
        MotionDataModule(**SMALL, val_subjects=[]).setup()
    with pytest.raises(MissingFileError, match=r"nothing.npz does not exist"):
        MotionDataModule(str(tmp_path / "nothing.npz")).setup()
    for options, expected in (
        ({"window": 0}, "window is 0"),
        ({"sampling": "random"}, "sampling is 'random'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"views": 5}, "views is 5"),
        ({"stride": 300}, "stride is 300"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"target": "x"}, "target is 'x'"),
    ):
        with pytest.raises(ArgumentError, match=expected):
            MotionDataModule(**options)
    path = tmp_path / "clips.npz"
    save_archive(path, clips)
    with pytest.raises(DataError, match=r"no training clip of .*clips.npz is as long as the window of 90 .* most 81"):
        MotionDataModule(str(path), window=90).setup()
    module = MotionDataModule(str(path), window=27)
    assert set(module.val_dataset.store.subjects) == {"syn02"}


@needs_real
def test_real_motion_with_the_published_windows():
    module = MotionDataModule(str(REAL), window=243, views=1, detections="exact", progress=False)
    train, val = module.train_dataset, module.val_dataset
    assert set(val.store.subjects) == {"cmu03", "cmu35", "cmu127"}
    assert not set(val.store.subjects) & set(train.store.subjects)
    assert train.stride == 81 and len(module.subjects) == 11
    scored = sum(int(val[i]["weight"][:, 0].sum()) for i in range(len(val)))
    assert scored == val.store.frames
    worst = 0.0
    for i in range(0, len(val), 5):
        sample = val[i]
        worst = max(worst, float((to_millimetres(sample["target"], sample) - sample["camera_pose"]).abs().max()))
    assert worst < 0.01


def test_importing_the_data_package_needs_no_lightning():
    code = (
        "import sys, structloss.data as d; d.PoseWindows; d.generate_clips; d.load_archive; "
        "assert not [m for m in sys.modules if m.split('.')[0] in ('lightning', 'pytorch_lightning', 'matplotlib')]; "
        "assert set(d.__all__) <= set(dir(d))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

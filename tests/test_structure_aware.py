"""Training on 2D alone beside labelled clips: the loss by its definition, its batches, its data, its effect."""

import json
import math
import types
from pathlib import Path

import fake_data
import lightning as L
import numpy as np
import pytest
import torch
from golden.fill import fill_input
from lightning.pytorch.callbacks import ModelCheckpoint

from structloss import metrics, skeletons
from structloss.cli import main
from structloss.data import MotionDataModule, generate_clips, observe, save_archive, save_store
from structloss.data.cameras import normalize_screen
from structloss.data.unlabelled import has_keypoints_alone, read_unlabelled
from structloss.errors import ArgumentError, DataError
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.lifting import LiftingModule
from structloss.harness.structure_aware import StructureAwareSettings, structure_poses
from structloss.harness.training import train

H36M = skeletons.get("h36m")
GOLDEN = np.load(Path(__file__).parent / "golden" / "sapnet.npz")
SMALL = {"dim_feat": 16, "mlp_ratio": 1, "depth": 1, "num_heads": 2, "dim_rep": 16, "predict_offset": True}


def data_of(**options):
    options = {"window": 3, "stride": 3, "batch_size": 16, "target": "root_relative", "views": 1} | options
    options = {"num_subjects": 4, "clips_per_subject": 1, "frames": 60, "detections": "exact"} | options
    if "unlabelled" not in options:
        options.setdefault("unlabelled_subjects", ["syn02", "syn03"])
    return MotionDataModule(progress=False, **options)


def module_of(backbone="repose-tiny", arguments=SMALL, **options):
    options = {"structure_aware": {"warmup": 0}, "objective": {"mpjpe": 1.0}, "lr": 1e-3} | options
    return LiftingModule(backbone, arguments, **{"target": "root_relative"} | options)


def stand_in(data, **more):
    """Of a trainer at the first step."""
    batches = math.ceil(len(data.train_dataset) / data.batch_size)
    return types.SimpleNamespace(
        datamodule=data, **{"world_size": 1, "num_training_batches": batches, "training": True, "current_epoch": 0,
        "global_rank": 0} | more,
    )  # fmt: skip


def began(module, data, **more):
    """The module at the first step of training."""
    module._trainer = stand_in(data, **more)
    module.structure_aware.begin(module)
    return module.structure_aware


# The loss


def by_hand(poses, visible, weights=(0.03, 0.05, 0.03)):
    """λ_a L_a + λ_s L_s + λ_g L_g of `[N, 17, 3]` and `[N, 17]`, each a mean over frames with a visible joint; float64,
    a pose at a time from the paper's formulas and the table of joints."""
    hinges = [(8, 14, 15, 16, -1), (8, 11, 12, 13, 1), (0, 1, 2, 3, 1), (0, 4, 5, 6, -1)]
    pairs = [((1, 2), (4, 5)), ((2, 3), (5, 6)), ((14, 15), (11, 12)), ((15, 16), (12, 13))]
    leg, arm = 456.008604234 / 452.125519758, 284.125346475 / 249.772589249
    groups = [
        [((1, 2), 1), ((2, 3), leg), ((4, 5), 1), ((5, 6), leg)],
        [((11, 12), 1), ((12, 13), arm), ((14, 15), 1), ((15, 16), arm)],
        [((0, 1), 1), ((0, 4), 1)],
        [((8, 14), 1), ((8, 11), 1)],
    ]
    sums, frames = np.zeros(3), 0
    for pose, seen in zip(poses, visible, strict=True):
        frames += bool(seen.any())
        length = lambda bone, pose=pose: math.dist(pose[bone[0]], pose[bone[1]])  # noqa: E731
        for a, b, c, d, sign in hinges:
            if seen[[a, b, c, d]].all():
                product = sign * np.linalg.det(np.stack([pose[b] - pose[a], pose[c] - pose[b], pose[d] - pose[c]]))
                sums[0] += max(product, 0) * math.exp(max(product, 0))
        for one, other in pairs:
            if seen[[*one, *other]].all():
                sums[1] += abs(length(one) - length(other))
        for group in groups:
            if counted := [factor * length(bone) for bone, factor in group if seen[list(bone)].all()]:
                sums[2] += np.var(counted)
    return float(np.dot(weights, sums) / frames)


def test_loss_of_a_batch_is_the_one_by_hand_and_only_depth_gets_a_gradient():
    data = data_of(batch_size=4)
    module = module_of(structure_aware={"warmup": 0, "scale": 1.5}).double()
    structure = began(module, data)
    seen, visible = structure.draw(module, 0, 4)
    visible[0, 1, 15] = visible[1, 2] = visible[2, :, 0] = 0
    prediction = torch.randn(4, 3, 17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prediction = (0.3 * prediction).requires_grad_()
    total, terms = structure.of(module, prediction, seen.double(), visible.double())
    poses = torch.cat([seen[..., :2].double(), prediction.detach()[..., 2:]], -1).flatten(0, 1)
    expected = by_hand(1.5 * poses.numpy(), visible.flatten(0, 1).numpy() > 0)
    assert total.dtype == torch.float64 and float(total.detach()) == pytest.approx(expected, rel=1e-10)
    weights = StructureAwareSettings().weights
    assert weights == {"illegal_angle": 0.03, "bone_symmetry": 0.05, "bone_ratio": 0.03}
    assert float(sum(weights[name] * value for name, value in terms.items())) == pytest.approx(expected, rel=1e-10)
    total.backward()
    assert (prediction.grad[..., :2] == 0).all() and (prediction.grad[..., 2] != 0).sum() > 50
    assert (prediction.grad[1, 2] == 0).all()  # an invisible frame
    poses = structure_poses(prediction, seen.double(), "camera")
    assert poses is prediction  # metres: the whole pose


def test_loss_and_gradient_are_the_golden_ones():
    """x and y of one set, depth of another: the published weights in float64."""
    pred = torch.from_numpy(fill_input("loss-pred", (4, 27, 17, 3))).double().requires_grad_()
    seen = torch.from_numpy(fill_input("loss-gt", (4, 27, 17, 3))).double()
    module = module_of()
    total, _ = module.structure_aware.of(module, pred, seen, torch.ones(4, 27, 17))
    torch.testing.assert_close(total, torch.tensor(GOLDEN["structure_aware_depth"]), rtol=1e-12, atol=0)
    total.backward()
    expected = torch.from_numpy(GOLDEN["structure_aware_depth__grad"])
    torch.testing.assert_close(pred.grad[..., 2], expected, rtol=1e-10, atol=1e-14)
    assert (pred.grad[..., :2] == 0).all()


def test_joints_that_a_network_lacks_weigh_nothing():
    data = data_of(window=1, stride=1)
    module = module_of("semgcn-base", None)
    structure = began(module, data)
    assert structure.joints == [joint for joint in range(17) if joint != 9]
    seen, visible = structure.draw(module, 0, 16)
    full = seen.clone()
    full[..., 2] = torch.randn(16, 1, 17)
    total, _ = structure.of(module, module.model.match(full), seen, visible)
    other = module_of()
    visible[..., 9] = 0
    torch.testing.assert_close(total, other.structure_aware.of(other, full, seen, visible)[0])


def test_loss_is_float32_under_autocast():
    data = data_of()
    module = module_of()
    structure = began(module, data)
    batch = data.train_dataset.batch(range(16))
    _, exact, _ = structure.step(module, batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        _, total, terms = structure.step(module, batch, 0)
    assert {value.dtype for value in (total, *terms.values())} == {torch.float32}
    torch.testing.assert_close(total, exact, rtol=0.05, atol=1e-3)


# The batches


def test_as_many_unlabelled_windows_as_labelled_seen_once_each():
    """A cycle has every window once, whatever process draws it; mirrored by the share that the labelled ones are."""
    data = data_of(batch_size=5)
    windows = data.unlabelled_dataset
    count = len(windows)
    alone = began(module_of(), data)
    two = [began(module_of(), data) for _ in range(2)]
    drawn = {"alone": [], "two": []}
    for step in range(count // 10):
        for rank, structure in enumerate(two):
            module = types.SimpleNamespace(
                trainer=stand_in(data, world_size=2), hparams={"seed": 3}, current_epoch=0, global_rank=rank
            )
            drawn["two"] += structure._unlabelled.draw(module, step, 5)["index"].tolist()
        for half in range(2):
            module = types.SimpleNamespace(trainer=stand_in(data), hparams={"seed": 3}, current_epoch=0, global_rank=0)
            drawn["alone"] += alone._unlabelled.draw(module, 2 * step + half, 5)["index"].tolist()
    for indices in drawn.values():
        assert len(set(indices)) == len(indices) > 0.7 * count
    assert set(drawn["two"]) == set(drawn["alone"])

    module = module_of(flip_probability=1.0)
    structure = began(module, data)
    seen, visible = structure.draw(module, 0, 5)
    module.hparams["flip_probability"] = 0.0
    plain, _ = structure.draw(module, 0, 5)
    torch.testing.assert_close(skeletons.flip(plain, H36M), seen)
    assert seen.shape == (5, 3, 17, 3) and (visible == 1).all()


def test_warmup_then_half_of_every_batch():
    """The log has the terms after the warm-up, and the network is shown twice the windows."""
    data = data_of(num_subjects=3, unlabelled_subjects=["syn02"])
    module = module_of(structure_aware={"warmup": 1})
    sizes = []
    module.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    curves = train(module, data, steps=4, validations=0, evaluation=False, quiet=True).curves
    assert len(data.train_dataset) == 20 and sizes == [16, 4, 32, 8]
    for term in ("illegal_angle", "bone_symmetry", "bone_ratio"):
        known = np.isfinite(curves[f"train_structure_{term}"])
        assert known.tolist() == [False, False, True, True]
    total, mpjpe = np.array(curves["train_loss"]), np.array(curves["train_mpjpe"])
    assert total[:2] == pytest.approx(mpjpe[:2]) and (total[2:] > mpjpe[2:]).all()


_KINDS = {
    "repose-tiny": (SMALL, {}),
    "videopose3d-27": ({"filter_widths": [3], "channels": 16}, {"sampling": "centred", "stride": 1}),
    "simplebaseline-16j": ({"linear_size": 16}, {"window": 1, "stride": 1}),
    "semgcn-base": (None, {"window": 1, "stride": 1}),
    "mixste-27": ({"frames": 3, "depth": 1, "embed_dim": 16}, {"sampling": "chunks", "stride": None}),
    "d3dp-27": ({"frames": 3, "depth": 1, "embed_dim": 16}, {"sampling": "chunks", "stride": None, "target": "camera"}),
    "jointformer-h36m": (None, {"window": 1, "stride": 1, "batch_size": 2}),
    "pstmo-s-243": ({"frames": 9, "dim": 16, "strides": [3, 3]}, {"window": 9, "sampling": "centred", "stride": 3}),
}


@pytest.mark.parametrize("name", _KINDS)
def test_any_network_trains_so(name):
    arguments, cut = _KINDS[name]
    module = module_of(name, arguments, target=cut.get("target", "root_relative"))
    data = data_of(**cut)
    before = {key: p.detach().clone() for key, p in module.model.named_parameters()}
    curves = train(module, data, steps=2, validations=0, evaluation=False, quiet=True).curves
    assert np.isfinite(curves["train_structure_bone_symmetry"]).all() and np.isfinite(curves["train_loss"]).all()
    after = dict(module.model.named_parameters())
    assert sum(not torch.equal(after[key], value) for key, value in before.items()) > 0.7 * len(before)


def test_beside_a_learned_loss_learned_weights_and_mirrored_windows():
    module = module_of(
        learned={"net": "graph-small", "weight": 0.1, "warmup": 0.0}, learn_weights=True, flip_probability=0.0
    )
    curves = train(module, data_of(mirrored=True), steps=3, validations=0, evaluation=False, quiet=True).curves
    for name in ("loss", "structure_illegal_angle", "learned_energy_prediction", "mpjpe"):
        assert np.isfinite(curves[f"train_{name}"]).all(), name


def test_resumed_training_is_the_uninterrupted_one(tmp_path):
    """To the bit, from the middle of an epoch."""

    def fit(steps, resume=None):
        L.seed_everything(0, verbose=False)
        trainer = L.Trainer(
            max_epochs=-1, max_steps=steps, accelerator="cpu", logger=False,
            callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)],
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, plugins=[SafeCheckpointIO()],
        )  # fmt: skip
        module = module_of(structure_aware={"warmup": 1})
        trainer.fit(module, datamodule=data_of(batch_size=8), ckpt_path=resume)
        return module.state_dict()

    whole = fit(7)
    resumed = fit(7, str(tmp_path / "step=3.ckpt"))
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


# What it is for


@pytest.mark.slow(seconds=9)
def test_people_without_labels_bend_the_right_way():
    """One person has labels. From one warm start, training goes on without and with 2D of three others: fewer of
    theirs elbows and knees bend the wrong way (here a third fewer), their limbs are no less alike, and places about as
    accurate."""

    def data():
        apart = ["syn02", "syn03", "syn04"]
        return data_of(window=1, stride=1, views=2, frames=80, num_subjects=5, batch_size=32, unlabelled_subjects=apart)

    def trained(structure, steps, seed, start=None):
        module = module_of(structure_aware=structure, lr=3e-3, schedule="cosine")
        if start is not None:
            module.load_state_dict(start.state_dict())
        train(module, data(), steps=steps, validations=0, evaluation=False, quiet=True, seed=seed)
        return module.eval()

    windows = data().unlabelled_dataset
    batch = windows.batch(range(len(windows)))
    start = trained(None, 100, 0)
    unit = {"warmup": 0, "scale": 2.5, "illegal_angle": 0.05, "options": {"illegal_angle": {"normalize_bones": True}}}
    found = {}
    for name, structure in (("without", None), ("with", unit)):
        module = trained(structure, 120, 10, start)
        with torch.no_grad():
            poses = module.to_millimetres(module.model(batch["input"]), batch)
        poses, true = (skeletons.relative(one, 0) for one in (poses, batch["camera_pose"]))
        found[name] = [
            float(metrics.illegal_angle_rate(poses)), float(metrics.limb_symmetry(poses).mean()),
            float(metrics.mpjpe(poses, true)),
        ]  # fmt: skip
    print(found)
    assert found["with"][0] < 0.8 * found["without"][0]
    assert found["with"][1] < 1.05 * found["without"][1]
    assert found["with"][2] < 1.1 * found["without"][2]


# The data


def coco(path, people=3, width=640, height=480, **changed):
    """Annotations of one person in each of some images, one keypoint without a label."""
    rng = np.random.default_rng(0)
    images = [{"id": i, "width": width, "height": height, "file_name": f"{i}.jpg"} for i in range(people)]
    annotations = []
    for i in range(people):
        points = np.concatenate([rng.uniform(100, 300, (17, 2)), np.full((17, 1), 2)], axis=1)
        points[9] = 0  # the left wrist
        annotations.append(
            {"id": i, "image_id": i, "category_id": 1, "keypoints": points.flatten().tolist(), "num_keypoints": 16,
             "bbox": [100, 100, 200, 200], "iscrowd": 0, "area": 4e4}
        )  # fmt: skip
    return fake_data.write_json(path, {"images": images, "annotations": annotations, "categories": []} | changed)


def test_annotated_images_are_clips_of_a_frame(tmp_path):
    """In windows of several frames the others weigh nothing, and so does a keypoint that is not annotated."""
    path = coco(tmp_path / "person_keypoints.json")
    data = data_of(unlabelled=str(path), window=9, stride=9)
    windows = data.unlabelled_dataset
    assert len(windows) == 3 and windows.store.skeleton == "h36m"
    assert windows.within([0, 1, 2]).sum(1).tolist() == [1, 1, 1]
    module = module_of(flip_probability=0.0)
    structure = began(module, data)
    seen, visible = structure.draw(module, 0, 3)
    assert seen.shape == (3, 9, 17, 3) and visible.sum((0, 2)).tolist() == [48] + [0] * 8
    assert (visible[:, 0, 13] == 0).all()  # the left wrist
    total, _ = structure.of(module, torch.randn(3, 9, 17, 3, requires_grad=True), seen, visible)
    total.backward()
    assert float(total) > 0
    for options in ({"short_clips": "skip"}, {"short_clips": "error"}):
        with pytest.raises(ArgumentError, match=r"unlabelled is '.*json' with clips of at most 1 frames, expected"):
            _ = data_of(unlabelled=str(path), window=9, stride=9, **options).unlabelled_dataset
    centred = data_of(unlabelled=str(path), window=9, stride=1, sampling="centred").unlabelled_dataset
    assert centred.within([0]).tolist() == [[False] * 4 + [True] + [False] * 4]


def test_2d_of_any_data_set_is_taken_and_its_3d_left_alone(tmp_path):
    clips = generate_clips(2, 1, 20, seed=1)
    store = observe(clips, "train", views=2)
    save_archive(tmp_path / "motion.npz", clips)
    save_store(store, tmp_path / "seen.poses")
    fake_data.write_h36m_npz(tmp_path, frames=12)
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 900, (30, 17, 2)).astype(np.float32)
    np.savez(tmp_path / "points.npz", keypoints=pixels, width=1000, height=800, fps=25.0)
    for name, frames, options in (
        ("seen.poses", 80, None),
        ("motion.npz", 80, None),
        ("data_3d_h36m.npz", 192, None),
        ("data_2d_h36m_gt.npz", 200, {"image_size": [1000, 1000]}),
        ("points.npz", 30, {"layout": "h36m"}),
    ):
        found = read_unlabelled(tmp_path / name, options=options, views=2)
        assert found.frames == frames and not found.pose.any() and found.label is None, name
        if name in ("seen.poses", "motion.npz"):
            np.testing.assert_array_equal(found.input, store.input)
        if name == "points.npz":
            np.testing.assert_allclose(found.input[..., :2], normalize_screen(pixels, 1000, 800), atol=1e-6)
            assert (found.input[..., 2] == 1).all()
    other = read_unlabelled(tmp_path / "seen.poses", "mpi_inf_3dhp")
    expected = skeletons.convert(store.input, "h36m", "mpi_inf_3dhp", confidence=True)
    np.testing.assert_array_equal(other.input, expected)


def test_unlabelled_frames_are_thinned_as_labelled_ones_and_not_scored(tmp_path):
    save_store(observe(generate_clips(1, 1, 20, seed=1), "train", views=1), tmp_path / "seen.poses")
    data = data_of(unlabelled=str(tmp_path / "seen.poses"), downsample=2, subset=0.5)
    assert data.unlabelled_dataset.store.frames == 10
    assert "syn01" in data.train_dataset.subjects and len(data.train_dataset.subjects) == 4
    assert data.hparams["unlabelled"] == str(tmp_path / "seen.poses")


def test_semi_supervised_training_takes_the_2d_of_a_file_whose_cameras_are_known(tmp_path):
    save_store(observe(generate_clips(1, 1, 20, seed=1), "train", views=2), tmp_path / "seen.poses")
    options = {"sampling": "centred", "window": 9, "stride": 1, "target": "camera", "mirrored": True}
    arguments = {"filter_widths": [3, 3], "channels": 16}
    settings = {"structure_aware": None, "semi_supervised": {"warmup": 0}, "target": "camera", "flip_probability": 0.0}

    def reprojection(path):
        data = data_of(unlabelled=str(path), **options)
        module = module_of("videopose3d-27", arguments, **settings)
        return train(module, data, steps=2, validations=0, evaluation=False, quiet=True).curves["train_reprojection"]

    assert np.isfinite(reprojection(tmp_path / "seen.poses")).all()
    with pytest.raises(ArgumentError, match="unlabelled has 'unlabelled', whose cameras are not all known"):
        reprojection(coco(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("write", "options", "sentence"),
    [
        (lambda path: coco(path / "a.json"), {"skeleton": "h3wb"}, "which can't be used: .* has the layout 'coco'"),
        (lambda path: coco(path / "a.json", annotations=[]), {}, "a.json"),
        (lambda path: fake_data.write_json(path / "a.json", {"x": 1}), {}, "a.json holds"),
        (lambda path: path / "none.json", {}, "none.json does not exist"),
        (lambda path: _save(path, np.zeros((4, 17, 2)) + 0.5), {"options": {"layout": "h36m"}}, "how large its images"),
        (
            lambda path: _save(path, np.zeros((4, 17, 2)) + 0.5),
            {"options": {"layout": "h36m", "image_size": [64, 64]}},
            "unlabelled is .* lie within -2 to 2, expected pixels of an image of 64 x 64",
        ),
        (lambda path: _save(path, np.ones((4, 17, 2))), {"options": {"image_size": [64]}}, "image_size .64., expected"),
        (lambda path: coco(path / "a.json"), {"options": {"format": "store"}}, "a.json"),
        (lambda path: coco(path / "a.json"), {"options": {"reference": "x"}}, "unlabelled_options has 'reference'"),
        (lambda path: coco(path / "a.json"), {"options": {"sise": 1}}, "entry of unlabelled_options 'sise'"),
    ],
)
def test_unlabelled_files_that_cannot_be(tmp_path, write, options, sentence):
    path = write(tmp_path)
    with pytest.raises((ArgumentError, DataError, FileNotFoundError, ValueError), match=sentence) as caught:
        read_unlabelled(path, **options)
    assert "\n" not in str(caught.value)


def _save(folder, array):
    np.save(folder / "points.npy", array)
    return folder / "points.npy"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"structure_aware": {"illegal": 1}}, "structure_aware has 'illegal', expected some of illegal_angle, bone_sy"),
        ({"structure_aware": {"warmup": 0.5}}, "structure_aware.warmup is 0.5, expected a whole number of at least 0"),
        ({"structure_aware": {"scale": 0}}, "structure_aware.scale is 0, expected a number above 0"),
        ({"structure_aware": {"bone_ratio": -1}}, "structure_aware.bone_ratio is -1, expected a number of at least 0"),
        (
            {"structure_aware": {"illegal_angle": 0, "bone_symmetry": 0, "bone_ratio": 0}},
            "structure_aware has no term with a weight",
        ),
        ({"structure_aware": {"options": {"mpjpe": {}}}}, "structure_aware.options has 'mpjpe', expected options of"),
        ({"structure_aware": {"options": {"bone_symmetry": {"pears": 1}}}}, "pears"),
        ({"backbone": "pstmo-pretrain-s-243", "arguments": None}, "structure_aware is set, expected None for pstmo-pr"),
        ({"backbone": "simplebaseline-16j", "arguments": None, "standardise": True}, "standardise is True"),
        (
            {"backbone": "videopose3d-27", "arguments": None, "semi_supervised": {}, "target": "camera",
             "flip_probability": 0.0},
            "structure_aware is set, expected None with semi_supervised",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        module_of(**options)


def test_what_does_not_go_together(tmp_path):
    path = coco(tmp_path / "a.json")
    with pytest.raises(ArgumentError, match="unlabelled and unlabelled_subjects are both given"):
        data_of(unlabelled=str(path), unlabelled_subjects=["syn02"])
    with pytest.raises(ArgumentError, match=r"unlabelled_options is .*, expected it with unlabelled"):
        data_of(unlabelled_options={"layout": "coco"})
    with pytest.raises(ArgumentError, match="unlabelled is None, expected 2D keypoints, or unlabelled_subjects"):
        train(module_of(), data_of(unlabelled_subjects=None), steps=1, validations=0)
    with pytest.raises(ArgumentError, match=r"unlabelled is '.*a.json', expected None without structure_aware"):
        train(module_of(structure_aware=None), data_of(unlabelled=str(path)), steps=1, validations=0)
    assert has_keypoints_alone(path) and not has_keypoints_alone(tmp_path / "none")
    with pytest.raises(DataError, match=r"a.json has 2D keypoints alone, expected a data set with 3D poses"):
        data_of(data=str(path), unlabelled_subjects=None).setup()


def test_run_by_the_command(tmp_path, monkeypatch, capsys):
    """Trained with a file of keypoints; tested without it."""
    monkeypatch.chdir(tmp_path)
    path = coco(tmp_path / "coco.json", people=8)
    few = ["--data.num_subjects", "2", "--data.clips_per_subject", "1", "--data.frames", "20", "--data.progress"]
    few += ["false", "--data.views", "1", "--data.window", "9", "--trainer.accelerator", "cpu"]
    given = ["--config", "videopose3d-27-weak", *few, "--trainer.max_epochs", "2", "--data.unlabelled", str(path)]
    given += ["--model.backbone_args", json.dumps({"filter_widths": [3, 3], "channels": 16})]
    assert main(["fit", *given]) == 0, capsys.readouterr().err
    (log,) = tmp_path.glob("runs/*/*/metrics.csv")
    assert "train/structure_illegal_angle" in log.read_text().splitlines()[0]
    (last,) = tmp_path.glob("runs/*/*/checkpoints/last.ckpt")
    path.unlink()
    assert main(["test", "--ckpt_path", str(last), "--trainer.accelerator", "cpu"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["fit", *given, "--fresh"]) == 1
    assert capsys.readouterr().err.startswith(f"structloss: error: --data.unlabelled {path} does not exist")
    assert main(["fit", *given[:-4], "--data.unlabelled", str(coco(path, people=1)), "--model.structure_aware", "null",
                 *given[-2:]]) == 1  # fmt: skip
    assert f"--data.unlabelled is '{path}', expected None without" in capsys.readouterr().err

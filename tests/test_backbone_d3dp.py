"""D3DP: the whole procedure against its golden file; schedule, noise, sampler, hypotheses, aggregation, the test."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
import torch
from backbone_cases import filled, golden, official_shapes

from structloss import backbones, skeletons
from structloss.backbones import diffusion
from structloss.backbones.diffusion import Diffusion
from structloss.cli import main
from structloss.data import MotionDataModule
from structloss.data.cameras import h36m_cameras, normalize_screen
from structloss.errors import ArgumentError, DtypeError, UnknownNameError
from structloss.metrics.evaluation import Evaluation
from structloss.reports.breakdown import breakdown

TINY = "d3dp-ddim-tiny"
SMALL = {"num_subjects": 3, "clips_per_subject": 2, "frames": 24, "window": 9, "views": 2, "batch_size": 5}


@pytest.fixture(scope="module")
def file():
    with golden(TINY) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind in "fi"}


@pytest.fixture(scope="module")
def model():
    return filled(TINY)


@pytest.fixture(scope="module")
def poses(file):
    """The published samples as they are aggregated: with the root at 0."""
    poses = file["output"].clone()
    poses[..., 0, :] = 0
    return poses


def sample(model, file, **options):
    noise = {key: file[key] for key in ("noise_init", "noise_steps")}
    return model.sample(file["input_2d"], int(file["hypotheses"]), int(file["iterations"]), **noise, **options)


# Golden figures


def test_golden_schedule(file):
    schedule = Diffusion()
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == np.float64
    np.testing.assert_allclose(schedule.betas, file["betas"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(schedule.alphas_cumprod, file["alphas_cumprod"], rtol=1e-12)
    assert schedule.times(int(file["iterations"])) == file["times"].tolist()
    assert schedule.times(5) == [999, 799, 599, 399, 199, -1] and schedule.times(1) == [999, -1]


def test_golden_samples(model, file):
    got = sample(model, file, zero_root=False)
    assert got.shape == file["output"].shape
    assert float((got - file["output"]).abs().max()) < 1e-4
    assert got[..., 0, :].any() and not sample(model, file)[..., 0, :].any()
    assert torch.equal(sample(model, file)[..., 1:, :], got[..., 1:, :])


def test_golden_mirror(model, file):
    torch.testing.assert_close(skeletons.flip(file["input_2d"], model.skeleton), file["input_2d_flip"])
    assert list(model.skeleton.left) == file["joints_left"].tolist()
    assert list(model.skeleton.right) == file["joints_right"].tolist()


def test_golden_training(model, file):
    noisy = model.diffusion.noised(file["target_3d"], file["train_noise"], file["train_timestep"])
    torch.testing.assert_close(noisy, file["train_noisy_pose"], rtol=0, atol=1e-6)
    with torch.no_grad():
        got = model(file["input_2d"], noisy, file["train_timestep"])
    assert float((got - file["train_output"]).abs().max()) < 1e-4


def test_golden_aggregation(file, poses):
    trajectory, camera = file["trajectory"][:, :, 0], file["camera"]
    absolute = poses + trajectory[:, None, None, :, None]
    torch.testing.assert_close(diffusion.project(absolute, camera), file["reprojection"], rtol=1e-5, atol=1e-5)
    combined, selected = diffusion.select_by_reprojection(poses, file["input_2d"], trajectory, camera)
    assert torch.equal(selected, file["selected_hypothesis"])
    torch.testing.assert_close(combined, file["aggregated"])

    target = file["target_3d"]
    errors = diffusion.hypothesis_errors(poses, target)
    scores = {
        "j_best": diffusion.j_best(errors),
        "p_best": diffusion.p_best(errors),
        "p_agg": diffusion.p_agg(poses, target),
        "j_agg": diffusion.j_agg(poses, target, file["input_2d"], trajectory, camera),
    }
    for name, score in scores.items():
        torch.testing.assert_close(score, file[name], rtol=1e-5, atol=1e-6)


# Schedule and sampler


def test_times_end_at_the_clean_pose():
    schedule = Diffusion(100)
    for iterations in (1, 3, 7, 100):
        times = schedule.times(iterations)
        assert len(times) == iterations + 1 and times[0] == 99 and times[-1] == -1
        assert all(a > b for a, b in itertools.pairwise(times))
    with pytest.raises(ArgumentError, match="iterations is 101, expected at most 100"):
        schedule.times(101)


def test_step_is_the_published_formula():
    schedule = Diffusion(scale=2.0)
    torch.manual_seed(0)
    x, clean, z = torch.randn(3, 4, 3, dtype=torch.float64)
    for now, then in ((999, 799), (400, 100), (5, 4)):
        a, b = schedule.alphas_cumprod[now], schedule.alphas_cumprod[then]
        eps = (math.sqrt(1 / a) * x - clean) / math.sqrt(1 / a - 1)
        sigma = math.sqrt((1 - a / b) * (1 - b) / (1 - a))
        want = math.sqrt(b) * clean + math.sqrt(1 - b - sigma**2) * eps + sigma * z
        torch.testing.assert_close(schedule.step(x, clean, now, then, z), want, rtol=1e-6, atol=1e-9)


def test_noise_is_clamped_and_scaled():
    schedule = Diffusion(scale=0.5)
    pose, noise = torch.full((3, 1), 0.8), torch.tensor([[0.3], [0.3], [-9.0]])
    timestep = torch.tensor([0, 500, 999])
    a = torch.from_numpy(schedule.alphas_cumprod[[0, 500, 999]])[:, None]
    want = ((a.sqrt() * 0.5 * 0.8 + (1 - a).sqrt() * noise) / 0.5).clamp(-1.1, 1.1)
    got = schedule.noised(pose, noise, timestep)
    assert got.dtype == torch.float32 and float(got[2]) == pytest.approx(-1.1)
    torch.testing.assert_close(got, want.float())


def test_last_level_is_noise_and_first_is_the_pose():
    schedule, pose, noise = Diffusion(), torch.randn(1, 5).clamp(-1, 1), torch.randn(1, 5).clamp(-1, 1)
    torch.testing.assert_close(schedule.noised(pose, noise, torch.tensor([999])), noise, rtol=0, atol=1e-3)
    torch.testing.assert_close(schedule.noised(pose, noise, torch.tensor([0])), pose, rtol=0, atol=0.03)


def test_samples_in_parts_are_the_same(model, file):
    want = sample(model, file)
    for at_once in (1, 2):
        torch.testing.assert_close(sample(model, file, at_once=at_once), want, rtol=1e-4, atol=1e-5)
    batches = []
    handle = model.STEblocks[0].register_forward_pre_hook(lambda module, args: batches.append(len(args[0])))
    sample(model, file, at_once=2)
    handle.remove()
    assert batches == [2 * 2 * 2, 2 * 2 * 1] * 4  # clips, views, hypotheses


def test_sampler_without_flip_is_the_loop_written_out(model, file):
    got = sample(model, file, flip=False, zero_root=False)
    schedule, x, keypoints = model.diffusion, file["noise_init"], file["input_2d"]
    times = file["times"].tolist()
    for k in range(4):
        timestep = torch.full((2,), times[k])
        with torch.no_grad():
            hypotheses = [model(keypoints, x[:, h].clamp(-1.1, 1.1), timestep) for h in range(3)]
        clean = torch.stack(hypotheses, dim=1).clamp(-1.1, 1.1)
        torch.testing.assert_close(got[:, k], clean, rtol=1e-4, atol=1e-5)
        if k < 3:
            x = schedule.step(x, clean, times[k], times[k + 1], file["noise_steps"][k])


def test_mirrored_clip_has_mirrored_samples(model, file):
    """The flip makes the sampler equivariant, noise included."""
    swap = lambda pose: skeletons.flip(pose, model.skeleton)  # noqa: E731
    got = model.sample(
        swap(file["input_2d"]), 3, 4, noise_init=swap(file["noise_init"]), noise_steps=swap(file["noise_steps"])
    )
    torch.testing.assert_close(swap(got), sample(model, file), rtol=1e-4, atol=1e-4)


def test_generator_makes_samples_repeatable(model, file, capsys):
    draws = [
        model.sample(file["input_2d"], 2, 2, generator=torch.Generator().manual_seed(seed), progress=seed == 4)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not torch.allclose(draws[0][:, :, 0], draws[0][:, :, 1])
    assert capsys.readouterr().err.count("\n") == 2


def test_other_skeleton_has_its_own_root_and_sides(file):
    model = filled(TINY, skeleton="mpi_inf_3dhp")
    out = model.sample(file["input_2d"], 2, 2, generator=torch.Generator().manual_seed(0))
    assert not out[..., 14, :].any() and out[..., 0, :].any()
    left, right = [5, 6, 7, 11, 12, 13], [2, 3, 4, 8, 9, 10]
    turned = skeletons.flip(out, model.skeleton)
    torch.testing.assert_close(turned[..., left, 1:], out[..., right, 1:])
    torch.testing.assert_close(turned[..., right, 0], -out[..., left, 0])


# The denoiser


def test_hypotheses_are_denoised_independently(model, file):
    timestep = torch.tensor([20, 700])
    with torch.no_grad():
        together = model(file["input_2d"], file["noise_init"], timestep)
        apart = [model(file["input_2d"], file["noise_init"][:, h], timestep) for h in range(3)]
    torch.testing.assert_close(together, torch.stack(apart, dim=1), rtol=1e-4, atol=1e-5)


def test_without_noise_it_is_one_sample_in_one_iteration(model, file):
    torch.manual_seed(5)
    with torch.no_grad():
        out = model(file["input_2d"])
    torch.manual_seed(5)
    torch.testing.assert_close(out, model.sample(file["input_2d"], flip=False)[:, 0, 0])
    assert not out[..., 0, :].any() and float(out.abs().max()) == pytest.approx(1.1)
    with torch.no_grad():
        assert not torch.equal(model(file["input_2d"]), out)


def test_time_embedding(model):
    half = 16
    timestep = torch.tensor([0, 7, 999])
    frequency = np.exp(-np.arange(half) * math.log(10000) / (half - 1))
    angle = timestep.numpy()[:, None] * frequency
    want = torch.from_numpy(np.concatenate((np.sin(angle), np.cos(angle)), axis=1))
    sinusoids = model.time_mlp[0]
    torch.testing.assert_close(sinusoids(timestep, torch.float64), want)
    torch.testing.assert_close(sinusoids(timestep, torch.float32), want.float(), rtol=0, atol=1e-4)
    # Rounded at the end, not in the angle.
    torch.testing.assert_close(sinusoids(timestep, torch.bfloat16).double(), want, rtol=0, atol=1e-2)


def test_supervision_noises_the_target(file):
    model = filled(TINY, drop_path_rate=0.0).train()
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args))
    target = file["target_3d"].expand(2, 9, 17, 3).repeat(20, 1, 1, 1)
    x, weight = file["input_2d"].repeat(20, 1, 1, 1), torch.rand(40, 9, 17)
    torch.manual_seed(0)
    (pair,) = model.supervise(x, target, weight)
    ((_, noisy, timestep),) = seen
    assert pair.target is target and pair.weight is weight and pair.share == 1
    assert timestep.shape == (40,) and timestep.unique().numel() > 30  # a level for each clip
    assert 0 <= int(timestep.min()) < 200 and 800 < int(timestep.max()) < 1000
    with torch.no_grad():
        torch.testing.assert_close(pair.prediction, model(x, noisy, timestep))
    kept = torch.tensor(model.diffusion.alphas_cumprod)[timestep].view(-1, 1, 1, 1)
    noise = (noisy - kept.sqrt() * target) / (1 - kept).sqrt()
    free = (noisy.abs() < 1.0999) & ((1 - kept) > 0.01)
    noise = noise[free & (kept < 0.1)]
    assert abs(float(noise.mean())) < 0.05 and 0.4 < float(noise.std()) < 1.0  # normal, cut off at 1.1
    # The root is noised as well.
    assert noisy[..., 0, :].abs().mean() > 0.1


def test_published_file_with_schedule(model):
    official = {f"module.{key}": torch.randn(shape) for key, shape in official_shapes(TINY).items()}
    roots = ("alphas_cumprod", "one_minus_alphas_cumprod", "recip_alphas_cumprod", "recipm1_alphas_cumprod")
    names = ["betas", "alphas_cumprod", "alphas_cumprod_prev", "log_one_minus_alphas_cumprod"]
    names += [f"sqrt_{root}" for root in roots]
    names += [f"posterior_{end}" for end in ("variance", "log_variance_clipped", "mean_coef1", "mean_coef2")]
    constants = {f"module.{name}": torch.rand(1000, dtype=torch.float64) for name in names}
    fresh = backbones.create(TINY)
    report = backbones.load_published(fresh, {"epoch": 1, "model_pos": {**constants, **official}})
    assert report.complete and report.loaded == 64 and not report.unexpected
    key = "pose_estimator.time_mlp.3.weight"
    assert torch.equal(fresh.time_mlp[3].weight, official[f"module.{key}"])


# Aggregation


def test_projection_is_that_of_the_cameras():
    points = torch.randn(2, 5, 17, 3, dtype=torch.float64) * 0.5 + torch.tensor([0.0, 0.0, 4.0])
    cameras = h36m_cameras("S9")[:2]
    vectors = [[*c.focal, *c.center, *c.radial, *c.tangential] for c in cameras]
    got = diffusion.project(points, torch.tensor(vectors, dtype=torch.float64))
    for i, camera in enumerate(cameras):
        np.testing.assert_allclose(got[i], camera.project(points[i].numpy()), rtol=1e-9)
        alone = diffusion.project(points[i], torch.tensor(vectors[i], dtype=torch.float64))
        torch.testing.assert_close(alone, got[i])
    with pytest.raises(ArgumentError, match=r"camera has shape \[4\], expected \[9\] or \[2, 9\]"):
        diffusion.project(points, torch.zeros(4))


def test_cameras_of_3dhp_in_pixels():
    studio, outdoor = (torch.tensor(diffusion.MPI_INF_3DHP_TEST_CAMERAS[name]) for name in ("TS4", "TS5"))
    ahead = torch.tensor([[0.1, -0.2, 2.0]])
    fx, offset = 7.32506 * 204.8, torch.tensor([-0.0322884, 0.0929296]) * 204.8
    torch.testing.assert_close(diffusion.project(ahead, studio), fx * ahead[:, :2] / 2 + offset + 1024)
    want = 8.770747185 * 192 * ahead[:, :2] / 2 + torch.tensor([-0.104908645, 0.104899704]) * 192
    torch.testing.assert_close(diffusion.project(ahead, outdoor), want + torch.tensor([960.0, 540.0]))


def test_p_best_chooses_one_hypothesis_for_the_batch_and_j_best_one_a_joint():
    errors = torch.tensor([[1.0, 4.0], [5.0, 3.0]]).view(2, 1, 2, 1, 1)  # clip, hypothesis
    assert diffusion.p_best(errors).tolist() == [3.0]
    assert diffusion.j_best(errors).tolist() == [2.0]


@pytest.fixture
def hypotheses():
    """Hypotheses, truth and weight of three clips, drawn; what has weight 0 is NaN."""
    torch.manual_seed(0)
    poses, target = torch.randn(3, 2, 4, 5, 17, 3), torch.randn(3, 5, 17, 3)
    weight = torch.rand(3, 5, 17) * (torch.rand(3, 5, 17) > 0.3)
    return poses, target.masked_fill(weight[..., None] == 0, math.nan), weight


def literal_errors(poses, target, weight, choose):
    """Weighted mean error of the pose that `choose` makes of each joint's hypotheses `[H, 3]`; loops."""
    total = 0.0
    for b, t, j in itertools.product(*map(range, weight.shape)):
        if weight[b, t, j]:
            chosen = choose(poses[b, :, t, j], target[b, t, j], b, t, j)
            total += float(weight[b, t, j] * (chosen - target[b, t, j]).norm())
    return total / float(weight.sum())


def test_weighted_aggregates_are_the_loops_written_out(hypotheses):
    poses, target, weight = hypotheses
    trajectory = torch.randn(3, 5, 3) + torch.tensor([0.0, 0.0, 8.0])
    camera = torch.tensor([[2.3, 2.3, 0.0, 0.1, -0.2, 0.2, 0.0, 0.01, -0.01]]).repeat(3, 1)
    keypoints = torch.randn(3, 5, 17, 2) * 0.3
    errors = diffusion.hypothesis_errors(poses, target)
    best, one = diffusion.j_best(errors, weight), diffusion.p_best(errors, weight)
    mean = diffusion.p_agg(poses, target, weight)
    aggregated = diffusion.j_agg(poses, target, keypoints, trajectory, camera, weight)
    for k in range(2):
        of = poses[:, k]

        def nearest(found, truth, *_):
            return found[int((found - truth).norm(dim=-1).argmin())]

        def reprojected(found, truth, b, t, j):
            places = diffusion.project(found[None] + trajectory[b, t], camera[b])[0]
            return found[int((places - keypoints[b, t, j]).norm(dim=-1).argmin())]

        each = [literal_errors(of, target, weight, lambda found, *_, h=h: found[h]) for h in range(4)]
        assert float(best[k]) == pytest.approx(literal_errors(of, target, weight, nearest), rel=1e-5)
        assert float(one[k]) == pytest.approx(min(each), rel=1e-5)
        assert float(mean[k]) == pytest.approx(literal_errors(of, target, weight, lambda f, *_: f.mean(0)), rel=1e-5)
        assert float(aggregated[k]) == pytest.approx(literal_errors(of, target, weight, reprojected), rel=1e-5)
    ones = torch.ones(3, 5, 17)
    errors = diffusion.hypothesis_errors(poses, target.nan_to_num())
    torch.testing.assert_close(diffusion.j_best(errors, ones), diffusion.j_best(errors))
    torch.testing.assert_close(diffusion.p_best(errors, ones), diffusion.p_best(errors))


# The published test


@pytest.fixture(scope="module")
def data():
    module = MotionDataModule(**SMALL, target="camera", progress=False)
    module.setup()
    return module


def lifting(**changes):
    from structloss.harness.lifting import LiftingModule

    torch.manual_seed(0)
    return LiftingModule(**{"backbone": TINY, "target": "camera", "seed": 3, **changes})


def run_test(module, data, folder, *callbacks):
    import lightning as L

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = L.Trainer(**options, enable_model_summary=False, default_root_dir=folder, callbacks=list(callbacks))
    (found,) = trainer.test(module, data, verbose=False)
    return found


def test_whole_test_is_the_published_one_written_out(data, tmp_path):
    """Every number from hypotheses drawn anew, clip by clip and joint by joint in millimetres."""
    from structloss.harness.hypotheses import HypothesisTest, cameras_of

    module, callback = lifting(), HypothesisTest(hypotheses=3, iterations=2, at_once=2)
    found = run_test(module, data, tmp_path, callback)
    cameras = cameras_of(data.val_dataset)
    module.eval()  # Lightning leaves it as it was before
    sums = dict.fromkeys(("j_best", "p_best", "p_agg", "j_agg"), 0.0)
    count = 0.0
    for batch in data.test_dataloader():
        drawn = 1000 * callback.draw(module, batch)
        assert drawn.shape == (len(batch["input"]), 3, 9, 17, 3) and not drawn[..., 0, :].any()
        views = {(int(c), int(v)) for c, v in zip(batch["clip"], batch["view"], strict=True)}
        for clip, view in views:
            of = (batch["clip"] == clip) & (batch["view"] == view)
            pose, weight, truth = drawn[of].double(), batch["weight"][of], batch["camera_pose"][of].double()
            root = truth[..., :1, :]
            seen, camera = batch["input"][of].double(), torch.tensor(cameras[clip, view], dtype=torch.float64)

            def nearest(found, true, *_):
                return found[int((found - true).norm(dim=-1).argmin())]

            def reprojected(found, true, b, t, j, root=root, camera=camera, seen=seen):
                places = diffusion.project(found[None] + root[b, t], camera)[0]
                return found[int((places - seen[b, t, j, :2]).norm(dim=-1).argmin())]

            def score(choose, pose=pose, truth=truth, weight=weight):
                return literal_errors(pose, truth - truth[..., :1, :], weight, choose)

            share = float(weight.sum())
            count += share
            if not share:
                continue
            sums["j_best"] += share * score(nearest)
            sums["p_best"] += share * min(score(lambda found, *_, h=h: found[h]) for h in range(3))
            sums["p_agg"] += share * score(lambda found, *_: found.mean(0))
            sums["j_agg"] += share * score(reprojected)
    assert count == 17 * 24 * len(data.val_dataset.store.views), "every frame once"
    for key, total in sums.items():
        assert module.evaluation.metrics[key] == pytest.approx(total / count, rel=1e-4)
        assert found[f"test/{key}"] == pytest.approx(total / count, rel=1e-4)
    scores = module.evaluation.metrics
    assert scores["j_best"] < scores["p_best"] and scores["j_best"] < scores["j_agg"]
    assert scores["mpjpe"] > 0, "the usual test is there, too"
    text = breakdown(module.evaluation)
    for title, key in (("J-Best", "j_best"), ("P-Best", "p_best"), ("P-Agg", "p_agg"), ("J-Agg", "j_agg")):
        assert f"{title:6}  {scores[key]:6.1f} mm  " in text
    again = lifting()
    assert run_test(again, data, tmp_path, HypothesisTest(3, 2)) == pytest.approx(found, rel=1e-4), "the same noise"


def test_mean_over_actions_where_the_protocol_has_it(hypotheses):
    from structloss.harness.hypotheses import HypothesisScore

    poses, target, weight = hypotheses
    pose = poses[:, 0]
    rest = {
        "view": torch.tensor([4, 4, 7]), "keypoints": torch.zeros(3, 5, 17, 2), "trajectory": torch.zeros(3, 5, 3),
        "camera": torch.full((3, 9), math.nan),
    }  # fmt: skip
    found = {}
    for by_action in (False, True):
        score = HypothesisScore(4, by_action)
        score.update(pose, target, weight, action=torch.tensor([2, 2, 0]), **rest)
        found[by_action] = {key: float(value) for key, value in score.compute().items()}
    parts = [slice(0, 2), slice(2, 3)]
    means = [literal_errors(pose[p], target[p], weight[p], lambda f, *_: f.mean(0)) for p in parts]
    shares = [float(weight[p].sum()) for p in parts]
    pooled = sum(m * s for m, s in zip(means, shares, strict=True)) / sum(shares)
    assert found[False]["p_agg"] == pytest.approx(pooled, rel=1e-5)
    assert found[True]["p_agg"] == pytest.approx(sum(means) / 2, rel=1e-5)
    # One hypothesis for the clips of a view in the batch.
    one = [min(literal_errors(pose[p], target[p], weight[p], lambda f, *_, h=h: f[h]) for h in range(4)) for p in parts]
    assert found[True]["p_best"] == pytest.approx(sum(one) / 2, rel=1e-5)
    assert math.isnan(found[True]["j_agg"]), "no camera"
    text = breakdown(Evaluation(metrics=found[True]))
    assert "J-Agg        – mm" in text and text.endswith("doesn't tell the intrinsics of every camera.")


@pytest.mark.parametrize("detections", ["exact", "simulated"])
def test_cameras_are_those_of_the_2d_input(detections):
    """The pinhole where the 2D is its image; otherwise with the lenses that simulated detectors see through."""
    from structloss.harness.hypotheses import cameras_of

    data = MotionDataModule(**{**SMALL, "views": 4}, target="camera", detections=detections, progress=False)
    data.setup()
    cameras, lenses = cameras_of(data.val_dataset), {camera.id: camera for camera in h36m_cameras("S1")}
    assert len(cameras) == len(data.val_dataset.store.views) >= 8
    for batch in data.val_dataloader():
        numbers = list(zip(batch["clip"].tolist(), batch["view"].tolist(), strict=True))
        points = batch["camera_pose"].double()
        got = diffusion.project(points, torch.tensor([cameras[number] for number in numbers], dtype=torch.float64))
        if detections == "exact":
            torch.testing.assert_close(got.float(), batch["input"][..., :2], rtol=0, atol=1e-5)
            continue
        for number, clip, image in zip(numbers, points, got, strict=True):
            camera = lenses[h36m_cameras("S9")[number[1]].id]
            want = normalize_screen(camera.project(clip.numpy()), camera.width, camera.height)
            np.testing.assert_allclose(image, want, atol=1e-5)


def test_only_networks_that_sample_are_tested_so(data, tmp_path):
    from structloss.harness.hypotheses import HypothesisTest, hypothesis_tests

    other = lifting(backbone="repose-tiny", backbone_args={"dim_feat": 16, "dim_rep": 16, "depth": 1, "num_heads": 2})
    assert hypothesis_tests(other) == [] and hypothesis_tests(lifting(), 0) == []
    assert hypothesis_tests(lifting(target="global")) == []
    (published,) = hypothesis_tests(lifting())
    assert (published.hypotheses, published.iterations) == (5, 5)
    (chosen,) = hypothesis_tests(lifting(), iterations=10)
    assert (chosen.hypotheses, chosen.iterations) == (5, 10)
    with pytest.raises(ArgumentError, match="hypotheses is 2, expected 0 for repose-tiny, which draws no samples"):
        run_test(other, data, tmp_path, *hypothesis_tests(other, 2))
    with pytest.raises(ArgumentError, match="hypotheses is 2, expected 0 for target 'global'"):
        run_test(lifting(target="global"), data, tmp_path, HypothesisTest(2))
    with pytest.raises(ArgumentError, match="iterations is 0, expected at least 1"):
        hypothesis_tests(lifting(), 2, 0)


def test_command_prints_and_writes_the_four_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["test", "--config", "d3dp-243", "--model.backbone", TINY, "--trainer.accelerator", "cpu"]
    for key, value in {**SMALL, "progress": "false"}.items():
        command += [f"--data.{key}", str(value)]
    assert main([*command, "--hypotheses", "3", "--iterations=2"]) == 0
    out = capsys.readouterr().out
    assert "drawing 3 hypotheses of each clip in 2 iterations" in out
    scores = json.loads((tmp_path / "runs" / "d3dp-243" / "tests" / "0" / "test.json").read_text())["metrics"]
    for title, key in (("J-Best", "j_best"), ("P-Best", "p_best"), ("P-Agg", "p_agg"), ("J-Agg", "j_agg")):
        assert f"\n{title:6}  {scores[key]:6.1f} mm  MPJPE of " in out and f"test/{key}" in out
    # The numbers of the run itself are those of the callback, which another test recomputes.
    logged = list(csv.DictReader((tmp_path / "runs" / "d3dp-243" / "tests" / "0" / "metrics.csv").open()))[-1]
    assert float(logged["test/j_agg"]) == pytest.approx(scores["j_agg"], rel=1e-4)
    assert main([*command, "--hypotheses", "0"]) == 0
    assert "J-Best" not in capsys.readouterr().out
    assert main([*command, "--iterations", "0"]) == 1
    assert "error: --iterations is 0, expected at least 1." in capsys.readouterr().err
    assert main([*command, "--model.backbone", "mixste-27", "--data.window", "27", "--hypotheses", "2"]) == 1
    assert "error: --hypotheses is 2, expected 0 for mixste-27, which draws no samples." in capsys.readouterr().err


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"noisy": torch.zeros(2, 9, 17, 3)}, ArgumentError, "timestep is None, expected noisy and timestep together"),
        ({"timestep": torch.zeros(2).long()}, ArgumentError, "noisy is None, expected noisy and timestep together"),
        (
            {"noisy": torch.zeros(2, 8, 17, 3), "timestep": torch.zeros(2).long()},
            ArgumentError,
            r"noisy has shape .* expected \[2, 9, 17, 3\] or \[2, H, 9, 17, 3\]",
        ),
        (
            {"noisy": torch.zeros(2, 9, 17, 3), "timestep": torch.zeros(3).long()},
            ArgumentError,
            r"timestep has shape \[3\], expected \[2\]",
        ),
        (
            {"noisy": torch.zeros(2, 9, 17, 3), "timestep": torch.zeros(2)},
            DtypeError,
            "timestep has dtype torch.float32, expected torch.int64",
        ),
        (
            {"noisy": torch.zeros(2, 9, 17, 3).double(), "timestep": torch.zeros(2).long()},
            DtypeError,
            "noisy has dtype torch.float64, expected torch.float32",
        ),
    ],
)
def test_bad_forward_arguments(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model(torch.zeros(2, 9, 17, 2), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hypotheses": 0}, "hypotheses is 0, expected a positive integer"),
        ({"iterations": 0}, "iterations is 0, expected a positive integer"),
        ({"iterations": 1001}, "iterations is 1001, expected at most 1000"),
        ({"at_once": 0}, "at_once is 0, expected a positive integer"),
        ({"noise_init": torch.zeros(2, 9, 17, 3)}, r"noise_init has shape .*, expected \[2, 1, 9, 17, 3\]"),
        ({"noise_steps": torch.zeros(1)}, r"noise_steps has shape \[1\], expected \[0, 2, 1, 9, 17, 3\]"),
    ],
)
def test_bad_sample_arguments(model, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        model.sample(torch.zeros(2, 9, 17, 2), **arguments)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ({"embed_dim": 30, "num_heads": 2}, ArgumentError, "embed_dim is 30, expected a positive multiple of 4"),
        ({"timesteps": 0}, ArgumentError, "timesteps is 0, expected a positive integer"),
        ({"scale": 0}, ArgumentError, "scale is 0, expected a positive number"),
        ({"depth": 0}, ArgumentError, "depth is 0, expected a positive integer"),
        ({"skeleton": "human"}, UnknownNameError, "unknown skeleton 'human'"),
    ],
)
def test_bad_constructor_arguments(override, error, message):
    with pytest.raises(error, match=message):
        backbones.create(TINY, **override)

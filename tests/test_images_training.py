"""SAP-Net's training: the losses against their definitions, runs of the command line, stages, resuming, systems."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from test_distributed import start_both

pytest.importorskip("lightning")
pytest.importorskip("cv2")

from structloss import images
from structloss.commands.report import write_run_report
from structloss.errors import ArgumentError, CheckpointError
from structloss.harness.image_clips import predict_runs, score_clips
from structloss.harness.image_scores import MADE_JOINTS, ImageScores, h36m_weights
from structloss.harness.image_stages import STAGES, Schedule, evaluate_images, people_of, stage, train_stage, weights_of
from structloss.harness.image_system import refined_by, runs_of, train_tpnet
from structloss.harness.image_training import ImageModule, depth_loss, weak_poses
from structloss.harness.load import load_module, load_trained
from structloss.harness.recipe_files import recipe_names, recipe_path
from structloss.harness.systems import IMAGES, LIFTING, REFINE, SYSTEMS, system_of
from structloss.harness.training import fit
from structloss.reading import read_yaml

#: of a network that trains in milliseconds
SMALL = {"features": 16, "stacks": 1, "modules": 1, "depth_modules": 1, "levels": 2, "input_size": 32}
STRUCTURE = {"illegal_angle": 0.03, "bone_symmetry": 0.05, "bone_ratio": 0.03}


def batch(size=4, labelled=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    has_depth = torch.arange(size) < labelled
    depth = torch.where(has_depth[:, None], rand(size, 16) - 0.5, 0.0)
    depth[:, 6] = 0
    return {
        "image": rand(size, 3, 32, 32),
        "joints": rand(size, 16, 2) * 32,
        "annotated": rand(size, 16) > 0.2,
        "visible": rand(size, 16) > 0.2,
        "depth": depth,
        "has_depth": has_depth,
        "pose": torch.where(has_depth[:, None, None], (rand(size, 16, 3) - 0.5) * 1000, 0.0),
        "action": torch.zeros(size, dtype=torch.long),
        "index": torch.arange(size),
    }


# ---- losses --------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_paper():
    """Equations 1 to 3: heatmaps of all samples, depths of those with 3D, the structure of the others."""
    module = ImageModule(network_args=SMALL, structure_aware=STRUCTURE)
    given = batch()
    out = module.model(given["image"])
    total, terms = module.losses(out, given)
    target = images.heatmap_targets(given["joints"].double(), given["annotated"], input_size=32, heatmap_size=8)
    heatmaps = (out.heatmaps.detach().double() - target).square().mean((1, 2, 3, 4)).sum()
    depth = (out.depth.detach().double() - given["depth"]).square()[:2].mean()
    assert terms["heatmaps"].item() == pytest.approx(heatmaps.item(), rel=1e-5)
    assert terms["depth"].item() == pytest.approx(depth.item(), rel=1e-5)
    parts = structure_of(out.depth.detach()[2:], given["joints"][2:], given["annotated"][2:])
    for name, value in parts.items():
        assert terms[f"structure_{name}"].item() == pytest.approx(value, rel=1e-4, abs=1e-7), name
    expected = heatmaps + 0.1 * depth + sum(STRUCTURE[name] * value for name, value in parts.items())
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def structure_of(depth, joints, annotated):
    """The three terms in float64, from their definitions; x and y from -1 to 1 at the borders of a 32 x 32 image."""
    place = [6, 2, 1, 0, 3, 4, 5, None, 8, None, 9, 13, 14, 15, 12, 11, 10]
    xy = (2 * joints.double() + 1) / 32 - 1
    found = dict.fromkeys(STRUCTURE, 0.0)
    for person in range(len(depth)):
        points = {
            j: (np.append(xy[person, k].numpy(), depth[person, k].double()), bool(annotated[person, k]))
            for j, k in enumerate(place)
            if k is not None
        }

        def bone(a, b, points=points):
            known = points[a][1] and points[b][1]
            return (float(np.linalg.norm(points[a][0] - points[b][0])) if known else None), known

        for chain, sign in (((8, 14, 15, 16), -1), ((8, 11, 12, 13), 1), ((0, 1, 2, 3), 1), ((0, 4, 5, 6), -1)):
            if all(points[j][1] for j in chain):
                a, b, c, d = (points[j][0] for j in chain)
                u = max(sign * float(np.dot(np.cross(b - a, c - b), d - c)), 0.0)
                found["illegal_angle"] += u * np.exp(u) / len(depth)
        for right, left in (((1, 2), (4, 5)), ((2, 3), (5, 6)), ((14, 15), (11, 12)), ((15, 16), (12, 13))):
            (r, known_r), (left_length, known_l) = bone(*right), bone(*left)
            if known_r and known_l:
                found["bone_symmetry"] += abs(r - left_length) / len(depth)
        lower, fore = 456.008604234 / 452.125519758, 284.125346475 / 249.772589249
        legs = [((1, 2), 1.0), ((2, 3), lower), ((4, 5), 1.0), ((5, 6), lower)]
        arms = [((14, 15), 1.0), ((15, 16), fore), ((11, 12), 1.0), ((12, 13), fore)]
        for group in (legs, arms, [((0, 1), 1.0), ((0, 4), 1.0)], [((8, 14), 1.0), ((8, 11), 1.0)]):
            lengths = [w * bone(*ends)[0] for ends, w in group if bone(*ends)[1]]
            if lengths:
                found["bone_ratio"] += float(np.var(lengths)) / len(depth)
    return found


def test_weak_supervision_moves_depths_of_2d_samples_alone():
    given = batch(3, labelled=0)
    depth = torch.randn(3, 16, requires_grad=True)
    poses, weight = weak_poses(depth, given["joints"], given["annotated"], 32)
    assert poses.shape == (3, 1, 17, 3) and weight.shape == (3, 1, 17)
    assert (weight[..., MADE_JOINTS] == 0).all() and torch.equal(weight[:, 0] > 0, h36m_weights(given["annotated"]))
    (poses[..., :2].sum() + 0 * depth.sum()).backward()
    assert (depth.grad == 0).all()  # x and y are the true ones
    module = ImageModule(network_args=SMALL, structure_aware=STRUCTURE)
    given = batch(4, labelled=2)
    out = module.model(given["image"])
    out.depth.retain_grad()
    loss, _ = module.structure(*weak_poses(out.depth[2:], given["joints"][2:], given["annotated"][2:], 32)[:1], None)
    loss.backward()
    assert (out.depth.grad[:2] == 0).all() and (out.depth.grad[2:] != 0).any()


def test_depths_are_learned_from_labelled_samples_alone():
    depth, target = torch.randn(4, 16, dtype=torch.float64, requires_grad=True), torch.randn(4, 16).double()
    labelled = torch.tensor([True, False, True, False])
    loss = depth_loss(depth, target, labelled)
    assert loss.item() == pytest.approx((depth - target)[labelled].square().mean().item())
    assert torch.autograd.gradcheck(lambda d: depth_loss(d, target, labelled), depth)
    nobody = depth_loss(depth, target, torch.zeros(4, dtype=torch.bool))
    assert nobody.item() == 0 and nobody.requires_grad


def test_the_first_stage_leaves_the_depth_module_alone():
    module = ImageModule(network_args=SMALL, trains="heatmaps")
    frozen = {id(p) for p in module.model.depth_parameters()}
    total, terms = module.losses(images.SAPOutput(module.model.heatmaps(batch()["image"]), torch.zeros(4, 16)), batch())
    assert terms.keys() == {"heatmaps"}
    total.backward()
    for name, parameter in module.model.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in frozen), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"structure_aware": {"velocity": 1.0}}, "structure_aware has 'velocity', expected some of"),
        ({"trains": "depth"}, "trains is 'depth', expected one of 'all', 'heatmaps'"),
        ({"depth_weight": -1.0}, "depth_weight is -1.0, expected a number of at least 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1, expected at least 0"),
        ({"ema": 1.5}, "ema is 1.5"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
    ],
)
def test_settings_that_cannot_be(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        ImageModule(network_args=SMALL, **arguments)


# ---- scores --------------------------------------------------------------------------------------------------------


def test_a_perfect_answer_scores_perfectly():
    """Heatmaps and depths made of the truth: the 2D error is what the grid costs, the depth order right."""
    people = images.RenderedPeople(6, size=64, seed=3, occluders=0.0, truncated=0.0)
    samples = images.ImageSamples(people, input_size=64)
    given = images.collate([samples[i] for i in range(6)]) | {"action": torch.zeros(6, dtype=torch.long)}
    heatmaps = images.heatmap_targets(given["joints"], given["annotated"], input_size=64, heatmap_size=16)
    scores = ImageScores(["all"])
    scores.update(images.SAPOutput(heatmaps[None], given["depth"]), given, 64)
    found = scores.evaluation()
    assert 0 < found.metrics["joint_error_2d"] < 2.9 / 64  # a cell is 4 pixels wide: 2.83 to its corner
    assert found.metrics["depth_order_joints"] > 0.99
    assert found.metrics["mpjpe"] < 160 and found.metrics["depth_error"] < 60  # 4 pixels are about 10 cm
    assert found.per_action.keys() == {"all"} and found.truth["illegal_angle_rate"] == 0


# ---- runs ----------------------------------------------------------------------------------------------------------

NETWORK = "{features: 16, stacks: 1, modules: 1, depth_modules: 1, levels: 2, input_size: 32}"
RUN = [
    "fit", "--config", "sapnet-tiny", "--model.network_args", NETWORK, "--data.input_size", "32",
    "--data.count", "12", "--data.val_count", "4", "--data.batch_size", "4", "--data.progress", "false",
    "--model.warmup_steps", "1", "--trainer.max_steps", "9", "--trainer.val_check_interval", "3",
    "--trainer.accelerator", "cpu",
]  # fmt: skip
FOLDER = "runs/sapnet-tiny/version_0"


def weights(folder):
    return torch.load(folder / FOLDER / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, commands):
    folder = tmp_path_factory.mktemp("images")
    done = commands.run(folder, *RUN)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_fit_trains_from_a_recipe_and_says_what_it_came_to(trained, commands):
    folder, said = trained
    assert "val/mpjpe" in said and "2D error" in said and "structloss test --ckpt_path" in said
    assert f"structloss report {FOLDER}" in said
    header = (folder / FOLDER / "metrics.csv").read_text().splitlines()[0].split(",")
    wanted = ("loss", "heatmaps", "depth", *(f"structure_{name}" for name in STRUCTURE))
    assert {f"train/{name}" for name in wanted} <= {*header} and "val/joint_error_2d" in header
    done = commands.run(folder, "test", "--ckpt_path", f"{FOLDER}/checkpoints/last.ckpt")
    assert done.returncode == 0, done.stderr
    assert "2D error" in done.stdout and "symmetry/upper leg" in done.stdout and "test.json" in done.stdout


def test_a_killed_run_resumes_bitwise(trained, commands, tmp_path):
    folder, _ = trained
    arguments = [*RUN, "--restart.every_steps", "2", "--data.num_workers", "0"]
    log = tmp_path / "log"
    process = commands.start(tmp_path, *arguments, out=log, err=log)
    until = time.monotonic() + 60
    while not [*tmp_path.glob(f"{FOLDER}/checkpoints/resume-*")] and time.monotonic() < until:
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    commands.wait(process)
    done = commands.run(tmp_path, *arguments)
    assert done.returncode == 0 and "resuming" in done.stdout, done.stderr
    found, expected = weights(tmp_path), weights(folder)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    assert (tmp_path / FOLDER / "metrics.csv").read_text() == (folder / FOLDER / "metrics.csv").read_text()


def test_the_best_validation_that_is_told_is_the_one_of_the_checkpoint(commands, tmp_path):
    """Without depths to learn, the best checkpoint is told by the 2D error, and so are the figures."""
    done = commands.run(
        tmp_path, *RUN, "--model.trains", "heatmaps", "--trainer.max_steps", "8", "--trainer.val_check_interval", "1",
        "--trainer.check_val_every_n_epoch", "null",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open(tmp_path / FOLDER / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/joint_error_2d"]]
    best = min(rows, key=lambda row: float(row["val/joint_error_2d"]))
    step = int(best["step"]) + 1
    assert f"best validation, step {step}, epoch {best['epoch']}:" in done.stdout
    assert f"  2D error {100 * float(best['val/joint_error_2d']):.1f} % of the box" in done.stdout
    path = re.search("^checkpoint: (.*)$", done.stdout, re.M)[1]
    assert torch.load(tmp_path / path, weights_only=True)["global_step"] == step


def test_a_report_of_a_run_scores_its_checkpoint(trained, commands, tmp_path):
    """Figures as they were when the checkpoint was validated, and pictures of what is found."""
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    done = commands.run(tmp_path, "report", "runs/sapnet-tiny", "--json", "a.json")
    assert done.returncode == 0, done.stderr
    arm = json.loads((tmp_path / "a.json").read_text())["arms"][0]
    with open(tmp_path / FOLDER / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/mpjpe"]]
    best = min(rows, key=lambda row: float(row["val/mpjpe"]))
    for name in ("mpjpe", "joint_error_2d", "depth_error"):
        assert arm["metrics"][name] == pytest.approx(float(best[f"val/{name}"]), rel=1e-5)
    assert arm["objective"] == {"heatmaps": 100.0, "depth": 0.1, **STRUCTURE}
    page = (tmp_path / FOLDER / "report.html").read_text()
    assert all(title in page for title in ("Training", "Joints found in strangers", "Poses of strangers"))


def test_a_report_is_of_one_kind_of_runs(tmp_path):
    networks = {"backbone": "repose", "network": "sapnet", "shape_network": "shape-template", "refiner": "tpnet"}
    for key, name in networks.items():
        (tmp_path / key / "checkpoints").mkdir(parents=True)
        (tmp_path / key / "config.yaml").write_text(f"model: {{{key}: {name}}}\n")
        (tmp_path / key / "metrics.csv").write_text("epoch,step,train/loss\n0,0,1.0\n")
    for first, second, words in (
        ("network", "refiner", "refiner is of a refiner of 3D poses, beside runs of a network from images, expected"),
        ("backbone", "network", "network is of a network from images, beside runs of a lifting network, expected"),
        ("shape_network", "network", "of a network from images, beside runs of a network of shape templates, expected"),
    ):
        with pytest.raises(ArgumentError, match=words):
            write_run_report([str(tmp_path / first), str(tmp_path / second)], out=str(tmp_path / "x.html"))


def test_bf16_trains(commands, tmp_path):
    done = commands.run(tmp_path, *RUN, "--trainer.precision", "bf16-mixed", "--trainer.max_steps", "3")
    assert done.returncode == 0, done.stderr
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


@pytest.mark.slow(seconds=12)
def test_two_processes_train_one_network(commands, tmp_path):
    arguments = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "3"]
    processes = start_both(commands, tmp_path, *RUN, *arguments)
    assert [commands.wait(process) for process in processes] == [0, 0], (tmp_path / "log").read_text()
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


# ---- stages --------------------------------------------------------------------------------------------------------


@pytest.mark.slow(seconds=12)
def test_stages_start_from_the_one_before(commands, tmp_path):
    small = ["--model.network_args", NETWORK, "--data.input_size", "32", "--data.count", "8", "--data.val_count", "4"]
    few = ["--trainer.max_steps", "2", "--data.batch_size", "4", "--data.progress", "false"]
    missing = commands.run(tmp_path, "fit", "--config", "sapnet-stage2", *small, *few)
    assert missing.returncode == 1
    assert "--model.init_from is 'runs/sapnet-stage1', which does not exist" in missing.stderr
    assert "structloss fit --config sapnet-stage1" in missing.stderr and "Traceback" not in missing.stderr
    before = None
    for number in STAGES:
        done = commands.run(tmp_path, "fit", "--config", f"sapnet-stage{number}", *small, *few)
        assert done.returncode == 0, done.stderr
        path = tmp_path / f"runs/sapnet-stage{number}/version_0/checkpoints/last.ckpt"
        content = torch.load(path, weights_only=True)
        started = content["hyper_parameters"]["init_from"]
        assert started == before, f"stage {number} started from {started}"
        before = f"runs/sapnet-stage{number}/version_0/checkpoints/last.ckpt"


def test_the_recipes_are_the_papers_schedule():
    stages = [read_yaml(recipe_path(f"sapnet-stage{n}"), "a recipe") for n in STAGES]
    assert [one["trainer"]["max_steps"] for one in stages] == [240_000, 240_000, 160_000, 40_000]
    assert [one["model"]["lr"] for one in stages] == [2.5e-4, 2.5e-4, 2.5e-4, 2.5e-5]
    assert [one["data"]["batch"] for one in stages] == ["all", "labelled", "mixed", "mixed"]
    assert all(one["data"]["batch_size"] == 6 and one["model"]["optimizer"] == "rmsprop" for one in stages)
    assert [one["model"].get("structure_aware") for one in stages] == [
        None,
        None,
        {"illegal_angle": 0.03, "bone_ratio": 0.03},
        STRUCTURE,
    ]
    assert stages[0]["model"]["trains"] == "heatmaps"


def test_the_system_runs_from_nothing_to_refined_poses():
    """Stages in one process, predictions of people in motion, TP-Net on top; each stage starts where the last ended."""
    schedule = Schedule(
        steps=(3, 2, 2, 2), batch_size=4, data={"count": 8, "val_count": 4, "progress": False}, optimizer="rmsprop"
    )
    data = people_of(schedule, "mixed", 32)
    results = []
    for number in STAGES:
        start = weights_of(results[-1]) if results else None
        results.append(train_stage(stage(number, schedule, network_args=SMALL), data, start, quiet=True))
    assert [result.stage.batch for result in results] == ["all", "labelled", "mixed", "mixed"]
    assert results[3].module.hparams["lr"] == pytest.approx(0.1 * results[2].module.hparams["lr"])
    runs = runs_of(0, train=2, test=2, frames=6, size=32)
    train, test = (predict_runs(results[-1].module.model, people) for people in (runs.train, runs.test))
    assert [len(clip) for clip in test.clips] == [6, 6] and test.keypoints[0].shape == (6, 17, 3)
    module = train_tpnet(train.clips, test.clips, past=2, epochs=1, quiet=True)
    before, after = (
        score_clips(test.clips, refine, error_2d=test.error_2d)
        for refine in (None, lambda poses: refined_by(module, poses))
    )
    assert before.metrics.keys() == after.metrics.keys() and before.metrics["mpjpe"] != after.metrics["mpjpe"]
    assert before.metrics["joint_error_2d"] == test.error_2d
    assert {"bone_length_spread", "spread/upper arm", "symmetry/lower leg"} <= before.structure.keys()
    # Clips that are their own truth have no error, and the structure of the truth.
    perfect = [type(clip)(clip.true, clip.true, action=clip.action) for clip in test.clips]
    found = score_clips(perfect)
    assert found.metrics["mpjpe"] == 0 and found.structure == found.truth


# ---- systems -------------------------------------------------------------------------------------------------------


def test_a_system_is_told_by_the_argument_that_names_the_network():
    for system in SYSTEMS:
        for name in recipe_names(system.network):
            assert system_of(read_yaml(recipe_path(name), "a recipe")["model"]) is system
        module, data = system.classes()
        assert module.__name__ in system.module and data.__name__ in system.data
    assert sum(len(recipe_names(system.network)) for system in SYSTEMS) == len(recipe_names())
    assert system_of({}, None, {"refiner": "tpnet"}) is REFINE and system_of() is LIFTING
    with pytest.raises(ArgumentError, match=r"model has backbone .* and network .*, expected one of them"):
        system_of({"backbone": "repose-tiny", "network": "sapnet"})


def test_a_checkpoint_of_another_system_is_refused_in_words(trained, commands):
    folder, _ = trained
    path = folder / FOLDER / "checkpoints/last.ckpt"
    with pytest.raises(CheckpointError, match="is of a network from images, expected a checkpoint of a lifting"):
        load_trained(path)
    module, place = load_module(path, IMAGES)
    assert place["step"] == 9 and module.hparams["network"] == "sapnet-tiny"
    done = commands.run(folder, "test", "--config", "repose-tiny", "--ckpt_path", str(path))
    assert done.returncode == 1 and "is of a network from images, expected one of a lifting network" in done.stderr
    done = commands.run(folder, "fit", "--config", "sapnet-stage1", "--model.network", "sapnet-tiny")
    assert done.returncode == 1 and "--data.input_size is 256, expected 96, that of sapnet-tiny" in done.stderr


def test_what_is_shown_and_kept_of_a_validation_is_of_that_validation():
    """Modules that log their figures at the end of a validation do so after callbacks' hooks of the same name."""
    data = people_of(Schedule(batch_size=4, data={"count": 8, "val_count": 4, "progress": False}), "mixed", 32)
    module = ImageModule(network_args=SMALL)
    found = fit(module, data, steps=4, validations=2, quiet=True)
    assert found.curves["val_step"] == [2, 4]
    last = evaluate_images(module, data).metrics["mpjpe"]
    assert found.curves["val_mpjpe"][1] == pytest.approx(last, rel=1e-5)
    assert found.curves["val_mpjpe"][0] != pytest.approx(last, rel=1e-5)

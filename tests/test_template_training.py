"""Training shape templates: losses and scores against their definitions, runs of the command line, what is refused."""

import contextlib
import csv
import json
import math
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
import yaml
from test_distributed import start_both

pytest.importorskip("lightning")
pytest.importorskip("cv2")

from structloss import images, metrics
from structloss.cli import main
from structloss.commands.report import write_run_report
from structloss.errors import ArgumentError, CheckpointError, MissingFileError
from structloss.harness.load import load_module
from structloss.harness.recipe_files import recipe_path
from structloss.harness.systems import IMAGES, TEMPLATES, system_of
from structloss.harness.template_scores import NEEDS_LABELS, TemplateScores
from structloss.harness.template_training import TemplateModule
from structloss.images import write_picture
from structloss.reading import read_yaml

#: of a network that trains in milliseconds
SMALL = {"input_size": 32, "regressor_widths": [8, 8, 8], "translator_widths": [8, 8], "hidden": 16}
SHARES = {"perceptual": 0.7, "mse": 2.0, "anchor": 0.5, "boundary": 3.0}


def batch(size=4, seed=0, annotated=True):
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return {
        "frame": rand(size, 3, 32, 32),
        "reference": rand(size, 3, 32, 32),
        "joints": rand(size, 15, 2) * 32,
        "annotated": torch.full((size, 15), annotated),
        "diagonal": 20 + 10 * rand(size),
        "folder": torch.zeros(size, dtype=torch.long),
        "index": torch.arange(size),
    }


# ---- losses --------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_the_terms():
    module = TemplateModule(shape_network_args=SMALL, loss_weights=SHARES, perceptual="ssim").double()
    frame, reference = (batch()[name].double() for name in ("frame", "reference"))
    with torch.no_grad():  # parts lie where the template has them: move some apart and some outside
        module.model.regressor.layers[-1][-1].bias.uniform_(-0.6, 0.6)
    out = module(frame, reference)
    total, terms = module.losses(out, frame)
    assert list(terms) == list(SHARES) and all(value > 0 and not value.requires_grad for value in terms.values())
    image = module.model.normalized(frame)
    assert terms["mse"].item() == pytest.approx((out.reconstruction.double() - image).square().mean().item(), rel=1e-5)
    assert terms["anchor"].item() == pytest.approx(images.anchor_loss(out.anchors, 32).item())
    assert terms["boundary"].item() == pytest.approx(images.boundary_loss(out.anchors, 32).item())
    found = images.perceptual_loss("ssim")(out.reconstruction.float(), image.float())
    assert terms["perceptual"].item() == pytest.approx(found.item(), rel=1e-4)
    assert total.item() == pytest.approx(sum(SHARES[name] * value.item() for name, value in terms.items()))


def test_each_change_of_the_poster_is_an_option():
    """What has no weight is not computed, two steps sum their anchors, and nothing is learned from joints."""
    baseline = TemplateModule(
        shape_network_args={**SMALL, "template": "original"}, loss_weights={"perceptual": 1.0, "anchor": 0.5}
        , perceptual="laplacian",
    )  # fmt: skip
    given = batch()
    out = baseline(given["frame"], given["reference"])
    assert baseline.losses(out, given["frame"])[1].keys() == {"perceptual", "anchor"}
    assert (out.anchors[:, 20:24, 1] < 32 * 100 / 256).all()  # arms lie sideways, at the height of the shoulders
    fine = TemplateModule(
        shape_network_args={**SMALL, "motion": "coarse-to-fine"}, loss_weights={"anchor": 1.0}, perceptual="none"
    )
    with torch.no_grad():
        fine.model.regressor.layers[-1][-1].bias.uniform_(-0.3, 0.3)
    out = fine(given["frame"])  # the terms need no reconstruction
    steps = fine.model.step_anchors(out.matrices)
    expected = sum(images.anchor_loss(anchors, 32).item() for anchors in steps)
    assert len(steps) == 2 and fine.losses(out, given["frame"])[0].item() == pytest.approx(expected, rel=1e-5)
    for motion in ("affine", "coarse-to-fine", "constrained"):
        results = []
        for labels in (True, False):
            torch.manual_seed(0)
            module = TemplateModule(shape_network_args={**SMALL, "motion": motion}, perceptual="laplacian")
            module.log = module.log_dict = lambda *_, **__: None
            results.append(module.training_step(batch() | {"annotated": torch.full((4, 15), labels)}, 0))
        assert torch.equal(*results), motion
        results[1].backward()
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters()), motion


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"loss_weights": {"mpjpe": 1.0}}, "loss_weights has 'mpjpe', expected some of perceptual, mse, anchor, bound"),
        ({"loss_weights": {"mse": -1.0}}, "loss_weights has mse -1.0, expected a number of at least 0"),
        ({"loss_weights": {"mse": 0}}, "expected a weight above 0 for some term"),
        ({"perceptual": "dists"}, "perceptual is 'dists', expected one of 'vgg19', 'random', 'laplacian'"),
        (
            {"perceptual": "ssim", "loss_weights": {"mse": 1.0}},
            "perceptual is 'ssim', expected it with a weight of the perceptual term above 0 in loss_weights",
        ),
        ({"vgg19": "v.pth", "loss_weights": {"mse": 1.0, "perceptual": 0.0}}, "vgg19 is 'v.pth', expected it with"),
        ({"boundary": "none"}, "boundary is 'none', expected one of 'all', 'core'"),
        ({"ema": 0.0}, "ema is 0.0, expected None or a decay"),
        ({"shape_network": "sapnet-tiny", "shape_network_args": None}, "shape_network is 'sapnet-tiny', expected one"),
        ({"shape_network": "shape-template-legacy", "shape_network_args": None}, "expected one that reconstructs"),
    ],
)
def test_settings_that_cannot_be(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        TemplateModule(**{"shape_network_args": SMALL, **arguments})


# ---- scores --------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_metrics():
    module = TemplateModule(shape_network_args=SMALL, perceptual="none").eval()
    scores, parts = TemplateScores(32), [batch(3, seed=1), batch(5, seed=2)]
    parts[1]["annotated"] = torch.rand(5, 15, generator=torch.Generator().manual_seed(3)) > 0.3
    for part in parts:
        module.scored(part, scores, loss=True)
    joints = torch.cat([module(part["frame"]).joints for part in parts]).detach()
    true, diagonal, annotated = (
        torch.cat([part[name] for part in parts]) for name in ("joints", "diagonal", "annotated")
    )
    found = scores.evaluation()
    assert found.metrics.keys() == {"reconstruction", "bplp_c", *NEEDS_LABELS}
    for key, value in (
        ("pdj", metrics.pdj(joints, true, diagonal, annotated=annotated)),
        ("normalized_l2", metrics.normalized_l2(joints, true, 32, annotated=annotated)),
        ("left_right_gap", metrics.left_right_gap(joints, true, 32, annotated=annotated)),
        ("bplp_c", metrics.bplp_c(joints[:, None], parts=metrics.TEMPLATE_PARTS)),
    ):
        assert found.metrics[key] == pytest.approx(value.item(), rel=1e-6), key
    by_joint = metrics.normalized_l2(joints, true, 32, annotated=annotated, reduction="joints")
    assert found.structure["normalized_l2/wristL"] == pytest.approx(by_joint[14].item())
    gaps = [
        found.structure[f"left_right_gap/{name}"] for name in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    ]
    assert found.metrics["left_right_gap"] == pytest.approx(np.mean(gaps))
    whole = annotated.all(1)
    assert found.truth["bplp_c"] == pytest.approx(
        metrics.bplp_c(true[whole][:, None], parts=metrics.TEMPLATE_PARTS).item(), rel=1e-6
    )
    error, loss = 0.0, 0.0
    for part in parts:
        out = module(part["frame"], part["reference"])
        square = (out.reconstruction - module.model.normalized(part["frame"])).square().mean()
        error += square.item() * len(part["frame"]) / 8
        loss += module.losses(out, part["frame"])[0].item() * len(part["frame"]) / 8
    assert found.metrics["reconstruction"] == pytest.approx(error, rel=1e-5)
    assert scores.means()["loss"] == pytest.approx(loss, rel=1e-5)


def test_frames_without_labels_have_figures_that_need_none():
    module = TemplateModule(shape_network_args=SMALL, perceptual="none").eval()
    scores = TemplateScores(32)
    module.scored(batch(annotated=False), scores)
    assert scores.means().keys() == {"reconstruction", "bplp_c"} and scores.evaluation().truth == {}
    boxless = batch() | {"diagonal": torch.full((4,), math.nan)}
    scores = TemplateScores(32)
    module.scored(boxless, scores)
    assert scores.means().keys() == {"reconstruction", "bplp_c", "normalized_l2", "left_right_gap"}


# ---- runs ----------------------------------------------------------------------------------------------------------

NETWORK = "{input_size: 32, regressor_widths: [8, 8, 8], translator_widths: [8, 8], hidden: 16}"
RUN = [
    "fit", "--config", "shape-template-tiny", "--model.shape_network_args", NETWORK, "--data.size", "32",
    "--data.count", "3", "--data.val_count", "2", "--data.frames", "6", "--data.batch_size", "4",
    "--data.progress", "false", "--trainer.max_steps", "9", "--trainer.val_check_interval", "2",
    "--trainer.accelerator", "cpu",
]  # fmt: skip
FOLDER = "runs/shape-template-tiny/version_0"


def weights(folder):
    return torch.load(folder / FOLDER / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, commands):
    folder = tmp_path_factory.mktemp("templates")
    done = commands.run(folder, *RUN)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_fit_trains_from_a_recipe_and_test_tells_what_it_came_to(trained, commands):
    folder, said = trained
    assert "val/loss" in said and "val/normalized_l2" in said and "structloss test --ckpt_path" in said
    header = (folder / FOLDER / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {f"train/{name}" for name in ("loss", "mse", "anchor", "boundary")} | {"val/pdj", "val/bplp_c"} <= {*header}
    done = commands.run(folder, "test", "--ckpt_path", f"{FOLDER}/checkpoints/last.ckpt")
    assert done.returncode == 0, done.stderr
    for words in ("PDJ@0.05", "Left/right gap", "(true ones: ", "normalized_l2/wristL", "test/reconstruction, MSE"):
        assert words in done.stdout
    kept = json.loads(next(folder.glob(f"{FOLDER}/tests/*/test.json")).read_text())
    assert kept["metrics"].keys() == {"reconstruction", "bplp_c", *NEEDS_LABELS} and kept["truth"]["bplp_c"] > 0


def test_a_killed_run_resumes_bitwise(trained, commands, tmp_path):
    folder, _ = trained
    arguments = [*RUN, "--restart.every_steps", "1"]
    log = tmp_path / "log"
    process = commands.start(tmp_path, *arguments, out=log, err=log)
    until = time.monotonic() + 120
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


def test_bf16_an_average_of_the_weights_and_the_full_system_train(commands, tmp_path):
    network = NETWORK[:-1] + ", motion: constrained, constraint: similarity}"
    changes = ["--model.shape_network_args", network, "--model.ema", "0.9", "--data.flip", "true"]
    done = commands.run(
        tmp_path, *RUN, *changes, "--trainer.precision", "bf16-mixed", "--trainer.max_steps", "3",
        "--model.perceptual", "random", "--model.loss_weights.perceptual", "0.5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = weights(tmp_path)
    assert all(value.isfinite().all() for value in found.values()) and not [key for key in found if "features" in key]


@pytest.mark.slow(seconds=12)
def test_two_processes_train_one_network(commands, tmp_path):
    arguments = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "2"]
    processes = start_both(commands, tmp_path, *RUN, *arguments)
    assert [commands.wait(process) for process in processes] == [0, 0], (tmp_path / "log").read_text()
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_what_is_wrong_is_told_in_a_sentence(trained, commands, tmp_path):
    folder, _ = trained
    checkpoint = folder / FOLDER / "checkpoints/last.ckpt"
    vgg = ["--model.loss_weights.perceptual", "1.0", "--model.perceptual", "vgg19"]
    done = commands.run(tmp_path, *RUN, *vgg)
    assert done.returncode == 1 and "--model.vgg19 is None" in done.stderr and "Traceback" not in done.stderr
    done = commands.run(tmp_path, *RUN, *vgg, "--model.vgg19", "vgg.pth")
    assert done.returncode == 1 and "error: --model.vgg19 vgg.pth does not exist" in done.stderr
    done = commands.run(tmp_path, *RUN, "--data.size", "64")
    assert done.returncode == 1 and "--data.size is 64, expected 32, that of shape-template-tiny" in done.stderr
    done = commands.run(tmp_path, "test", "--config", "sapnet-tiny", "--ckpt_path", str(checkpoint))
    assert done.returncode == 1
    assert "is of a network of shape templates, expected one of a network from images" in done.stderr
    assert not [*tmp_path.iterdir()]  # nothing was begun
    with pytest.raises(CheckpointError, match="is of a network of shape templates, expected a checkpoint of a network"):
        load_module(checkpoint, IMAGES)


def test_settings_are_told_by_the_flag_that_was_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number in range(2):
            write_picture(tmp_path / "frames" / name / f"{number}.png", np.zeros((8, 8, 3), np.uint8))
    for flags, words in (
        (
            ["--model.shape_network_args.motion", "rigid"],
            "--model.shape_network_args.motion is 'rigid', expected one of",
        ),
        (["--data.path", "./nowhere/"], "error: --data.path nowhere does not exist, expected"),
        (
            ["--data.motion", "m.npz", "--data.path", "."],
            "--data.motion is 'm.npz', expected it with rendered people, but --data.path is given.",
        ),
        (["--data.boxes", "[1, 2, 3, 4]"], "--data.boxes is [1.0, 2.0, 3.0, 4.0], expected it with --data.path."),
        (["--data.rendered", "{facing: 500}"], "error: --data.rendered.facing is 500, expected degrees from 0 to 180."),
        (["--data.rendered", "{colour: 3}"], "error: --data.rendered has 'colour', expected ratio or facing."),
        (["--data.path", "frames", "--data.arms", "down"], "error: --data.arms is 'down', which no frame of frames"),
        (
            ["--model.shape_network_args.nothing", "3"],
            "args.nothing is not an override of shape-template-tiny, expected one of template, motion, constraint, "
            "render, channel_order, normalize, input_size, regressor_widths, translator_widths, hidden.",
        ),
        (
            ["--model.shape_network_args.constraint", "similarity"],
            "error: --model.shape_network_args.constraint is 'similarity' and motion is 'affine', expected a",
        ),
    ):
        assert main(["fit", "--config", "shape-template-tiny", *flags]) == 1
        assert words in capsys.readouterr().err


def test_unlabelled_frames_are_tested_without_the_figures_that_need_labels(trained, commands, tmp_path):
    folder, _ = trained
    for name in ("a", "b"):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 255, (40, 30, 3), dtype=np.uint8)
            write_picture(tmp_path / "frames" / name / f"{number}.png", pixels)
    checkpoint = folder / FOLDER / "checkpoints/last.ckpt"
    done = commands.run(
        tmp_path, "test", "--ckpt_path", str(checkpoint), "--data.path", "frames", "--data.val_path", "frames"
    )
    assert done.returncode == 0, done.stderr
    assert "no annotated joints: pdj, normalized_l2, left_right_gap are left out" in done.stderr
    newest = max(folder.glob(f"{FOLDER}/tests/*/test.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(newest.read_text())["metrics"].keys() == {"reconstruction", "bplp_c"}


def best_validation(run, chosen_by="val/loss"):
    """The row of the log whose checkpoint was kept as the best one."""
    with open(run / "metrics.csv", newline="") as file:
        return min((row for row in csv.DictReader(file) if row[chosen_by]), key=lambda row: float(row[chosen_by]))


def test_a_report_scores_the_best_checkpoint_and_draws_what_it_finds(trained, commands, tmp_path):
    folder, said = trained
    assert f"structloss report {FOLDER}" in said
    shutil.copytree(folder / "runs", tmp_path / "runs")
    done = commands.run(tmp_path, "report", "runs/shape-template-tiny", "--json", "a.json")
    assert done.returncode == 0, done.stderr
    assert all(head in done.stdout for head in ("Reconstruction", "PDJ@0.05", "L2", "BPLP-C", "Left/right"))
    summary = json.loads((tmp_path / "a.json").read_text())
    arm, best = summary["arms"][0], best_validation(tmp_path / FOLDER)
    for name in ("reconstruction", "pdj", "normalized_l2", "bplp_c", "left_right_gap"):
        assert arm["metrics"][name] == pytest.approx(float(best[f"val/{name}"]), rel=1e-5)
    assert arm["objective"] == {"mse": 1.0, "anchor": 0.5, "boundary": 1.0}
    assert summary["data"] == {"source": "rendered people, synthetic motion", "folders": 2, "pairs": 12}
    page = (tmp_path / FOLDER / "report.html").read_text()
    assert all(title in page for title in ("Training", "Frames that were not trained on", "Joint by joint", "wristL"))
    assert page.count("data:image/png;base64,") == 2 and "True joints" in page and "h36m" not in page


def test_a_report_of_frames_without_labels_says_what_is_left_out(trained, tmp_path, capsys):
    folder, _ = trained
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)
            write_picture(tmp_path / "frames" / name / f"{number}.png", pixels)
    out = str(tmp_path / "r.html")
    run = str(folder / FOLDER)
    summary = write_run_report([run], out=out, data=str(tmp_path / "frames"))  # of a run on rendered people: all of it
    assert summary.data == {"source": str(tmp_path / "frames"), "folders": 2, "pairs": 8}
    assert summary.arms[0].metrics.keys() == {"reconstruction", "bplp_c"}
    assert "no annotated joints: pdj, normalized_l2, left_right_gap are left out" in summary.notes[0]
    assert "Joint by joint" not in (tmp_path / "r.html").read_text()
    # A run that was trained on folders of which some are held out has the same of those that have moved.
    moved = tmp_path / "runs/moved/version_0"
    shutil.copytree(folder / FOLDER, moved)
    config = yaml.safe_load((moved / "config.yaml").read_text())
    config["data"] |= {"path": "gone", "val_folders": ["b"]}
    (moved / "config.yaml").write_text(yaml.safe_dump(config))
    assert write_run_report([str(moved)], out=out, data=str(tmp_path / "frames")).data["folders"] == 1
    both = write_run_report([str(moved), run], out=out, data=str(tmp_path / "frames"))
    assert "different data" in both.notes[0] and "path, val_folders differ" in both.notes[0]
    assert both.data[both.arms[1].name]["folders"] == 2 and "True joints" not in (tmp_path / "r.html").read_text()
    with pytest.raises(MissingFileError, match=r"gone does not exist, .*; where the data has moved, pass --data PATH"):
        write_run_report([str(moved)], out=out)
    with pytest.raises(ArgumentError, match="clips and frames are 2 and 243, expected 4 and 243 with runs from images"):
        write_run_report([run], out=out, clips=2)
    capsys.readouterr()


def test_a_checkpoint_is_a_module_again_without_what_its_training_needed(trained):
    folder, _ = trained
    module, place = load_module(folder / FOLDER / "checkpoints/last.ckpt", TEMPLATES)
    assert place["step"] == 9 and isinstance(module, TemplateModule) and not module.training
    frame = batch()["frame"]
    assert module(frame).joints.shape == (4, 15, 2) and module(frame).reconstruction is None
    assert module.predict_step({"frame": frame}, 0).shape == (4, 15, 2)


def test_the_recipes_are_the_published_models():
    def recipe(name):
        return read_yaml(recipe_path(name), "a recipe")

    names = ("shape-template-baseline", "shape-template", "shape-template-constrained", "shape-template-tiny")
    baseline, full, constrained, tiny = (recipe(name) for name in names)
    assert all(system_of(one["model"]) is TEMPLATES for one in (baseline, full, constrained, tiny))
    for one in (baseline, full, constrained):
        assert one["data"]["batch_size"] == 48 and one["trainer"]["max_epochs"] == 50
        assert one["model"]["optimizer"] == "adam" and one["data"]["size"] == 256
    assert [one["model"]["lr"] for one in (baseline, full, constrained)] == [1e-4, 1e-3, 1e-3]
    assert [one["data"]["flip"] for one in (baseline, full, constrained)] == [False, True, True]
    motions = [one["model"]["shape_network_args"]["motion"] for one in (baseline, full, constrained)]
    assert motions == ["affine", "coarse-to-fine", "constrained"]
    assert [one["model"]["loss_weights"]["mse"] for one in (baseline, full, constrained)] == [0.0, 1.0, 1.0]
    templates = [one["model"]["shape_network_args"]["template"] for one in (baseline, full, constrained)]
    assert templates == ["original", "natural", "natural"]

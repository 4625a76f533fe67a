"""`structloss plot`: the numbers behind its figures by their definitions, the figures, the commands, their errors."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import structloss
from structloss import skeletons
from structloss.cli import main
from structloss.data import generate_clips, observe, save_archive, save_store
from structloss.errors import ArgumentError
from structloss.harness.refining import RefineModule
from structloss.refine import PredictedClip, writing_predictions
from structloss.reports.pose_frames import plot_pose_frames
from structloss.reports.sensitivity import colour_cap, plot_sensitivity
from structloss.reports.surface import EXAMPLE_POSE, loss_surfaces, plot_surfaces
from structloss.reports.validity import plot_validity, validity, validity_table

GOLDEN = np.load(Path(__file__).parent / "golden" / "sapnet.npz")
H36M = skeletons.get("h36m")


def picture(path, least=(400, 300)):
    """A picture that is not empty."""
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size[0] >= least[0] and image.size[1] >= least[1]
        colours = image.convert("RGB").getcolors(1 << 24)
    assert len(colours) > 30
    return Path(path).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips, what a camera saw of them, predictions of them with their truth."""
    folder = tmp_path_factory.mktemp("poses")
    clips = generate_clips(2, 1, 30, seed=1)
    store = observe(clips, "train", views=1)
    save_archive(folder / "motion.npz", clips)
    save_store(store, folder / "seen.poses")
    rng = np.random.default_rng(0)
    with writing_predictions(folder / "predictions.npz") as out:
        for view in store.views:
            true = store.pose[view.start : view.start + view.frames]
            true = (true - true[:, :1]).astype(np.float32)
            noisy = (true + rng.normal(0, 0.02, true.shape)).astype(np.float32)
            out.add(PredictedClip(noisy, true, subject=view.subject, name=view.name, view=view.camera, fps=view.fps))
    np.save(folder / "pose.npy", true[3])
    return folder


# Surfaces


def test_surfaces_are_the_golden_ones():
    np.testing.assert_array_equal(EXAMPLE_POSE, GOLDEN["surface__pose_m"])
    x, z = GOLDEN["surface__x"], GOLDEN["surface__z"]
    found = loss_surfaces(joint=12, x=x, z=z)
    for name in ("location", "symmetry", "illegal_angle", "euclidean"):
        np.testing.assert_allclose(found.terms[name], GOLDEN[f"surface__{name}"], rtol=1e-10, atol=1e-15)
    by_range = loss_surfaces(reach=0.3, grid=25)
    np.testing.assert_allclose(by_range.x, x, atol=1e-12)
    np.testing.assert_allclose(by_range.z, z, atol=1e-12)


def test_mirrored_elbow_and_truth_tie_until_angles_are_judged():
    """The three marks of the paper's figure, and the surfaces' sums."""
    found = loss_surfaces(grid=5)
    mirrored, unequal, truth = (found.at(number) for number in (1, 2, 3))
    assert mirrored["symmetry"] == pytest.approx(truth["symmetry"], abs=1e-9) and truth["symmetry"] < 1e-5
    assert mirrored["illegal_angle"] - mirrored["symmetry"] == pytest.approx(0.01275, abs=1e-4)
    assert unequal["illegal_angle"] == unequal["symmetry"] > 0.1
    assert mirrored["euclidean"] == pytest.approx((2 * 0.184151) ** 2) and truth["euclidean"] == 0
    shown = found.shown()
    np.testing.assert_allclose(shown["illegal_angle"] - shown["symmetry"], found.terms["illegal_angle"], atol=1e-12)
    np.testing.assert_allclose(shown["symmetry"] - shown["location"], found.terms["symmetry"], atol=1e-12)
    pose = EXAMPLE_POSE.copy()
    pose[12, 0], pose[12, 2] = found.x[1], found.z[3]
    losses = structloss.bone_symmetry(torch.tensor(pose)[None]) + structloss.illegal_angle(torch.tensor(pose)[None])
    expected = float(losses) + ((pose[12, :2] - EXAMPLE_POSE[12, :2]) ** 2).sum()
    assert shown["illegal_angle"][1, 3] == pytest.approx(expected)


def test_surface_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "surface", "--grid", "21", "--numbers", "s.npz"]) == 0, capsys.readouterr().err
    assert "1 depth mirrored: (a) 0.0000, (b) 0.0000, (c) 0.0128, (d) 0.1356" in capsys.readouterr().out
    first = picture("surface.png", (1000, 700))
    with np.load("s.npz") as numbers:
        np.testing.assert_array_equal(numbers["symmetry"], loss_surfaces(grid=21).terms["symmetry"])
        np.testing.assert_array_equal(numbers["pose_m"], EXAMPLE_POSE)
    given = ["--pose", str(folder / "motion.npz"), "--sequence", "1", "--frame", "4", "--joint", "right_knee"]
    assert (
        main(["plot", "surface", *given, "--grid", "9", "--range", "0.2", "--numbers", "s.csv", "--out", "k.png"]) == 0
    )
    assert picture("k.png") != first
    rows = list(csv.DictReader(io.StringIO(Path("s.csv").read_text())))
    assert len(rows) == 81 and set(rows[0]) == {"x_m", "z_m", "location", "symmetry", "illegal_angle", "euclidean"}
    assert plot_surfaces(loss_surfaces(grid=21), tmp_path / "again.png").read_bytes() == first  # no time stamp


# Validity


def test_validity_is_measured_by_its_definitions():
    """Against numpy, frame by frame and sequence by sequence."""
    rng = np.random.default_rng(0)
    sequences = [rng.normal(0, 0.3, (frames, 17, 3)) for frames in (4, 9)]
    found = validity("noise", sequences)
    every = np.concatenate(sequences)
    pairs = dict(H36M.symmetric_groups)["limbs"]
    for number, (left, right) in enumerate(pairs):
        lengths = [np.linalg.norm(every[:, a] - every[:, b], axis=-1) for a, b in (left, right)]
        assert found.symmetry[number] == pytest.approx(1000 * np.abs(lengths[0] - lengths[1]).mean())
        spread = 0.0
        for poses in sequences:
            deviations = [np.std(np.linalg.norm(poses[:, a] - poses[:, b], axis=-1), ddof=1) for a, b in (left, right)]
            spread += 1000 * np.mean(deviations) * len(poses) / len(every)
        assert found.spread[number] == pytest.approx(spread)
    for number, hinge in enumerate(H36M.hinges):
        a, b, c, d = (every[:, joint] for joint in hinge.joints)
        product = hinge.legal_sign * np.linalg.det(np.stack([b - a, c - b, d - c], axis=1))
        cosine = ((c - b) * (d - c)).sum(-1) / np.linalg.norm(c - b, axis=-1) / np.linalg.norm(d - c, axis=-1)
        assert found.illegal[number] == pytest.approx(np.mean((product < 0) & (cosine < np.cos(np.radians(20)))))
    assert (found.frames, found.sequences) == (13, 2)
    known = np.ones((4, 17))
    known[:, 3] = 0  # the right ankle: no lower legs, no right knee
    part = validity("part", sequences[:1], weights=[known])
    assert np.isnan(part.symmetry[1]) and np.isnan(part.illegal[2]) and np.isfinite(part.symmetry[0])
    assert "–" in validity_table([part])
    assert validity_table([part]).rstrip().endswith("part: 4 frames in 1 clip")


def test_validity_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = [str(folder / name) for name in ("predictions.npz", "motion.npz", "seen.poses", "pose.npy")]
    assert main(["plot", "validity", *files, "--truth", "--csv", "v.csv"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    picture("validity.png", (1000, 400))
    for name in ("predictions", "motion", "seen", "pose", "true poses"):
        assert f"symmetry, mm: {name}" in out and f"{name}: " in out
    rows = list(csv.DictReader(io.StringIO(Path("v.csv").read_text())))
    value = {(row["name"], row["measure"], row["part"]): float(row["value"]) for row in rows}
    assert len(rows) == 5 * 12
    for measure, part in (("symmetry", "upper arm"), ("spread", "lower leg")):
        assert value["predictions", measure, part] > 10 > value["true poses", measure, part]
        for name in ("motion", "seen"):  # the same bodies
            assert value[name, measure, part] == pytest.approx(value["true poses", measure, part], abs=0.01)
    assert value["motion", "illegal", "left elbow"] == 0  # world up or camera: a right-handed frame
    assert np.isnan(value["pose", "spread", "lower leg"])  # a single frame
    assert main(["plot", "validity", files[0], "--name", "a", "b"]) == 1
    assert "--name is ['a', 'b'], expected 1, one per file." in capsys.readouterr().err
    assert main(["plot", "validity", files[1], "--truth"]) == 1
    assert "--truth is set, expected predictions of structloss predict --split" in capsys.readouterr().err


# Sensitivity


def test_sensitivity_figure(tmp_path):
    matrices = np.random.default_rng(0).uniform(0, 0.1, (4, 17, 17))
    matrices[:, range(17), range(17)] += 1
    assert colour_cap(matrices[0]) == matrices[0][~np.eye(17, dtype=bool)].max() < 0.11
    picture(plot_sensitivity(matrices, (-3, -2, -1, 0), tmp_path / "s.png", title="$x_2$ of_it"), (1000, 400))
    picture(plot_sensitivity(matrices[:1], (0,), tmp_path / "one.png"))
    for given, offsets, sentence in (
        (matrices, (-3, -2, -1), r"matrices has shape \[4, 17, 17\], expected finite numbers \[3, 17, 17\]"),
        (matrices[:2], (-2, -1), "offsets is .*, expected the frame that is refined, 0"),
        (matrices * np.nan, (-3, -2, -1, 0), "expected finite numbers"),
    ):
        with pytest.raises(ArgumentError, match=sentence):
            plot_sensitivity(given, offsets, tmp_path / "no.png")


def test_sensitivity_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = RefineModule("tpnet", {"hidden": 16}, past=3, future=1)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "fps": 25.0}
    torch.save(content | {"pytorch-lightning_version": "2.5.0", "epoch": 0, "global_step": 0}, "tpnet.ckpt")
    poses = str(folder / "predictions.npz")
    given = ["tpnet.ckpt", poses, "--poses", "6", "--draws", "4", "--numbers", "s.npz"]
    assert main(["plot", "sensitivity", *given]) == 0, capsys.readouterr().err
    picture("sensitivity.png", (1000, 400))
    with np.load("s.npz") as numbers:
        assert numbers["matrices"].shape == (5, 17, 17) and numbers["offsets"].tolist() == [-3, -2, -1, 0, 1]
        assert (numbers["matrices"] >= 0).all() and (numbers["matrices"].mean(axis=(1, 2)) > 0).all()
    assert main(["plot", "sensitivity", "tpnet.ckpt", poses, "--sigma", "0"]) == 1
    assert "--sigma is 0.0, expected millimetres above 0." in capsys.readouterr().err
    assert main(["plot", "sensitivity", poses, poses]) == 1
    assert "predictions.npz" in capsys.readouterr().err


# Poses


def test_poses_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, more in (
        ("predictions.npz", ["--count", "3"]),
        ("motion.npz", ["--frames", "0", "7", "--sequence", "syn02/reach_01"]),
        ("seen.poses", ["--sequence", "1"]),
        ("pose.npy", []),
    ):
        if name == "motion.npz":
            more[-1] = generate_clips(2, 1, 30, seed=1)[1].key
        assert main(["plot", "poses", str(folder / name), *more, "--out", "p.png"]) == 0, capsys.readouterr().err
        picture("p.png", (300, 500))
    assert "wrote p.png" in capsys.readouterr().out


def test_predicted_file_is_drawn_with_its_input(tmp_path, monkeypatch, capsys):
    from structloss.harness.predict import Prediction

    monkeypatch.chdir(tmp_path)
    poses = np.random.default_rng(0).normal(0, 0.3, (5, 17, 3)).astype(np.float32)
    points = (300 + 200 * poses[..., :2]).astype(np.float32)
    meta = {"name": "walk $1_2$", "skeleton": "h36m", "fps": 25.0}
    made = Prediction("walk", poses, points, np.ones((5, 17), np.float32), "h36m", 25.0, 640, 480, np.ones(5), meta)
    made.save("walk.npz")
    assert main(["plot", "poses", "walk.npz", "--count", "2"]) == 0, capsys.readouterr().err
    with_input = picture("poses.png")
    plot_pose_frames(1000 * poses[[0, 4]], ["a", "b"], "without.png")
    with Image.open("without.png") as one, Image.open(io.BytesIO(with_input)) as other:
        assert other.size[1] > one.size[1] + 200  # a row more


# Errors


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["surface", "--joint", "head"],
            "--joint is 'head', expected one that bends one way: right_elbow (15), left_el",
        ),
        (["surface", "--range", "0"], "--range is 0.0, expected metres above 0 and below 100."),
        (["surface", "--grid", "1"], "--grid is 1, expected 2 to 1000 places."),
        (["surface", "--frame", "3"], "--frame is 3, expected it with a file of poses; set --pose."),
        (["surface", "--out", "a.jpg"], "--out is 'a.jpg', expected a name that ends in .png."),
        (["surface", "--out", "no/a.png"], "--out is 'no/a.png', expected a name in a folder that there is."),
        (["surface", "--numbers", "a.txt"], "--numbers is 'a.txt', expected a name that ends in .npz or .csv."),
        (["surface", "--pose", "none.npz"], "none.npz does not exist, expected predictions, a data set or an array"),
        (["surface", "--pose", "MOTION", "--frame", "99"], "--frame is 99, expected 0 to 29, those of "),
        (["surface", "--pose", "MOTION", "--sequence", "x"], "--sequence is 'x', expected a number below 2 or a name"),
        (["validity", "BAD"], "bad.npy has an array of shape [4, 5, 3], expected [T, J, 3] or [J, 3] with J of 16, 17"),
        (["validity", "NAN"], "with NaN or infinite values, expected finite metres."),
        (["validity", "TEXT"], "text.npy can't be read:"),
        (["poses", "MOTION", "--frames", "0", "30"], "--frames has [30], expected 0 to 29, those of "),
        (["poses", "MOTION", "--count", "25"], "--count is 25, expected at most 24."),
        (["sensitivity", "none.ckpt", "MOTION"], "none.ckpt"),
    ],
)
def test_what_cannot_be_drawn(given, sentence, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("bad.npy", np.zeros((4, 5, 3)))
    np.save("nan.npy", np.full((4, 17, 3), np.nan))
    Path("text.npy").write_text("no array")
    names = {"MOTION": str(folder / "motion.npz"), "BAD": "bad.npy", "NAN": "nan.npy", "TEXT": "text.npy"}
    assert main(["plot", *(names.get(part, part) for part in given)]) == 1
    message = capsys.readouterr().err
    assert sentence in message and message.count("\n") == 1, message
    assert not list(tmp_path.glob("*.png"))


def test_figures_of_nothing_are_refused(tmp_path):
    for draw, sentence in (
        (lambda: plot_validity([], tmp_path / "a.png"), "found is empty"),
        (lambda: validity("none", []), "sequences is empty"),
        (lambda: loss_surfaces(np.zeros((16, 3))), r"pose has shape \[16, 3\], expected finite metres \[17, 3\]"),
        (lambda: loss_surfaces(np.full((17, 3), np.nan)), "pose has NaN or infinite values"),
        (lambda: plot_pose_frames(np.zeros((1, 17, 3)), ["a", "b"], tmp_path / "a.png"), r"expected finite millim"),
    ):
        with pytest.raises(ArgumentError, match=sentence):
            draw()


def test_help_has_examples(capsys):
    for action in ([], ["surface"], ["validity"], ["sensitivity"], ["poses"]):
        with pytest.raises(SystemExit) as left:
            main(["plot", *action, "--help"])
        assert left.value.code == 0 and "structloss plot " in capsys.readouterr().out.split("examples:")[1]

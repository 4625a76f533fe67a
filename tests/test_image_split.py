"""People in runs of images, and `structloss predict --split` of networks from images: order, grouping, what is left
out, and a refiner trained on what was written."""

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("cv2")

import lightning as L
from test_images_sources import spin_arrays, write

from structloss.cli import main
from structloss.data import generate_clips, save_archive
from structloss.errors import ArgumentError, CheckpointError, DataError, MissingFileError
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.image_load import load_image_network
from structloss.harness.image_prediction import predict_people
from structloss.harness.image_split import predict_image_split
from structloss.harness.image_training import ImageModule
from structloss.harness.refining import RefineModule
from structloss.harness.training import quiet_lightning
from structloss.images import ImagesDataModule, RenderedPeople, open_images
from structloss.images.joints import to_h36m
from structloss.images.runs import runs_of_images, runs_of_rendered
from structloss.refine import PredictionsDataModule, read_predictions

SMALL = {"features": 16, "stacks": 1, "modules": 1, "depth_modules": 1, "levels": 2, "input_size": 32}
WALK = "S1/S1_Walking_1.54138969/S1_Walking_1.54138969_"
OTHER = "S1/S1_Walking_1.55011271/S1_Walking_1.55011271_"
#: as no sorting by text would have them, a camera and a subject between each other
NAMES = [
    *(f"{WALK}{n}.png" for n in (11, 6)),
    *(f"{OTHER}{n}.png" for n in (101, 96)),
    "S1/portrait.png",
    *(f"{WALK}{n}.png" for n in (1, 31, 26, 16, 61)),
    *(f"S9/Seq2/imageFrames/video_3/frame_{n:06}.png" for n in (8, 13, 3)),
    f"{OTHER}91.png",
    *[f"{OTHER}86.png"] * 2,
]  # fmt: skip
#: subject, sequence, camera, numbers of the frames
RUNS = [
    ("S1", "S1_Walking_1", "54138969", (1, 6, 11, 16)),
    ("S1", "S1_Walking_1", "54138969", (26, 31)),
    ("S1", "S1_Walking_1", "55011271", (91, 96, 101)),
]
STRANGER = ("S9", "Seq2/imageFrames/frame", "video_3", (3, 8, 13))


def trained(folder, data, steps=0):
    """A checkpoint as training writes it."""
    torch.manual_seed(0)
    module = ImageModule(network_args=SMALL, flip_test=False)
    with quiet_lightning():
        trainer = L.Trainer(
            logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, max_steps=steps,
            enable_checkpointing=False, plugins=[SafeCheckpointIO()], num_sanity_val_steps=0, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        trainer.save_checkpoint(folder / "image.ckpt")
    return folder / "image.ckpt"


@pytest.fixture(scope="module")
def spin(tmp_path_factory):
    """A file of SPIN's form, its images, each another one, and a network that knows it."""
    folder = tmp_path_factory.mktemp("spin")
    for number, name in enumerate(dict.fromkeys(NAMES)):
        write(folder / name, seed=number)
    np.savez(folder / "people.npz", **spin_arrays(len(NAMES)) | {"imgname": np.array(NAMES)})
    # four of the training people were trained on: all of them are predicted
    options = {"input_size": 32, "batch_size": 4, "batch": "labelled", "progress": False}
    checkpoint = trained(folder, ImagesDataModule(str(folder / "people.npz"), count=4, **options))
    return folder, checkpoint


def rows_of(names, frames):
    """Where the images of a run are in the file."""
    return [next(row for row, name in enumerate(names) if name == frame) for frame in frames]


def frames_of(run):
    subject, sequence, view, numbers = run
    if subject == "S9":
        return [f"S9/Seq2/imageFrames/{view}/frame_{n:06}.png" for n in numbers]
    return [f"S1/{sequence}.{view}/{sequence}.{view}_{n}.png" for n in numbers]


@pytest.mark.parametrize(("split", "wanted"), [("train", RUNS), ("test", [STRANGER])])
def test_frames_out_of_order_become_runs(spin, split, wanted, tmp_path, capsys):
    folder, checkpoint = spin
    out = tmp_path / "out.npz"
    command = ["predict", "--split", split, "--ckpt", str(checkpoint), "--out", str(out), "--fps", "50"]
    assert main([*command, "--batch-size", "3"]) == 0
    said = capsys.readouterr().out
    found = read_predictions(out)
    # in the order of the file, image by image
    people = open_images(folder / "people.npz")
    one_by_one = predict_people(load_image_network(checkpoint), people).positions
    assert [(clip.subject, clip.name, clip.view) for clip in found.clips] == [run[:3] for run in wanted]
    for clip, run in zip(found.clips, wanted, strict=True):
        rows = rows_of(NAMES, frames_of(run))
        np.testing.assert_allclose(clip.predicted, one_by_one[rows], atol=1e-5)
        true = to_h36m(np.stack([people[row].pose for row in rows])) / 1000
        np.testing.assert_allclose(clip.true, true, atol=1e-6)
        assert clip.fps == 10  # every fifth frame
        assert np.abs(np.diff(clip.true, axis=0)).max() > 0.1  # other orders would be seen
    notes = [line.strip() for line in said.splitlines() if "note:" in line]
    if split == "train":
        assert notes == [
            "note: 2 of 13 people are left out: several are in one frame, not told apart",
            "note: 2 of 13 people are left out: by its name, no image is 5 frames before or after theirs",
        ]
        assert said.startswith("3 clips of S1, 9 frames, MPJPE ")
        assert f"next: structloss fit --config tpnet --data.predictions {out}" in said
    else:
        assert not notes and said.startswith("1 clip of S9, 3 frames, MPJPE ")
    scored = [joint for joint in range(17) if joint not in (7, 9)]
    error = np.concatenate([np.linalg.norm(clip.predicted - clip.true, axis=-1)[:, scored] for clip in found.clips])
    assert f"MPJPE {1000 * error.mean():.1f} mm" in said


class Named:
    """People of whom nothing but names is asked."""

    labelled, source = True, "made-up.npz"

    def __init__(self, names, subjects=(), actions=()):
        self.names, self.subjects, self.actions = names, subjects, actions

    def __len__(self):
        return len(self.names)


@pytest.mark.parametrize(
    ("names", "runs", "fps"),
    [
        (  # Human3.6M's rate is known
            ["S9_Posing_1.54138969_000011.jpg", "images/S9_Posing_1.54138969_000001.jpg",
             "S9_Posing_1.54138969_000006.jpg"],
            [("S9_Posing_1", "54138969", [2, 0])],
            10,
        ),
        (["a/10.jpg", "a/9.jpg", "a/8.jpg"], [("a", "", [2, 1, 0])], 25),  # not by the names' letters
        (["cam1/x_2.png", "cam2/x_1.png", "cam2/x_2.png", "cam1/x_1.png"],
         [("x", "cam1", [3, 0]), ("x", "cam2", [1, 2])], 25),
        (["7.png", "b7.png", "8.png", "b8.png"], [("images", "", [0, 2]), ("b", "", [1, 3])], 25),
        (["TS1/imageSequence/img_000002.jpg", "TS2/imageSequence/img_000003.jpg", "TS2/imageSequence/img_000002.jpg"],
         [("TS2/imageSequence/img", "", [2, 1])], 25),
    ],
)  # fmt: skip
def test_sequences_and_cameras_of_names(names, runs, fps):
    found = runs_of_images(Named(names))
    assert [(run.name, run.view, list(run.rows)) for run in found.runs] == runs
    assert found.fps == fps and all(run.subject == run.action == "unknown" for run in found.runs)
    assert ("25 frames per second are assumed; set fps" in str(found.notes)) == (fps == 25)


def test_subjects_are_never_in_one_run():
    """Even where a name tells the same sequence."""
    people = Named(["a_1.png", "a_2.png", "a_3.png", "a_4.png"], ["S1", "S2", "S1", "S2"], ["Eating"] * 4)
    found = runs_of_images(people, fps=30.0)
    assert [(run.subject, run.action, list(run.rows)) for run in found.runs] == [
        ("S1", "Eating", [0, 2]), ("S2", "Eating", [1, 3]),
    ]  # fmt: skip
    assert found.fps == 15 and found.notes == ()
    with pytest.raises(ArgumentError, match="fps is 0, expected a positive number"):
        runs_of_images(people, 0)
    for names in ([], ["a.png", "b.png"], ["a_1.png", "a_1.jpg"], [f"a_{'9' * 5000}.png"]):
        with pytest.raises(DataError, match=r"no images of made-up\.npz follow each other by their names, expected"):
            runs_of_images(Named(names))


def test_the_people_of_stills_in_motion():
    """The same bodies in the same clothes, one after the other; all of them seen as a whole."""
    clips = generate_clips(2, 2, 60, seed=3)
    stills = RenderedPeople(6, size=32, seed=4, truncated=1.0, motion=clips)
    moving = runs_of_rendered(stills.in_motion(3, 5))
    assert [list(run.rows) for run in moving.runs] == [[*range(5)], [*range(5, 10)], [*range(10, 15)]]
    assert moving.fps == 25
    for number, run in enumerate(moving.runs):
        first, last, still = (moving.people[run.rows[0]], moving.people[run.rows[-1]], stills[number])
        assert (run.subject, run.action) == (still.subject, still.action) == (last.subject, last.action)
        assert np.abs(first.pose - last.pose).max() > 1 and first.annotated.all()
        assert ((first.joints > 0) & (first.joints < 31)).all()
        looks = [people._run(number).scene.look for people in (stills, moving.people)]
        assert repr(looks[0]) == repr(looks[1])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    save_archive(folder / "motion.npz", generate_clips(4, 2, 60, seed=3))
    options = {"input_size": 32, "batch_size": 4, "eval_batch_size": 64, "progress": False, "seed": 3}
    data = ImagesDataModule(count=80, val_count=4, motion=str(folder / "motion.npz"), **options)
    return folder, trained(folder, data, steps=2)


def test_from_rendered_people_to_a_trained_refiner(rendered, monkeypatch, capsys):
    monkeypatch.setattr("structloss.harness.image_split._FRAMES", 8)  # a fifth of the images, with as many bodies
    folder, checkpoint = rendered
    command = ["predict", "--ckpt", str(checkpoint), "--split"]
    assert main([*command, "train", "--out", str(folder / "train.npz")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("10 clips of ") and "80 frames" in said and "note:" not in said
    assert main([*command, "test", "--out", str(folder)]) == 0  # a folder
    said = capsys.readouterr().out
    assert said.startswith("4 clips of syn04, 32 frames") and "next:" not in said
    train, test = (read_predictions(folder / name) for name in ("train.npz", "predictions-test.npz"))
    assert {clip.fps for clip in train.clips + test.clips} == {25} and {len(clip) for clip in train.clips} == {8}
    assert {clip.subject for clip in train.clips} <= {"syn01", "syn02"}  # the third is of the half without 3D poses
    assert train.source["split"] == "train" and train.source["model"] == "sapnet"

    assert SafeCheckpointIO().load_checkpoint(checkpoint)["global_step"] == 2
    data = PredictionsDataModule(str(folder / "train.npz"), str(folder / "predictions-test.npz"), past=3, batch_size=16)
    module = RefineModule(refiner_args={"hidden": 16}, past=3)
    weight = module.model.fc[0].weight.detach().clone()
    with quiet_lightning():
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(max_steps=2, enable_checkpointing=False, num_sanity_val_steps=0, **options)
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
    assert not torch.equal(module.model.fc[0].weight, weight) and module.fps == 25
    assert 0 < module.evaluation["input_mpjpe"] < 5000 and np.isfinite(module.evaluation["mpjpe"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RENDERED", "--fps", "25"], "--fps is 25, expected it with people of files: rendered people have their own"),
        (["RENDERED", "--images", "i"], "--images is 'i', expected it with people of files, but those of"),
        (["RENDERED", "--missing", "skip"], "--missing is 'skip', expected it with people of files"),
        (["SPIN", "--fps", "-1"], "--fps is -1.0, expected a positive number"),
        (["SPIN", "--box", "0", "0", "4", "4"], "--box is (0.0, 0.0, 4.0, 4.0) with --split, expected it with images"),
        (["SPIN", "flat.npz"], "the input is flat.npz, which has no 3D poses, expected people with 2D and 3D joints"),
        (["SPIN", "gone.npz"], "gone.npz does not exist"),
        (["SPIN", "--images", "nowhere"], "--images is 'nowhere', expected the folder of the images of"),
        (
            ["SPIN", "flat.npz", "--out", "flat.npz"],
            "flat.npz is the input, expected another file or folder for the output",
        ),
    ],
)
def test_what_the_split_of_images_refuses(spin, rendered, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arrays = spin_arrays(4)
    del arrays["S"]
    for name in arrays["imgname"]:
        write(tmp_path / name)
    np.savez("flat.npz", **arrays)
    before = sorted(tmp_path.iterdir())
    checkpoint = {"RENDERED": rendered, "SPIN": spin}[arguments[0]][1]
    out = [] if "--out" in arguments else ["--out", "out.npz"]
    assert main(["predict", *arguments[1:], *out, "--split", "train", "--ckpt", str(checkpoint)]) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and err.endswith(".\n"), err
    assert sorted(tmp_path.iterdir()) == before


def test_data_that_has_moved_and_checkpoints_without(spin, tmp_path, capsys):
    folder, checkpoint = spin
    moved = folder.rename(folder.with_name("elsewhere"))
    try:
        checkpoint = moved / checkpoint.name
        with pytest.raises(
            MissingFileError, match=r"people\.npz does not exist.*moved, give its path in front of --split"
        ):
            predict_image_split(checkpoint, tmp_path / "a.npz")
        command = ["predict", str(moved / "people.npz"), "--split", "val", "--ckpt", str(checkpoint)]
        assert main([*command, "--out", str(tmp_path / "a.npz")]) == 0
        assert "25 frames per second are assumed; set --fps" in capsys.readouterr().out
        assert [clip.fps for clip in read_predictions(tmp_path / "a.npz").clips] == [5]
        # one image is gone: a run ends before it
        (moved / frames_of(RUNS[0])[1]).rename(tmp_path / "kept.png")
        command[3] = "train"
        assert main([*command, "--out", str(tmp_path / "b.npz")]) == 1
        assert not (tmp_path / "b.npz").exists() and "set --missing to 'skip'" in capsys.readouterr().err
        with pytest.warns(UserWarning, match=r"54138969_6\.png does not exist"):
            assert main([*command, "--out", str(tmp_path / "b.npz"), "--missing", "skip"]) == 0
        assert [len(clip) for clip in read_predictions(tmp_path / "b.npz").clips] == [2, 2, 3]
        (tmp_path / "kept.png").rename(moved / frames_of(RUNS[0])[1])
    finally:
        moved.rename(folder)
    content = torch.load(spin[1], weights_only=True)
    for name in [name for name in content["state_dict"] if name.endswith("weight")]:
        content["state_dict"][name] *= float("nan")
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(CheckpointError, match=r"sapnet with .*nan\.ckpt predicts NaN or infinite values"):
        predict_image_split(tmp_path / "nan.ckpt", tmp_path / "c.npz", fps=50)
    del content["datamodule_hyper_parameters"]
    torch.save(content, tmp_path / "b.ckpt")
    with pytest.raises(DataError, match="doesn't say what data it was trained on"):
        predict_image_split(tmp_path / "b.ckpt", tmp_path / "c.npz")
    assert not (tmp_path / "c.npz").exists()

"""`structloss data` on what lies about: folders of everything, files that nobody can read, and files that mean harm."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_data
import numpy as np
import pytest
import rigs
from test_data_commands import refused, run
from test_mocap_formats import marker_points, write_c3d

from structloss.cli import main
from structloss.data import Clip, MotionDataModule, generate_clips, load_archive, open_store, save_archive, save_store
from structloss.data.clips import MOST_FPS
from structloss.data.formats import read_bvh, read_c3d, write_bvh
from structloss.data.formats.unpickle import load_npz_objects, load_pickle, npz_members
from structloss.data.inspection import inspect_data
from structloss.data.observation import observe
from structloss.data.opening import open_data
from structloss.data.protocols import split
from structloss.errors import ArgumentError, DataError, StructlossError, UnknownNameError

FAULTS = Path(__file__).parent / "golden" / "faults"
MIXAMO = rigs.names("Hips Spine Spine1 Neck Head | *UpLeg *Leg *Foot *Shoulder *Arm *ForeArm *Hand | Left Right")


def walker(frames=60, metres=16.0):
    """A clip that walks past the cameras, straight along y."""
    positions = fake_data.world(frames, "walker").copy()
    positions[..., 1] += np.linspace(-metres / 2, metres / 2, frames, dtype=np.float32)[:, None]
    return positions


@pytest.fixture
def folder(tmp_path):
    """Two good recordings."""
    (tmp_path / "in" / "more").mkdir(parents=True)
    write_bvh(tmp_path / "in" / "a_1.bvh", fake_data.world(30, "a"), 50)
    write_bvh(tmp_path / "in" / "more" / "b_1.BVH", fake_data.world(20, "b"), 50)
    return tmp_path / "in"


# Folders --------------------------------------------------------------------------------------------------------------


def test_cameras_move_back_from_a_clip_that_comes_too_near(folder, tmp_path, capsys):
    out, _ = run(capsys, "convert", folder, tmp_path / "two.poses", "--detections", "exact")
    assert "2 motions in 8 views" in out and "note" not in out
    write_bvh(folder / "long.bvh", walker(), 50)
    out, _ = run(capsys, "convert", folder, tmp_path / "three.poses", "--detections", "exact")
    assert "3 motions in 12 views, 440 frames" in out
    assert "cameras moved back until the whole clip is in the picture, since somebody came closer than 0.3 m: " in out
    assert "of long/long" in out
    two, three = open_store(tmp_path / "two.poses"), open_store(tmp_path / "three.poses")
    recorded = read_bvh(folder / "long.bvh").positions
    others = iter(two.views)
    for view in three.views:
        rows = slice(view.start, view.start + view.frames)
        seen, pose = three.input[rows], three.pose[rows].astype(np.float64)
        if view.subject != "long":
            before = next(others)
            there = slice(before.start, before.start + before.frames)
            np.testing.assert_array_equal(pose, two.pose[there])
            np.testing.assert_array_equal(seen, two.input[there])
            continue
        assert pose[..., 2].min() >= 0.3
        fx, fy, cx, cy = view.intrinsics  # the image is that of the pose as the moved camera sees it
        image = pose[..., :2] / pose[..., 2:] * (fx, fy) + (cx, cy)
        np.testing.assert_allclose(seen[..., :2], image, atol=1e-5)
        assert np.abs(seen[..., 0]).max() <= 1 and np.abs(seen[..., 1]).max() <= view.size[1] / view.size[0]
        for a, b in ((10, 3), (13, 16)):  # nobody is stretched by it
            lengths = [np.linalg.norm(x[:, a] - x[:, b], axis=-1) for x in (recorded, pose)]
            np.testing.assert_allclose(*lengths, atol=1e-5)
    assert any("moved back" in note for note in inspect_data(tmp_path / "three.poses").notes)


def test_who_observes_chooses_what_becomes_of_a_near_clip():
    clip = Clip(walker(), "w", "walk", "long")
    with pytest.raises(DataError, match=r"'w/long' comes within .* expected at least 0\.3 m"):
        observe([clip])
    with pytest.raises(ArgumentError, match="too_near is 'skip', expected one of 'error', 'move'"):
        observe([clip], too_near="skip")
    assert "moved back" in observe([clip], too_near="move").source["notes"][0]
    near = Clip(fake_data.world(20, "a"), "w", "stand", "near")
    assert "notes" not in observe([near], too_near="move").source, "whoever is far enough is left alone"


def test_training_moves_cameras_back_too(tmp_path):
    save_archive(tmp_path / "a.npz", [
        Clip(walker(), "w", "walk", "long"), Clip(fake_data.world(60, "a"), "x", "stand", "near")])  # fmt: skip
    data = MotionDataModule(str(tmp_path / "a.npz"), window=27, progress=False, val_subjects=["w"])
    with pytest.warns(UserWarning, match="moved back until the whole clip is in the picture"):
        data.setup()
    assert len(data.val_dataset) > 0


def test_files_that_cannot_be_read_are_left_out_on_request(folder, tmp_path, capsys):
    (folder / "broken.bvh").write_text("HIERARCHY")
    os.mkfifo(folder / "pipe.bvh")
    (folder / "zero.bvh").symlink_to("/dev/zero")
    rigs.write(folder / "inches.bvh", MIXAMO, scale=1 / 2.54)
    text = refused(capsys, "convert", folder, tmp_path / "a.npz")
    assert (
        "broken.bvh has no MOTION" in text
        and "; structloss data convert leaves such files out with --skip-bad." in text
    )
    for out in ("a.npz", "a.poses"):
        out, err = run(capsys, "convert", folder, tmp_path / out, "--skip-bad")
        assert err == "" and "note: 4 of 6 files are left out\n" in out and ("2 clips" in out or "2 motions" in out)
        for name, why in (("broken", "has no MOTION"), ("pipe", "is not a regular file"),
                          ("zero", "is not a regular file"), ("inches", "0.0254 if they are inches")):  # fmt: skip
            (line,) = (line for line in out.splitlines() if f"{name}.bvh" in line)
            assert line.startswith("note: left out: ") and why in line
        assert "set --scale" in out
    assert [clip.key for clip in load_archive(tmp_path / "a.npz")[0]] == ["a/a_1", "b/b_1"]
    report = inspect_data(folder, skip_bad=True)
    assert report.motions == 2 and "4 of 6 files are left out" in report.notes
    (folder / "a_1.bvh").unlink(), (folder / "more" / "b_1.BVH").unlink()
    text = refused(capsys, "convert", folder, tmp_path / "b.npz", "--skip-bad")
    assert "none of the 4 files of" in text and "broken.bvh has no MOTION" in text
    assert "--joints is 'x'" in refused(capsys, "convert", folder, tmp_path / "b.npz", "--skip-bad", "--joints", "x")


def test_one_file_is_never_left_out(folder, tmp_path, capsys):
    (tmp_path / "a.bvh").write_text("HIERARCHY")
    text = refused(capsys, "convert", tmp_path / "a.bvh", tmp_path / "a.npz", "--skip-bad")
    assert "has no MOTION" in text and "skip" not in text


def test_two_recordings_of_one_name(folder, tmp_path, capsys):
    write_bvh(folder / "more" / "a_1.bvh", fake_data.world(10, "c"), 50)
    assert "two files called a_1.bvh" in refused(capsys, "convert", folder, tmp_path / "a.npz")
    out, _ = run(capsys, "convert", folder, tmp_path / "a.npz", "--skip-bad")
    assert "2 clips" in out and "note: left out: " in out and "two files called a_1.bvh" in out


def test_what_files_share_is_said_once(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in "abc":
        rigs.write(tmp_path / "in" / f"{name}.bvh", MIXAMO, top=None)
    rigs.write(tmp_path / "in" / "d.bvh", MIXAMO)
    _, err = run(capsys, "convert", tmp_path / "in", tmp_path / "a.npz")
    assert err.count("\n") == 1 and "a.bvh (and 2 more of 4 files) does not tell where the head ends" in err


def test_a_folder_of_several_formats(folder, tmp_path, capsys):
    write_c3d(folder / "m.c3d", marker_points() * 1000)
    assert "files of several formats, bvh, c3d, expected one; name a file in it, or set --format." in refused(
        capsys, "convert", folder, tmp_path / "a.npz"
    )
    out, _ = run(capsys, "convert", folder, tmp_path / "a.npz", "--format", "bvh")
    assert "2 clips" in out
    out, _ = run(capsys, "convert", folder, tmp_path / "c.npz", "--format", "c3d")
    assert "1 clip" in out
    out, _ = run(capsys, "inspect", folder, "--format", "c3d")
    assert "c3d: motion capture" in out
    assert "unknown format 'bvhs': did you mean 'bvh'?" in refused(capsys, "inspect", folder, "--format", "bvhs")
    with pytest.raises(UnknownNameError):
        open_data(folder, format="bvhs")
    (tmp_path / "walk.txt").write_bytes((folder / "a_1.bvh").read_bytes())
    assert len(open_data(tmp_path / "walk.txt", format="bvh")) == 1
    text = refused(capsys, "convert", folder, tmp_path / "d.npz", "--format", "h3wb")
    assert "has none of h3wb_train.npz" in text


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--fps", "1e9"), "--fps is 1e+09, expected 1 to 1000 frames per second."),
        (("--fps", "0.5"), "--fps is 0.5, expected 1 to 1000 frames per second."),
        (("--fps", "inf"), "--fps is inf, expected a positive number of frames per second."),
        (("--source-fps", "1e9"), "--source-fps is 1e+09, expected 0.0001 to 100000."),
        (("--source-fps", "1e-9"), "--source-fps is 1e-09, expected 0.0001 to 100000."),
        (
            ("--source-fps", "0.0001"),
            "lasts 3e+05 s at 0.0001 frames per second, expected at most 2000000 frames at 50",
        ),
        (("--views", "5"), "--views is 5, expected 1 to 4 cameras."),
        (("--views", "99999999"), "--views is 99999999, expected 1 to 4 cameras."),
    ],
)
def test_absurd_numbers(options, expected, folder, tmp_path, capsys):
    assert expected in refused(capsys, "convert", folder / "a_1.bvh", tmp_path / "a.poses", *options)


def test_absurd_numbers_elsewhere(folder, tmp_path, capsys):
    assert "--views is 5, expected 1 to 4 cameras." in refused(capsys, "synthetic", tmp_path / "a.poses", "--views", 5)
    clip = read_bvh(folder / "a_1.bvh")
    assert len(clip.resampled(MOST_FPS)) == 29 * 20 + 1
    for fps in (MOST_FPS + 1, 0.9):
        with pytest.raises(ArgumentError, match="expected 1 to 1000 frames per second"):
            clip.resampled(fps)
    with pytest.raises(ArgumentError, match="fps is 1e"):  # before the file is read
        open_data(folder / "a_1.bvh", fps=1e9)


# One person -----------------------------------------------------------------------------------------------------------


def test_clips_of_one_person_can_be_held_out(tmp_path):
    clips = generate_clips(1, 3, 60, seed=2)
    save_archive(tmp_path / "one.npz", clips)
    path = str(tmp_path / "one.npz")
    settings = {"window": 27, "progress": False, "detections": "exact"}
    with pytest.raises(DataError) as caught:
        MotionDataModule(path, **settings).setup()
    assert "it has 1 (syn01); set val_subjects to the clips to hold out, such as syn01/" in str(caught.value)
    suggested = str(caught.value).rpartition(" ")[2].rstrip(".")
    assert suggested == clips[-1].key
    store = save_store(observe(clips, views=1, detections="exact"), tmp_path / "one.poses")
    for data in (path, str(store)):
        module = MotionDataModule(data, val_subjects=[suggested], **settings)
        module.setup()
        assert set(module.train_dataset.motions) == {clip.key for clip in clips[:2]}
        assert module.val_dataset.motions == (suggested,)
    train, test = split(open_store(store), val_subjects=[suggested])
    assert train.motions == tuple(clip.key for clip in clips[:2]) and test.motions == (suggested,)
    with pytest.raises(ArgumentError, match="val_subjects has 'syn01/nothing', expected subjects of"):
        MotionDataModule(path, val_subjects=["syn01/nothing"], **settings).setup()
    save_archive(tmp_path / "one.npz", clips[:1])
    with pytest.raises(DataError, match=r"it has 1 \(syn01\)\.$"):
        MotionDataModule(path, **settings).setup()


def test_the_command_line_names_the_flag_for_one_person(tmp_path, capsys):
    save_archive(tmp_path / "one.npz", generate_clips(1, 2, 60, seed=2))
    command = ["fit", "--config", "repose-tiny", "--data.data", str(tmp_path / "one.npz"), "--data.window", "27"]
    assert main([*command, "--trainer.default_root_dir", str(tmp_path)]) == 1
    assert "; set --data.val_subjects to the clips to hold out, such as syn01/" in capsys.readouterr().err


# Files that nobody can read -------------------------------------------------------------------------------------------


def _everything(folder):
    """A path of every kind of file that is opened, and what opens it."""
    for suffix in (".npz", ".pkl", ".bvh", ".c3d", ".amc", ".json"):
        yield folder / f"a{suffix}", open_data
    for read in (load_archive, load_pickle, load_npz_objects, npz_members, read_bvh, read_c3d):
        yield folder / "a.any", read


def test_pipes_and_devices_are_not_read(tmp_path):
    for number, (path, read) in enumerate(_everything(tmp_path)):
        if number % 2:
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(DataError, match="is not a regular file"):
            read(path)
        path.unlink()


def test_a_file_without_permission(tmp_path, monkeypatch, capsys):
    """Whoever runs the tests may be allowed to read everything."""
    save_archive(tmp_path / "a.npz", generate_clips(1, 1, 4, seed=1))
    save_store(observe(generate_clips(1, 1, 4, seed=1), views=1), tmp_path / "a.poses")
    for path, _ in _everything(tmp_path):
        path.touch()
    real = open

    def forbidden(file, *arguments, **options):
        if str(file).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr("builtins.open", forbidden)
    for path, read in [*_everything(tmp_path), (tmp_path / "a.poses", open_data)]:
        if path.suffix in (".json", ".amc"):
            continue  # no format, and no skeleton beside it
        with pytest.raises(DataError, match=r"can't be read: Permission denied\."):
            read(path)
    assert "can't be read: Permission denied." in refused(capsys, "inspect", tmp_path / "a.npz")


def test_what_a_killed_conversion_left_goes_at_the_next_start(folder, tmp_path, capsys):
    """Also where the next one fails."""
    code = (
        "import os, signal, sys\nimport numpy as np\nfrom structloss.cli import main\n"
        "from structloss.data import store\n"
        "def die(file, *_, **__):\n"
        "    file.write(b'half')\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "np.savez_compressed = die\n"
        "store.write_frames = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:])\n"
    )
    before = set(os.listdir(tmp_path))
    for name in ("a.npz", "a.poses"):
        done = subprocess.run([sys.executable, "-c", code, "data", "convert", folder, tmp_path / name], check=False)
        assert done.returncode == -signal.SIGKILL
        (left,) = set(os.listdir(tmp_path)) - before
        assert left.startswith(f".{name}.") and left.endswith(".tmp")
        refused(capsys, "convert", folder / "none", tmp_path / "b.npz")
        assert set(os.listdir(tmp_path)) == before


def test_escape_sequences_of_files_are_not_printed(folder, tmp_path, capsys):
    """In names of files and subjects, of joints, of clips, and in what the data set says of itself."""
    evil = "\x1b]0;owned\x07\x1b[2J"
    write_bvh(folder / f"{evil}x_1.bvh", fake_data.world(10, "c"), 50)
    out, err = run(capsys, "inspect", folder)
    assert "\x1b" not in out + err and "\\x1b]0;owned\\x07\\x1b[2Jx" in out
    json.loads(run(capsys, "inspect", folder, "--json")[0])
    out, err = run(capsys, "convert", folder, tmp_path / "a.npz")
    assert "\x1b" not in out + err
    (folder / "joints.bvh").write_text((folder / "a_1.bvh").read_text().replace("JOINT LHip", f"JOINT {evil}"))
    assert "\x1b" not in refused(capsys, "inspect", folder / "joints.bvh")
    (folder / f"{evil}.bvh").write_text("nothing")
    assert "\x1b" not in refused(capsys, "convert", folder, tmp_path / "b.npz")
    out, err = run(capsys, "convert", folder, tmp_path / "c.npz", "--skip-bad")
    assert "\x1b" not in out + err and "left out" in out
    save_archive(tmp_path / "d.npz", [Clip(fake_data.world(5, "d"), f"s{evil}", f"a{evil}", f"n{evil}")])
    for arguments in (("inspect", tmp_path / "d.npz"), ("convert", tmp_path / "d.npz", tmp_path / f"{evil}.poses")):
        out, err = run(capsys, *arguments)
        assert "\x1b" not in out + err


@pytest.mark.parametrize(
    "name", ["laughs.pkl", "memo.pkl", "c3d_char_dims.c3d", "hugeint.bvh", "frametime.bvh", "meta_deep.npz"]
)
def test_the_hostile_files_are_refused_in_one_sentence(name, capsys):
    error = refused(capsys, "inspect", FAULTS / name)
    assert name in error and len(error) < 300


def test_odd_values_anywhere_in_a_store_or_an_archive(tmp_path):
    """Whatever stands in the JSON of our own formats: it is read or refused, and always in a sentence."""
    clips = generate_clips(1, 1, 4, seed=1)
    store = save_store(observe(clips, views=1), tmp_path / "a.poses")
    save_archive(tmp_path / "a.npz", clips)
    arrays = load_npz_objects(tmp_path / "a.npz")
    odd = (None, [], {}, "x", 10**400, -1, 0, True, [[]], ["a"] * 5, "\x1b[2J", 1e308, [1, 2, 3])
    for meta, put in (
        (json.loads((store / "meta.json").read_text()), lambda m: (store / "meta.json").write_text(json.dumps(m))),
        (json.loads(str(arrays["meta"])), lambda m: np.savez(tmp_path / "a.npz", **arrays | {"meta": json.dumps(m)})),
    ):
        path = store if "version" in meta else tmp_path / "a.npz"
        refusals = 0
        for place in list(_places(meta)):
            for value in odd:
                put(_changed(meta, place, value))
                try:
                    assert "\x1b" not in str(inspect_data(path))
                except StructlossError as error:
                    refusals += 1
                    assert "\n" not in str(error) and len(str(error)) < 600, (place, value)
        assert refusals > 50


def _places(content, place=()):
    if place:
        yield place
    items = enumerate(content[:3]) if isinstance(content, list) else getattr(content, "items", tuple)()
    for key, value in items:
        yield from _places(value, (*place, key))


def _changed(content, place, value):
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy

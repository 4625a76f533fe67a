"""Formats as one-file things: a made-up one is put beside the others, and everything that names formats knows it."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import fake_data
import numpy as np
import pytest

import structloss.data.formats as formats
from structloss.cli import main
from structloss.data import load_archive, open_store
from structloss.data.conversion import convert_data
from structloss.data.formats import keypoint_forms, read_keypoints, unpickle
from structloss.data.formats.candidate import CERTAIN, MAYBE, NO, Candidate
from structloss.data.formats.detect import detect, recognise
from structloss.data.formats.keypoint_form import FORMS
from structloss.data.formats.registry import FORMATS, Format
from structloss.data.inspection import inspect_data
from structloss.data.opening import open_data
from structloss.data.registry import Registry
from structloss.errors import ArgumentError, DataError, MissingFileError, UnknownNameError

#: Where the recipes are: in the assembled page, or in the part that it is made from.
PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("adding.md", "_adding_data.md.part")]


def recipe(title):
    """The Python blocks of a recipe: the new file, and its test."""
    text = next(page.read_text(encoding="utf-8") for page in PAGES if page.is_file() and title in page.read_text())
    section = re.split(r"^## ", text.partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]
    new, test = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return new, test


def run_test(source, tmp_path):
    """The only test of a file."""
    names: dict = {}
    exec(source, names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test(tmp_path)


STEPS, _ = recipe("A data format")


@pytest.fixture
def added(monkeypatch, tmp_path):
    """Adds a module of this text to the folder of formats, or of another package, for a test."""
    for registry in (FORMATS, FORMS):
        monkeypatch.setattr(registry, "_entries", dict(registry))
        monkeypatch.setattr(registry, "_searched", set(registry._searched))
    before = set(sys.modules)

    def add(name, text, package=formats):
        folder = tmp_path / f"beside-{name}"
        folder.mkdir()
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])

    yield add
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def walk(tmp_path):
    """A file of the made-up format, in centimetres, and its positions in metres."""
    positions = fake_data.world(20, "steps").astype(np.float64)
    np.savetxt(tmp_path / "walk.steps", positions.reshape(20, 51) * 100)
    return tmp_path / "walk.steps", positions


def test_a_new_format_is_one_file(added, walk, tmp_path, capsys):
    path, positions = walk
    with pytest.raises(DataError, match="is of no known format"):
        detect(path)
    added("steps", STEPS)

    assert detect(path) == "steps"
    (clip,) = open_data(path, metres_per_unit=0.01)
    assert (clip.key, clip.fps) == ("walker/walk", 25)
    np.testing.assert_allclose(clip.positions, positions, atol=1e-6)
    assert len(open_data(path, fps=50)[0]) == 39

    report = inspect_data(path, metres_per_unit=0.01)
    assert (report.format, report.description) == ("steps", "positions in text, one frame per line")
    assert report.kind == "clips" and report.frames == 20

    written = convert_data(path, tmp_path / "a.npz", metres_per_unit=0.01)
    assert written.content == "1 clip, 20 frames at 25 fps"
    assert load_archive(tmp_path / "a.npz")[1]["source"] == "walk.steps (steps)"
    assert (
        main(["data", "convert", str(path), str(tmp_path / "a.poses"), "--metres-per-unit", "0.01", "--views", "1"])
        == 0
    )
    assert open_store(tmp_path / "a.poses").frames == 20
    capsys.readouterr()
    assert main(["data", "inspect", str(path), "--metres-per-unit", "0.01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "steps"


def test_the_test_of_the_recipe(added, tmp_path):
    added("steps", STEPS)
    run_test(recipe("A data format")[1], tmp_path)


def test_messages_and_tables_list_a_new_format(added, tmp_path, capsys):
    added("steps", STEPS)
    assert main(["data", "formats"]) == 0
    shown = capsys.readouterr().out
    assert "steps         positions in text, one frame per line\n" in shown
    assert "files: *.steps\n" in shown and "options: --metres-per-unit\n" in shown
    with pytest.raises(SystemExit):
        main(["data", "inspect", "--help"])
    shown = capsys.readouterr().out
    assert "options of the format steps:\n  --metres-per-unit METRES_PER_UNIT" in shown
    with pytest.raises(DataError, match=r"expected one of: .*; positions in text, one frame per line"):
        detect(__file__)
    fake_data.write_h36m_npz(tmp_path, frames=2)
    with pytest.raises(ArgumentError, match=r"metres_per_unit is given for .*npz\), expected it with steps only"):
        open_data(tmp_path, metres_per_unit=0.01)
    with pytest.raises(ArgumentError, match="expected it with amc, archive, bvh, c3d, steps only"):
        open_data(tmp_path, fps=50)
    with pytest.raises(UnknownNameError, match="unknown option 'metres': did you mean 'metres_per_unit'"):
        open_data(tmp_path, metres=0.01)


def test_a_format_without_options_of_its_own_takes_none(added, walk):
    added("steps", STEPS)
    with pytest.raises(ArgumentError, match=r"scale is given for .*steps \(steps\), expected it with amc, bvh, c3d"):
        open_data(walk[0], scale=1.0)


def test_of_several_formats_the_surest_is_taken(added, tmp_path):
    text = """
        from pathlib import Path
        from .candidate import Candidate
        from .registry import FORMATS, Format

        def sniff(candidate: Candidate) -> int:
            return int((candidate.path / "sure").read_text()) if candidate.is_folder else 0

        FORMATS.register(Format("ours", "made up", lambda path, progress: [], sniff=sniff, clips=True))
    """
    added("ours", text)
    (tmp_path / "a.bvh").touch()
    for sure, expected in ((NO, "bvh"), (MAYBE, None), (CERTAIN, "ours")):
        (tmp_path / "sure").write_text(str(sure))
        if expected is None:
            with pytest.raises(DataError, match="several formats, bvh, ours, expected one; name a file in it"):
                detect(tmp_path)
        else:
            assert detect(tmp_path) == expected


def test_a_format_of_a_users_own(monkeypatch, tmp_path):
    """Registered from anywhere, without a file in the package."""
    monkeypatch.setattr(FORMATS, "_entries", dict(FORMATS))
    mine = FORMATS.register(Format("mine", "my own", lambda path, progress: [], suffixes=(".mine",), clips=True))
    (tmp_path / "a.mine").touch()
    assert recognise(tmp_path / "a.mine") is mine and str(mine) == "my own"
    with pytest.raises(ArgumentError, match="data format 'mine' is registered already"):
        FORMATS.register(mine)


def test_formats_are_in_the_order_of_their_names():
    assert list(FORMATS) == sorted(FORMATS) and len(FORMATS) == len(set(FORMATS)) >= 10
    for name, entry in FORMATS.items():
        assert entry.name == name and entry.says and entry.suffixes + entry.arrays + entry.folder


def test_every_format_has_a_test():
    """That names it: whoever adds a format adds a test file, and has no list to bring up to date."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in FORMATS if f'"{name}"' not in tests] == []


def test_a_module_that_cannot_be_imported_is_no_silence(added):
    added("broken", "import nothing_of_this_name")
    for _ in range(2):  # not only the first time
        with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
            list(FORMATS)


def test_a_registry_looks_for_modules_when_it_is_asked():
    registry = Registry("no.such.package", "thing")
    assert registry.package == "no.such.package"
    with pytest.raises(ModuleNotFoundError):
        len(registry)


def test_formats_are_told_without_loading_anything(tmp_path, monkeypatch):
    for name in ("h36m", "3dhp", "h3wb"):
        (tmp_path / name).mkdir()
    fake_data.write_h36m_npz(tmp_path / "h36m", frames=2)
    fake_data.write_3dhp(tmp_path / "3dhp", frames=2, test_frames=8)
    fake_data.write_h3wb_npz(tmp_path / "h3wb", frames=2)
    (tmp_path / "a.pkl").touch()

    def loaded(*arguments, **options):
        raise AssertionError("something was loaded")

    for module, name in ((unpickle, "_unpickle"), (unpickle, "_read_member"), (np, "load"), (json, "load")):
        monkeypatch.setattr(module, name, loaded)
    for place, expected in (
        ("h36m", "h36m-npz"), ("h36m/data_3d_h36m.npz", "h36m-npz"), ("3dhp/data_train_3dhp.npz", "mpi_inf_3dhp"),
        ("h3wb/task1_test_3d.npz", "h3wb"), ("a.pkl", "h36m-pickle"),
    ):  # fmt: skip
        assert detect(tmp_path / place) == expected


def test_a_candidate_tells_what_its_names_tell(tmp_path):
    with open(tmp_path / "A.NPZ", "wb") as file:
        np.savez(file, b=1, a=2)
    candidate = Candidate(tmp_path / "A.NPZ")
    assert (candidate.is_folder, candidate.suffix, candidate.arrays) == (False, ".npz", ("b", "a"))
    folder = Candidate(tmp_path)
    assert (folder.is_folder, folder.suffix, folder.arrays) == (True, "", ())
    assert folder.holds("x", "*.NPZ") and not folder.holds("*.poses") and not candidate.holds("*")


def test_the_registry_is_light():
    """The command line's start must not wait for torch; formats load what they need when they read."""
    code = (
        "import sys\n"
        "import structloss.commands.data\n"
        "heavy = [m for m in ('torch', 'numpy') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
        "from structloss.data.formats.registry import FORMATS\n"
        "assert len(FORMATS) >= 10\n"
        "heavy = [m for m in ('torch', 'h5py', 'scipy', 'lightning', 'matplotlib', 'yaml') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Forms of keypoint files ---------------------------------------------------------------------------------------------


def test_a_new_form_of_keypoints_is_one_file(added, tmp_path):
    lines, test = recipe("A keypoint format")
    values = np.random.default_rng(0).uniform(0.1, 1, (5, 17, 3))
    np.savetxt(tmp_path / "a.lines", values.reshape(5, 51))
    with pytest.raises(DataError, match=r"ends in '.lines', expected \.npz, \.npy, \.json or a folder of OpenPose"):
        read_keypoints(tmp_path / "a.lines")
    added("lines", lines, keypoint_forms)
    run_test(test, tmp_path)
    (track,) = read_keypoints(tmp_path / "a.lines", layout="coco", fps=30)
    assert (track.name, track.skeleton, track.fps, len(track)) == ("a", "coco", 30, 5)
    np.testing.assert_allclose(track.keypoints, values[..., :2], rtol=1e-6)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"ends in '.txt', expected \.npz, \.npy, \.json, \.lines or a folder"):
        read_keypoints(tmp_path / "a.txt")
    with pytest.raises(MissingFileError, match=r"expected 2D keypoints \(\.npz, \.npy, \.json, \.lines or a folder\)"):
        read_keypoints(tmp_path / "none.lines")


def test_a_form_told_by_the_content_of_json(added, tmp_path):
    text = """
        from ..candidate import CERTAIN, NO
        from ..keypoint_form import FORMS, KeypointForm

        def sniff(file):
            return CERTAIN if isinstance(file.json, dict) and "people_3" in file.json else NO

        def read(file, layout, person):
            return file.json["people_3"]

        FORMS.register(KeypointForm("three", "people_3", read, suffixes=(".json",), sniff=sniff))
    """
    added("three", text, keypoint_forms)
    (tmp_path / "a.json").write_text('{"people_3": []}')
    assert read_keypoints(tmp_path / "a.json") == []
    (tmp_path / "b.json").write_text("3")
    with pytest.raises(DataError, match=r"holds 3, expected COCO annotations .* a detector's results .* or people_3"):
        read_keypoints(tmp_path / "b.json")


def test_keypoints_are_imported_from_their_old_place():
    from structloss.data.formats.keypoint_track import Keypoints
    from structloss.data.formats.keypoints import Keypoints as old
    from structloss.data.formats.keypoints import read_keypoints as read

    assert formats.Keypoints is old is Keypoints and formats.read_keypoints is read
    assert {"arrays", "coco", "openpose", "results", "videopose3d"} <= set(FORMS)

"""Clip archives: round trips, every kind of damage, and nothing half-written."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from structloss.data import Clip, generate_clips, load_archive, save_archive
from structloss.errors import ArgumentError, DataError, MissingFileError, StructlossError
from structloss.skeletons import get

H36M = get("h36m")
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "real_mocap.npz"
needs_real = pytest.mark.skipif(
    not REAL.is_file(), reason=f"the real motion archive {REAL.name} is not at ../shared/data"
)


@pytest.fixture(scope="module")
def clips():
    return generate_clips(2, 2, 40, seed=2)


def write(path, arrays=None, **changes):
    """An archive by hand; `changes` replace entries of meta, None removes them."""
    meta = {"fps": 50, "units": "metre", "joint_names": list(H36M.joint_names), "parents": list(H36M.parents)}
    meta = {key: value for key, value in {**meta, **changes}.items() if value is not None}
    arrays = {"a/1": np.zeros((5, 17, 3), np.float32)} if arrays is None else arrays
    np.savez(path, meta=np.array(json.dumps(meta)), **arrays)
    return path


def message(path):
    """The one sentence that loading fails with."""
    with pytest.raises(StructlossError) as caught:
        load_archive(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and text[-1] in ".?"
    return text


def test_round_trip(clips, tmp_path):
    path = tmp_path / "clips.npz"
    save_archive(path, clips, {"source": "made up", "clips": [{"key": clips[0].key, "note": "kept"}]})
    back, meta = load_archive(path)
    assert [(c.subject, c.name, c.action, c.fps) for c in back] == [(c.subject, c.name, c.action, c.fps) for c in clips]
    for a, b in zip(back, clips, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        assert a.positions.dtype == np.float32
    assert meta["source"] == "made up" and meta["units"] == "metre" and meta["fps"] == 50
    assert meta["clips"][0]["note"] == "kept" and meta["subjects"] == ["syn01", "syn02"]
    save_archive(path, back[:1], meta)  # what was loaded can be saved, over the old file
    assert len(load_archive(path)[0]) == 1
    assert os.listdir(tmp_path) == ["clips.npz"]


def test_millimetres_and_missing_descriptions(tmp_path):
    positions = np.random.default_rng(0).normal(0, 500, (5, 17, 3))
    clips, _ = load_archive(write(tmp_path / "mm.npz", {"p1/run": positions, "loose": positions}, units="millimetre"))
    np.testing.assert_allclose(clips[0].positions, positions / 1000, rtol=1e-6)
    assert [(c.subject, c.name, c.action) for c in clips] == [("p1", "run", "unknown"), ("unknown", "loose", "unknown")]


def test_missing_and_unreadable_files(clips, tmp_path):
    assert "does not exist" in message(tmp_path / "nothing.npz")
    with pytest.raises(MissingFileError):
        load_archive(tmp_path / "nothing.npz")
    assert "is a directory" in message(tmp_path)
    text = tmp_path / "text.npz"
    text.write_text("hello")
    assert "not a complete npz archive" in message(text)
    empty = tmp_path / "empty.npz"
    empty.write_bytes(b"")
    assert "not a complete npz archive" in message(empty)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(clips, tmp_path, share):
    path = tmp_path / "cut.npz"
    save_archive(path, clips)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    message(path)


def test_damaged_bytes_never_pass_as_other_data(clips, tmp_path):
    path = tmp_path / "bad.npz"
    save_archive(path, clips)
    data = path.read_bytes()
    originals = {c.key: c.positions for c in clips}
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 40):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            loaded, _ = load_archive(path)
        except StructlossError as error:
            assert "\n" not in str(error)
        else:  # a byte that does not matter, such as a time stamp
            for clip in loaded:
                if clip.key in originals:
                    np.testing.assert_array_equal(clip.positions, originals[clip.key])


def test_pickles_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "trap.npz"
    write(path, {"a/1": np.array([Trap()], dtype=object)})
    assert "'a/1'" in message(path)
    np.savez(path, meta=np.array({"fps": 50}, dtype=object))
    assert "'meta'" in message(path)
    assert not (tmp_path / "sprung").exists()


def test_meta_is_checked(tmp_path):
    path = tmp_path / "m.npz"
    swapped = list(H36M.joint_names)
    swapped[1], swapped[4] = swapped[4], swapped[1]
    for changes, expected in (
        ({"fps": None}, "lacks fps"),
        ({"fps": 0}, "fps in 'meta'"),
        ({"fps": True}, "fps in 'meta'"),
        ({"units": "inch"}, "'inch', expected 'metre' or 'millimetre'"),
        ({"joint_names": swapped}, r"joint_names[1] in 'meta'"),
        ({"joint_names": ["a"] * 16}, "has 16 entries"),
        ({"parents": [-1] * 17}, "parents[1]"),
        ({"parents": 3}, "parents in 'meta'"),
        ({"clips": [{"action": "no key"}]}, "clips in 'meta'"),
    ):
        assert expected in message(write(path, **changes))
    assert "has no clips" in message(write(path, {}))
    np.savez(path, **{"a/1": np.zeros((5, 17, 3), np.float32)})
    assert "has no 'meta'" in message(path)
    np.savez(path, meta=np.array("{"))
    assert "not valid JSON" in message(path)
    np.savez(path, meta=np.array("[1]"))
    assert "expected an object" in message(path)
    np.savez(path, meta=np.zeros(3))
    assert "expected one JSON string" in message(path)


def test_arrays_are_checked(tmp_path):
    path = tmp_path / "a.npz"
    good = np.zeros((5, 17, 3), np.float32)
    nan, infinite = good.copy(), good.copy()
    nan[3, 2, 1] = np.nan
    infinite[0, 0, 0] = np.inf
    for array, expected in (
        (np.zeros((5, 16, 3), np.float32), "shape [5, 16, 3]"),
        (np.zeros((5, 51), np.float32), "shape [5, 51]"),
        (np.zeros((0, 17, 3), np.float32), "T >= 1"),
        (np.zeros((5, 17, 3), np.int64), "dtype int64"),
        (nan, "first in frame 3"),
        (infinite, "first in frame 0"),
    ):
        text = message(write(path, {"ok/1": good, "bad/1": array}))
        assert expected in text and "'bad/1'" in text


def test_a_failed_save_leaves_the_old_file_and_no_other(clips, tmp_path, monkeypatch):
    path = tmp_path / "clips.npz"
    save_archive(path, clips[:1])
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_archive(path, clips)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["clips.npz"]


def test_save_errors(clips, tmp_path):
    path = tmp_path / "clips.npz"
    slow = Clip(clips[0].positions, "x", "a", "b", fps=25)
    for bad, meta, expected in (
        ([], {}, "no clips"),
        ([clips[0], clips[0]], {}, "two clips"),
        ([clips[0], slow], {}, "25 and 50 fps"),
        (clips, {"x": object()}, "not JSON-serialisable"),
    ):
        with pytest.raises(DataError, match=expected):
            save_archive(path, bad, meta)
    with pytest.raises(MissingFileError, match="folder"):
        save_archive(tmp_path / "no" / "clips.npz", clips)
    assert os.listdir(tmp_path) == []


def test_clips_are_checked():
    with pytest.raises(ArgumentError, match=r"positions has shape \[4, 16, 3\]"):
        Clip(np.zeros((4, 16, 3)), "s", "a", "n")
    with pytest.raises(ArgumentError, match="NaN"):
        Clip(np.full((4, 17, 3), np.nan), "s", "a", "n")
    with pytest.raises(ArgumentError, match="fps is 0"):
        Clip(np.zeros((4, 17, 3)), "s", "a", "n", fps=0)
    moved = Clip(np.ones((4, 17, 3)), "s", "a", "n").centred()
    np.testing.assert_array_equal(moved.positions[0, 0], [0, 0, 1])


@needs_real
def test_the_real_archive():
    clips, meta = load_archive(REAL)
    assert len(clips) == 64 and sum(map(len, clips)) == 34225 and len({c.subject for c in clips}) == 11
    assert sum(len(c) >= 243 for c in clips) == 32 and min(map(len, clips)) == 56
    assert "Carnegie Mellon" in meta["source"] and all(c.action != "unknown" for c in clips)
    with zipfile.ZipFile(REAL) as z:
        assert {c.key + ".npy" for c in clips} | {"meta.npy"} == set(z.namelist())

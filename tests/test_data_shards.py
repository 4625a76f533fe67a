"""Pose stores in shards: the same data as in one piece, what reading touches, and what is wrong with files."""

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from structloss.cli import main
from structloss.data import MotionDataModule, PoseWindows, generate_clips, observe, open_store, save_store
from structloss.data.inspection import inspect_data
from structloss.data.loading import EpochSampler, window_loader
from structloss.data.protocols import split
from structloss.data.shards import ShardedArray, lay_out, shard_folder
from structloss.data.store import ARRAYS, PoseStore
from structloss.data.views import Views
from structloss.errors import ArgumentError, DataError, MissingFileError, StructlossError

SETTINGS = {"window": 9, "stride": 2, "target": "camera"}


@pytest.fixture(scope="module")
def whole():
    """Views of all arrays, some of whose joints are not known."""
    seen = observe(generate_clips(3, 2, 40, seed=3), views=2)
    random = np.random.default_rng(0)
    label = random.normal(size=seen.pose.shape).astype(np.float32)
    factor = random.uniform(1, 2, len(seen.pose)).astype(np.float32)
    weight = (random.random(seen.pose.shape[:2]) < 0.9).astype(np.uint8)
    views = (replace(seen.views[0], fps=float("nan"), action="sit, \u00e9\u6f22"), *seen.views[1:])
    return replace(seen, views=views, weight=weight, label=label, factor=factor)


@pytest.fixture
def plain(whole):
    return replace(whole, label=None, factor=None)


@pytest.fixture
def path(plain, tmp_path):
    return save_store(plain, tmp_path / "a.poses", shard_frames=100)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


# ---- the same data


def test_shards_hold_whole_views():
    layout = lay_out([40, 40, 40, 200, 10, 90, 1], 100)
    assert layout.frames == (80, 40, 200, 100, 1) and layout.shard.tolist() == [0, 0, 1, 2, 3, 3, 4]
    assert layout.start.tolist() == [0, 40, 80, 120, 320, 330, 420] and layout.first.tolist() == [0, 80, 120, 320, 420]


def test_a_store_in_shards_is_the_store(whole, tmp_path):
    one = open_store(save_store(whole, tmp_path / "one.poses"))
    assert sorted(os.listdir(tmp_path / "one.poses")) == ["factor.npy", "input.npy", "label.npy", "meta.json",
                                                          "pose.npy", "weight.npy"]  # fmt: skip
    assert json.loads((tmp_path / "one.poses" / "meta.json").read_text())["version"] == 1, "as before there were shards"
    many = open_store(save_store(whole, tmp_path / "many.poses", shard_frames=100))
    assert sorted(name for name in os.listdir(tmp_path / "many.poses") if name.startswith("shard")) == [
        f"shard-{i:05d}" for i in range(6)
    ]
    assert isinstance(many.views, Views) and isinstance(one.views, tuple)
    assert list(map(repr, many.views)) == list(map(repr, one.views))
    for name in ("frames", "subjects", "actions", "motions", "source", "skeleton", "temporal", "has_millimetres"):
        assert getattr(many, name) == getattr(one, name), name
    for name in ARRAYS:
        here, there = getattr(one, name), getattr(many, name)
        assert isinstance(there, ShardedArray) and (there.shape, there.dtype) == (here.shape, here.dtype)
        np.testing.assert_array_equal(np.asarray(there), here)
    again = save_store(many, tmp_path / "again.poses")
    assert contents(again) == contents(tmp_path / "one.poses"), "from shards into one piece"
    assert contents(save_store(one, tmp_path / "x.poses", shard_frames=100)) == contents(tmp_path / "many.poses")


def test_indexing_is_that_of_numpy(whole, tmp_path):
    array, expected = open_store(save_store(whole, tmp_path / "a.poses", shard_frames=70)).pose, whole.pose
    random = np.random.default_rng(1)
    windows = random.integers(0, 470, (50, 1)) + np.arange(10)
    for key in (
        0, 479, -1, np.int64(7), slice(0, 0), slice(30, 90), slice(None), slice(10, 300, 7), slice(400, 100, -3),
        slice(470, 999), windows, windows.clip(20, 30), windows[::-1, ::-1], windows[None], random.integers(0, 480, 33),
        np.array([3, 3, 3]), np.array([], dtype=np.int64), np.arange(480) % 3 == 0, [1, 400, -2], 3 * windows[:5] % 480,
        (5, 2), (slice(3, 200), slice(None), slice(0, 2)), (windows, 3), (windows, slice(None), 1), (..., 0), ...,
    ):  # fmt: skip
        np.testing.assert_array_equal(array[key], expected[key])
    assert array[5:9].flags.writeable and len(array) == 480 and array.ndim == 3 and array.nbytes == expected.nbytes
    for key in (480, -481, np.array([0, 480])):
        with pytest.raises(IndexError):
            array[key]
    with pytest.raises(IndexError, match="expected integers"):
        array[np.array([0.5])]


@pytest.mark.parametrize("target", ["camera", "global"])
def test_windows_statistics_and_reports_are_the_same(plain, path, target):
    settings = SETTINGS | {"target": target}
    here, there = PoseWindows(plain, "train", **settings), PoseWindows(open_store(path), "train", **settings)
    assert len(here) == len(there) and here.motions == there.motions and here.subjects == there.subjects
    a, b = (data.batch(range(len(here))) for data in (here, there))
    for key in a:
        assert torch.equal(a[key], b[key]), key
    for key, value in here.statistics().items():
        assert torch.equal(there.statistics()[key], value), key


def test_splits_and_selections_are_the_same(plain, path):
    store = open_store(path)
    for val_subjects in (None, ["syn01"], ["syn02/" + plain.views[4].name]):
        for here, there in zip(split(plain, None, val_subjects), split(store, None, val_subjects), strict=True):
            assert list(map(repr, there.views)) == list(map(repr, here.views)) and there.pose is store.pose
    for by in ("view", "motion", "subject"):
        kept = store.select(lambda view: view.subject != "syn02", by)
        assert list(map(repr, kept.views)) == [repr(view) for view in plain.views if view.subject != "syn02"]
        assert kept.subjects == ("syn01", "syn03") and kept.frames == 320 and len(kept.motions) == 4
    data = {"window": 9, "batch_size": 7, "target": "camera", "progress": False, "val_subjects": ["syn03"]}
    one = save_store(plain, path.parent / "one.poses")
    for part in ("train_dataloader", "val_dataloader"):
        for workers in (0, 1):
            a, b = (getattr(MotionDataModule(str(p), num_workers=workers, **data), part)() for p in (one, path))
            for x, y in zip(a, b, strict=True):
                assert all(torch.equal(x[key], y[key]) for key in x)


def test_reports_are_the_same(plain, path, capsys):
    one = save_store(plain, path.parent / "one.poses")
    here, there = inspect_data(one).to_dict(), inspect_data(path).to_dict()
    assert here | {"path": ""} == there | {"path": ""} and here["bones"] and here["heights"]


def test_stores_are_sent_to_processes_by_their_path(path):
    store = open_store(path).select(lambda view: view.subject == "syn02")
    sent = pickle.dumps(store)
    assert len(sent) < 3000
    again = pickle.loads(sent)
    assert list(map(repr, again.views)) == list(map(repr, store.views))
    np.testing.assert_array_equal(again.pose[170:190], store.pose[170:190])
    part = PoseStore(store.views, store.input, np.broadcast_to(np.float32(0), store.input.shape))  # no path of its own
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).input[3], store.input[3])


# ---- what reading touches


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """Shards of 12 and of 1200 million frames, nearly all holes in the files: 40 and 4000 views."""
    folder = tmp_path_factory.mktemp("huge")
    found = []
    for views in (40, 4000):
        seen = observe(generate_clips(1, 1, 12, seed=1), views=1, detections="exact")
        one = seen.views[0]
        small = tuple(replace(one, name=f"m{n}", start=0, subject=f"P{n % 50:02d}") for n in range(views))
        path = save_store(replace(seen, views=small), folder / f"{views}.poses", shard_frames=12 * views // 4)
        frames = 25_000 * 12  # of each view
        rows = np.load(path / "views.npy")
        rows["frames"], rows["start"] = frames, np.arange(views) * frames
        np.save(path / "views.npy", rows)
        meta = json.loads((path / "meta.json").read_text())
        meta["shards"] = [views // 4 * frames] * 4
        (path / "meta.json").write_text(json.dumps(meta))
        for number in range(4):
            shard = shard_folder(path, number)
            (shard / "shard.json").write_text(
                json.dumps({"store": meta["store"], "number": number, "frames": views // 4 * frames})
            )
            for name in ("input", "pose"):
                with open(shard / f"{name}.npy", "wb") as file:
                    form = {"descr": "<f4", "fortran_order": False, "shape": (views // 4 * frames, 17, 3)}
                    np.lib.format.write_array_header_1_0(file, form)
                    file.truncate(file.tell() + views // 4 * frames * 17 * 3 * 4)
        found.append(path)
    return found


def test_what_an_epoch_touches_does_not_grow_with_the_frames(huge, monkeypatch):
    """A hundred times the frames, as many windows, take the same reads and the same memory but for the views' table.
    Counted: bytes that files give, and Python's and numpy's memory from opening to the tenth shuffled batch."""
    read = []
    preadv = os.preadv

    def counted(descriptor, buffers, offset):
        read.append(sum(buffer.nbytes for buffer in buffers))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    touched = []
    for path in huge:
        read.clear()
        tracemalloc.start()
        store = open_store(path)
        windows = PoseWindows(store, "train", window=27, stride=1, target="camera")
        batches = iter(window_loader(windows, 32, EpochSampler(windows, 0)))
        for _ in range(10):
            next(batches)
        touched.append((len(windows), len(read), sum(read), tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    (few, reads, size, peak), (many, more_reads, more_size, more_peak) = touched
    assert few > 1e7 and many == 100 * few, "orders of both are computed"
    assert reads == more_reads == 2 * 10 * 32 and size == more_size == reads * 27 * 17 * 3 * 4
    views = 4000 * 500  # bytes: a row of the table, eight numbers of each view, names
    assert peak < 5e6 and more_peak < peak + views


@pytest.mark.slow(seconds=9)
def test_a_loader_process_stays_small(huge):
    """What belongs to a loader process that has read 40 MB of a store of 490 GB, and to no file."""
    code = (
        "import re, sys\n"
        "from structloss.data import PoseWindows, open_store\n"
        "from structloss.data.loading import EpochSampler, window_loader\n"
        "windows = PoseWindows(open_store(sys.argv[1]), 'train', window=243, stride=1, target='camera')\n"
        "loader = window_loader(windows, 8, EpochSampler(windows, 0), workers=1)\n"
        "batches = iter(loader)\n"
        "def kilobytes():\n"
        "    pid = loader._iterator._workers[0].pid\n"
        "    text = open(f'/proc/{pid}/smaps_rollup').read()\n"
        "    return sum(int(re.search(rf'^{n}: +(\\d+)', text, re.M)[1]) for n in ('Private_Dirty', 'Shared_Dirty'))\n"
        "for _ in range(3): next(batches)\n"
        "before = kilobytes()\n"
        "for _ in range(50): next(batches)\n"
        "print(before, kilobytes())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(huge[1])], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < 200_000 and after - before < 20_000, done.stdout


def test_a_long_view_is_read_in_pieces(plain, tmp_path, monkeypatch):
    """Statistics and reports of a view in one piece and in several are the same, but for rounding."""
    frames = 3 * 480
    view = replace(plain.views[1], frames=frames, start=0)
    store = PoseStore(
        (view,),
        np.tile(plain.input, (3, 1, 1)),
        np.concatenate([k * plain.pose for k in (1, 1.002, 0.998)], dtype=np.float32),
        np.tile(plain.weight, (3, 1)),
    )
    path = save_store(store, tmp_path / "a.poses")
    report = inspect_data(path).to_dict()
    statistics = PoseWindows(store, "train", window=9, target="global").statistics()
    for module in ("structloss.data.windows", "structloss.data.inspection.report"):
        monkeypatch.setattr(f"{module}._PIECE", 100)
    for key, value in PoseWindows(store, "train", window=9, target="global").statistics().items():
        torch.testing.assert_close(value, statistics[key], rtol=1e-6, atol=1e-7)
    assert inspect_data(path).to_dict() == report and report["problems"]


# ---- what is wrong with files


def fails(call, *parts, kind=DataError):
    with pytest.raises(kind) as stopped:
        call()
    text = str(stopped.value)
    assert "\n" not in text and text.endswith(".") and all(part in text for part in parts), text


def test_shards_that_are_missing_cut_or_of_others(plain, path, tmp_path):
    first, last = shard_folder(path, 0), shard_folder(path, 5)
    kept = shutil.copytree(path, tmp_path / "kept.poses")

    def again():
        shutil.rmtree(path)
        shutil.copytree(kept, path)

    (last / "pose.npy").unlink()
    fails(lambda: open_store(path), "shard-00005/pose.npy is missing", kind=MissingFileError)
    again()
    shutil.rmtree(first)
    fails(lambda: open_store(path), "shard-00000", "is missing", kind=MissingFileError)
    again()
    os.truncate(last / "input.npy", 5000)
    fails(lambda: open_store(path), "shard-00005/input.npy has 5000 bytes, expected")
    again()
    other = save_store(replace(plain, input=plain.input + 1), tmp_path / "b.poses", shard_frames=100)
    for number in (0, 3):
        shutil.rmtree(shard_folder(path, number))
        shutil.copytree(shard_folder(other, number), shard_folder(path, number))
        fails(lambda: open_store(path).pose[:], f"shard-0000{number} is of another pose store", "expected a shard of")
        again()
    shutil.rmtree(shard_folder(path, 2))
    shutil.copytree(shard_folder(path, 1), shard_folder(path, 2))
    fails(lambda: open_store(path).pose[:], "number in shard.json of", "is 1, expected 2")
    again()
    (shard_folder(path, 2) / "shard.json").unlink()
    fails(lambda: open_store(path).pose[:], "shard.json", kind=MissingFileError)
    again()
    content = bytearray((last / "pose.npy").read_bytes())
    content[0] = 0
    (last / "pose.npy").write_bytes(content)
    fails(lambda: open_store(path).pose[:], "shard-00005/pose.npy can't be read, expected a numpy array")
    again()
    np.save(last / "weight.npy", np.zeros((80, 17), np.int8))
    fails(lambda: open_store(path).weight[:], "weight.npy is int8 [80, 17], expected uint8 [80, 17]")
    for name in ("views", "texts", "text_ends"):
        again()
        (path / f"{name}.npy").unlink()
        with pytest.raises(StructlossError):
            open_store(path)
    again()
    assert main(["data", "inspect", str(path)]) == 0


def test_frames_that_are_not_those_that_were_written(path):
    """A bit that fell over is found by the checksum of its view."""
    file = shard_folder(path, 1) / "pose.npy"
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(content)
    store = open_store(path)
    (problem,) = (text for text in inspect_data(path).problems if "written" in text)
    assert problem == (
        f"the frames of 1 view are not those that were written, the first is {store.views[3].motion} of camera "
        f"{store.views[3].camera}: files are damaged or were changed"
    )


def test_odd_values_in_the_description_and_the_table(path):
    text = (path / "meta.json").read_text()
    odd = (None, [], {}, "x", 10**400, -1, 0, True, [[]], ["a"] * 5, "\x1b[2J", 1e308, [1, 2, 3], [80] * 5, 3, [10**13])
    refusals = 0
    for key in json.loads(text):
        for value in odd:
            (path / "meta.json").write_text(json.dumps(json.loads(text) | {key: value}))
            try:
                open_store(path).pose[:1]
            except StructlossError as error:
                refusals += 1
                assert "\n" not in str(error) and len(str(error)) < 600, (key, value)
    assert refusals > 60
    (path / "meta.json").write_text(json.dumps(json.loads(text) | {"temporal": "no"}))
    fails(lambda: open_store(path), "temporal in meta.json of", "is 'no', expected true or false")
    (path / "meta.json").write_text(text)
    rows = np.load(path / "views.npy")
    for name, value in (
        ("subject", -1), ("name", 99), ("start", -5), ("start", 10**15), ("frames", 0), ("frames", 10**15),
        ("frames", 2**63 - 1), ("fps", 0), ("fps", np.inf), ("size", -1),
    ):  # fmt: skip
        changed = rows.copy()
        changed[name][2] = value
        np.save(path / "views.npy", changed)
        with pytest.raises(DataError) as stopped:
            open_store(path)
        assert "\n" not in str(stopped.value), (name, value)
    np.save(path / "views.npy", rows)
    np.save(path / "text_ends.npy", np.load(path / "text_ends.npy")[::-1])
    fails(lambda: open_store(path), "text_ends.npy", "expected where each text ends")
    np.save(path / "text_ends.npy", np.load(path / "text_ends.npy")[::-1])
    ends = (path / "text_ends.npy").read_bytes()
    with open(path / "text_ends.npy", "wb") as file:  # 800 GB, of which the disk has nothing
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**11,)})
        file.truncate(file.tell() + 8 * 10**11)
    fails(lambda: open_store(path), "text_ends.npy", f"tells of {10**11} texts for {len(rows)} views")
    (path / "text_ends.npy").write_bytes(ends)
    texts = np.load(path / "texts.npy")
    np.save(path / "texts.npy", np.full_like(texts, 255))
    assert "\ufffd" in open_store(path).views[0].subject  # no text, and no error
    head = ("(" * 9000).encode() + b"\n"
    (path / "texts.npy").write_bytes(b"\x93NUMPY\x02\x00" + len(head).to_bytes(4, "little") + head)
    fails(lambda: open_store(path), "texts.npy can't be read", "may be truncated")


def test_stores_that_change_while_they_are_open(plain, path, tmp_path):
    store = open_store(path)
    windows = PoseWindows(store, "train", **SETTINGS)
    first = windows.batch([0])
    os.utime(shard_folder(path, 0) / "input.npy", (1, 1))
    fails(lambda: windows.batch([0]), "shard-00000/input.npy was changed while it was open")
    sent = pickle.dumps(store)
    save_store(replace(plain, input=plain.input + 1), path, overwrite=True, shard_frames=100)
    fails(lambda: windows.batch([len(windows) - 1]), "a.poses was changed while it was open")
    fails(lambda: pickle.loads(sent), "a.poses was changed while it was open")
    again = PoseWindows(open_store(path), "train", **SETTINGS).batch([0])
    assert not torch.equal(again["input"], first["input"]) and torch.equal(again["target"], first["target"])
    one = open_store(save_store(plain, tmp_path / "one.poses"))
    windows, sent = PoseWindows(one, "train", **SETTINGS), pickle.dumps(one)
    windows.batch([0])
    os.truncate(tmp_path / "one.poses" / "pose.npy", 3000)  # a mapping of it ends the process that reads
    fails(lambda: windows.batch([len(windows) - 1]), "pose.npy was cut while it was open")
    shutil.rmtree(tmp_path / "one.poses")
    fails(lambda: pickle.loads(sent), "has no meta.json any more", kind=MissingFileError)


def test_a_full_disk_leaves_nothing(plain, tmp_path):
    """Files of 20 kB at most: the first shard does not fit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_store(plain, tmp_path / "a.poses", shard_frames=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)
    with pytest.raises(ArgumentError, match="shard_frames is 0, expected at least 1"):
        save_store(plain, tmp_path / "a.poses", shard_frames=0)

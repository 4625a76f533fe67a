"""Many inputs of `structloss predict`: which folders are many, lists, the manifest, what is done when it is given
again."""

import json
import os

import numpy as np
import pytest

from structloss.cli import main
from structloss.commands import _predict_many
from structloss.commands._manifest import Manifest, Record
from structloss.commands._many_inputs import are_many, find_inputs
from structloss.data.formats import read_keypoints
from structloss.errors import ArgumentError, DataError


def keypoints(path, frames=9, start=0):
    """A file with some frames of a sample."""
    track = read_keypoints("sample:dance")[0]
    part = slice(start, start + frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, keypoints=track.keypoints[part], confidence=track.confidence[part], fps=25.0, width=track.width,
        height=track.height,
    )  # fmt: skip
    return path


def openpose(folder, frames=2):
    folder.mkdir(parents=True)
    for number in range(frames):
        people = [{"pose_keypoints_2d": [float(n) for n in range(75)]}]
        (folder / f"clip_{number:012d}_keypoints.json").write_text(json.dumps({"people": people}))
    return folder


def frames(folder):
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"{number}.png").touch()
    return folder


def test_what_is_one_input_today_stays_one(tmp_path):
    for place in (openpose(tmp_path / "openpose"), frames(tmp_path / "frames"), keypoints(tmp_path / "a.npz")):
        assert not are_many(str(place))
    (tmp_path / "labels").mkdir()
    row = " ".join(["0", *["0.5"] * 4, *["0.5"] * 51])
    (tmp_path / "labels" / "clip_1.txt").write_text(row)
    (tmp_path / "results").mkdir()
    result = [{"name": "person", "keypoints": {"x": [1.0] * 17, "y": [1.0] * 17}}]
    (tmp_path / "results" / "1.json").write_text(json.dumps(result))
    (tmp_path / "nothing" / "deep").mkdir(parents=True)
    (tmp_path / "nothing" / "deep" / "notes.md").touch()
    for name in ("labels", "results", "nothing", "absent", "labels/clip_1.npz"):
        assert not are_many(str(tmp_path / name)), name
    assert not are_many(None) and not are_many("sample:kick")


def test_a_folder_of_many(tmp_path):
    folder = tmp_path / "clips"
    keypoints(folder / "b" / "2.npz")
    keypoints(folder / "a.npz")
    openpose(folder / "b" / "one")
    frames(folder / "c")
    (folder / "video.MP4").touch()
    (folder / "notes.md").touch()
    (folder / "poster.png").touch()
    keypoints(folder / ".hidden.npz")
    keypoints(folder / "out" / "a.npz" / "a.npz")
    os.symlink(folder, folder / "circle")
    assert are_many(str(folder))
    found = find_inputs(str(folder), str(folder / "out"))
    assert [one.name for one in found] == ["a.npz", "b/2.npz", "b/one", "c", "video.MP4"]
    assert [one.input for one in found] == [str(folder / one.name) for one in found]


def test_lists(tmp_path):
    keypoints(tmp_path / "in" / "a.npz")
    outside = keypoints(tmp_path / "b.npz")
    listed = tmp_path / "in" / "list.txt"
    listed.write_text(f"# two of them\n\na.npz\n../b.npz\n{outside}\nsample:kick\nnone.npz\na.npz\n")
    found = find_inputs(str(listed))
    absolute = str(outside)[1:]
    assert [one.name for one in found] == ["a.npz", "b.npz", absolute, "sample_kick", "none.npz"]
    assert found[3].input == "sample:kick" and found[4].state == "missing"
    listed.write_text("# nothing\n")
    with pytest.raises(DataError, match=r"list\.txt names no inputs, expected a path a line\.$"):
        find_inputs(str(listed))
    listed.write_text("b.npz\n../b.npz\n")
    with pytest.raises(DataError, match="whose results go to the same place"):
        find_inputs(str(listed))


def test_odd_names_are_recorded_and_read_again(tmp_path):
    names = ["in\u2028side.npy", "a\x85b.npy", os.fsdecode(b"bad\xff.npy"), "new\nline.npy"]
    with Manifest(tmp_path) as manifest:
        for name in names:
            manifest.add(Record(name, "done", key="k"))
        manifest.tidy(names)
    assert [record.key for name in names if (record := Manifest(tmp_path).done(name, "k"))] == ["k"] * 4
    listed = tmp_path / "list.txt"
    listed.write_text("in\u2028side.npy\r\nb.npy\n")
    assert [one.name for one in find_inputs(str(listed))] == ["in\u2028side.npy", "b.npy"]
    listed.write_bytes(b"a.npy\0x\n")
    with pytest.raises(DataError, match=r"list\.txt has 'a\.npy\\x00x', which no file can be called"):
        find_inputs(str(listed))


def test_a_folder_without_inputs(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(tmp_path / "empty"), "--jobs", "2", "--out", str(tmp_path / "out")]) == 1
    expected = f"{tmp_path / 'empty'} has no inputs, expected keypoint files or videos in it, or in its folders."
    assert capsys.readouterr().err == f"structloss: error: {expected}\n"


def test_given_again_it_does_what_is_missing(tmp_path, capsys, monkeypatch):
    clips, out = tmp_path / "clips", tmp_path / "out"
    for number in range(3):
        keypoints(clips / f"{number}.npz", start=9 * number)
    (clips / "bad.npz").write_bytes(b"no zip")
    command = ["predict", str(clips), "--layout", "coco", "--out", str(out)]
    done = []
    real = _predict_many._predict_one
    monkeypatch.setattr(
        _predict_many, "_predict_one", lambda s, one, *rest: done.append(one.name) or real(s, one, *rest)
    )
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("structloss: error: 1 of 4 inputs failed") and error.count("\n") == 1
    assert done == ["0.npz", "1.npz", "2.npz", "bad.npz"]
    first = {path: path.read_bytes() for path in out.rglob("*.npz") if path.is_file()}
    # what `predict` of one input gives
    assert main(["predict", str(clips / "1.npz"), "--layout", "coco", "--out", str(tmp_path / "alone")]) == 0
    for ending in ("npz", "bvh"):
        assert (tmp_path / "alone" / f"1.{ending}").read_bytes() == (out / "1.npz" / f"1.{ending}").read_bytes()
    # killed in the middle of a line, a result gone, an input changed, another mended
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes() + b'{"input": "9.npz", "sta')
    (out / "0.npz" / "0.bvh").unlink()
    keypoints(clips / "2.npz", frames=8)
    keypoints(clips / "bad.npz")
    done.clear()
    assert main(command) == 0
    assert done == ["0.npz", "2.npz", "bad.npz"]
    assert first[out / "0.npz" / "0.npz"] == (out / "0.npz" / "0.npz").read_bytes()
    assert first[out / "2.npz" / "2.npz"] != (out / "2.npz" / "2.npz").read_bytes()
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [(r["input"], r["status"], r["frames"]) for r in records] == [
        ("0.npz", "done", 9), ("1.npz", "done", 9), ("2.npz", "done", 8), ("bad.npz", "done", 9),
    ]  # fmt: skip
    done.clear()
    assert main(command) == 0 and done == []
    assert "4 inputs, 4 of them done before" in capsys.readouterr().out
    assert main([*command, "--fps", "30"]) == 0 and len(done) == 4  # another setting, other results


def test_a_manifest_that_was_torn_and_one_of_somebody_else(tmp_path):
    place = tmp_path / "manifest.jsonl"
    ours = '{"input": "b", "status": "done", "files": ["../../etc/passwd"], "key": "k", "more": 1}\n'
    torn = ['{"inp\n', '{"input": "c", "status": "do\n', "\n"]
    place.write_text(ours + "".join(torn) + '{"input": "a')
    manifest = Manifest(tmp_path)
    assert [*manifest.records] == ["b"] and manifest.done("b", "other") is None
    with manifest:
        manifest.add(Record("c", "failed", "why"))
        with pytest.raises(ArgumentError, match="is written to by another process"):
            Manifest(tmp_path).__enter__()
    assert [*Manifest(tmp_path).records] == ["b", "c"]
    for foreign in ("[1]", '{"input": 3, "status": "done"}', '{"input": "a", "status": "done", "files": [7]}',
                    '{"input": "clip.wav", "label": "walk"}', "not json", "[" * 5000):  # fmt: skip
        place.write_text(ours + foreign + "\n")
        with pytest.raises(DataError, match=r"^line 2 of .*manifest\.jsonl is no record of a prediction, expected"):
            Manifest(tmp_path)
        assert place.read_text() == ours + foreign + "\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--out is not given with clips, expected a folder for the results of its inputs."),
        (["--out", "clips"], "--out is 'clips', the folder of the inputs, expected another."),
        (["--out", "clips/a.npz"], "--out is 'clips/a.npz', a file, expected a folder."),
        (["--out", "o", "--npz", "x.npz"], "--npz is 'x.npz' with many inputs, expected it with one."),
        (["--out", "o", "--video", "x.mp4"], "--video is 'x.mp4' with many inputs, expected mp4 or gif."),
        (["--out", "o", "--ckpt", "none.ckpt"], "none.ckpt does not exist"),
        (["--out", "o", "--backbone", "videopose3d-27"], "--backbone is 'videopose3d-27' without --weights"),
        (["--out", "o", "--address", "auto"], "--address is 'auto', expected it with --engine ray."),
    ],
)  # fmt: skip
def test_bad_flags_with_many(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keypoints(tmp_path / "clips" / "a.npz")
    assert main(["predict", "clips", *flags]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_flags_of_many_with_one(capsys):
    assert main(["predict", "sample:dance", "--out", "nowhere", "--jobs", "2"]) == 1
    assert (
        "--jobs is given with one input, expected it with a folder of many or with LIST.txt." in capsys.readouterr().err
    )

"""Folders of images, labels beside them, videos with boxes, and the data module of pairs: splits, resuming."""

import json
import os
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from saves import Saves
from test_images_sources import fails, picture, write
from test_images_sources import video as write_video

from structloss.errors import ArgumentError, DataError, MissingFileError
from structloss.images.frames.boxes import read_frame_boxes
from structloss.images.frames.images import ImageFolders
from structloss.images.frames.opening import open_frames
from structloss.images.frames.pairs import scored_pairs, trained_pairs
from structloss.images.frames.videos import VideoFolders
from structloss.images.template_module import TemplatesDataModule
from structloss.shape_templates import H36M_JOINTS, JOINTS

SMALL = {"size": 16, "progress": False}


def folders(top, counts=(4, 5, 3, 6), width=24, height=24):
    """Folders a, b, ... of so many images each."""
    for folder, count in enumerate(counts):
        for number in range(count):
            write(top / f"{chr(97 + folder)}" / f"{number}.png", picture(width, height, seed=10 * folder + number))
    return top


def label(top, name="joints.npz", **changes):
    """Labels of folder a's first two images."""
    arrays = {
        "names": np.array(["0.png", "1.png"]),
        "joints": np.arange(60, dtype=np.float32).reshape(2, 15, 2) / 3,
        "diagonal": np.array([10.0, 12.0]),
    } | changes
    np.savez(top / name, **{key: value for key, value in arrays.items() if value is not None})
    return arrays


# Images ---------------------------------------------------------------------------------------------------------------


def test_folders_of_images(tmp_path):
    top = folders(tmp_path / "set")
    write(top / "deep" / "er" / "0.jpg")
    write(top / "deep" / "er" / "1.jpg")
    (top / ".hidden").mkdir()
    write(top / ".hidden" / "0.png")
    (top / "a" / "notes.txt").write_text("not an image")
    found = open_frames(top)
    assert isinstance(found, ImageFolders)
    assert list(found.folders) == ["a", "b", "c", "d", "deep/er"] and list(found.lengths) == [4, 5, 3, 6, 2]
    frame = found.frame(1, 2)
    assert (frame.image == picture(24, 24, seed=12)).all() and frame.name == "b/2.png"
    assert not frame.annotated.any() and np.isnan(frame.diagonal) and found.labelled == 0
    assert found.frame(4, 1).image.shape == (48, 64, 3)


def test_labels_beside_frames(tmp_path):
    top = folders(tmp_path / "set", (3, 2))
    wanted = label(top / "a")
    frame = ImageFolders(top).frame(0, 1)
    assert (frame.joints == wanted["joints"][1]).all() and frame.annotated.all() and frame.diagonal == 12
    assert not ImageFolders(top).frame(0, 2).annotated.any() and not ImageFolders(top).frame(1, 0).annotated.any()
    # Joints that are not known, and a box instead of its diagonal.
    joints = wanted["joints"].copy()
    joints[0, 3] = np.nan
    annotated = np.ones((2, 15), bool)
    annotated[0, 4] = False
    label(top / "a", joints=joints, annotated=annotated, diagonal=None, boxes=np.array([[0, 0, 3, 4], [1, 1, 6, 8.0]]))
    found = ImageFolders(top)
    assert found.frame(0, 0).annotated.tolist() == [number not in (3, 4) for number in range(15)]
    assert found.frame(0, 0).joints[3].tolist() == [0, 0]
    assert [found.frame(0, number).diagonal for number in (0, 1)] == [5, 10]
    # Without either, the box around the joints.
    label(top / "a", diagonal=None)
    x, y = wanted["joints"][0].T
    assert ImageFolders(top).frame(0, 0).diagonal == pytest.approx(np.hypot(np.ptp(x), np.ptp(y)))


@pytest.mark.parametrize("count", [17, 32])
def test_labels_in_the_orders_of_human36m(count, tmp_path):
    top = folders(tmp_path / "set", (2,))
    raw = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
    joints = np.random.default_rng(0).uniform(0, 24, (2, 32, 2))
    label(top / "a", joints=joints if count == 32 else joints[:, raw])
    found = ImageFolders(top).frame(0, 1).joints
    np.testing.assert_allclose(found, joints[1][list(H36M_JOINTS)], rtol=1e-6)
    assert found[JOINTS.index("hipR")].tolist() == pytest.approx(joints[1, 6].tolist())  # the body's left hip


def test_labels_of_all_folders_in_json(tmp_path):
    top = folders(tmp_path / "set", (2, 2))
    points = [[number, 2 * number] for number in range(15)]
    content = {
        "a/1.png": {"joints": [*points[:14], None], "box": [0, 0, 30, 40]},
        "b/0.png": {"joints": points, "diagonal": 7},
    }
    (top / "joints.json").write_text(json.dumps(content))
    found = ImageFolders(top)
    assert found.frame(0, 1).annotated.tolist() == [True] * 14 + [False] and found.frame(0, 1).diagonal == 50
    assert (found.frame(1, 0).joints == points).all() and found.frame(1, 0).diagonal == 7
    assert found.labelled == 2
    assert (found.joints(1, 0)[0] == points).all() and not found.joints(0, 0)[1].any()


BAD_LABELS = [
    ({"joints": np.zeros((2, 16, 2))}, "of 16 joints, expected 15, 17 or 32"),
    ({"joints": np.zeros((2, 15, 3))}, "joints of", "float64 [2, 15, 3], expected numbers [2, K, 2]"),
    ({"joints": np.zeros((3, 15, 2))}, "float64 [3, 15, 2], expected numbers [2, K, 2]"),
    ({"joints": None}, "has names, diagonal, expected names and joints"),
    ({"names": np.zeros(2)}, "names of", "float64 [2], expected text [N]"),
    ({"names": np.array(["0.png", "9.png"])}, "has joints of 1 image that are not there: 9.png"),
    ({"names": np.array(["0.png", "../1.png"])}, "expected a path within the folder"),
    ({"names": np.array(["1.png", "1.png"])}, "names of", "has 1.png twice, expected each image once"),
    ({"annotated": np.ones((2, 14), bool)}, "annotated of", "bool [2, 14], expected bool [2, 15]"),
    ({"annotated": np.ones((2, 15))}, "annotated of", "float64 [2, 15]"),
    ({"diagonal": np.ones(3)}, "diagonal of", "float64 [3], expected numbers [2]"),
    ({"diagonal": np.array([0.0, 1.0])}, "the diagonal for joints of 0.png", "is 0, expected pixels above 0"),
    ({"diagonal": None, "boxes": np.ones((2, 3))}, "boxes of", "[2, 3], expected numbers [2, 4]"),
    (
        {"diagonal": None, "boxes": np.array([[1.0, 2, 3, -4]] * 2)},
        "the box for joints of 0.png in",
        "is [1.0, 2.0, 3.0, -4.0], expected x, y and a width and height above 0",
    ),
]


def test_where_nobody_is_annotated_the_box_is_not_known(tmp_path):
    top = folders(tmp_path / "set", (3,))
    joints = np.stack([np.full((15, 2), np.nan), np.full((15, 2), 3.0)])
    label(top / "a", joints=joints, diagonal=None, boxes=np.array([[-1.0] * 4, [0, 0, 3, 4]]))
    found = ImageFolders(top)
    assert not found.frame(0, 0).annotated.any() and np.isnan(found.frame(0, 0).diagonal)
    assert found.frame(0, 1).diagonal == 5
    label(top / "a", joints=joints, diagonal=None)  # all joints at one place tell no size
    assert np.isnan(ImageFolders(top).frame(0, 1).diagonal)


@pytest.mark.parametrize(("changes", "says"), [(c, s) for c, *s in BAD_LABELS], ids=[s[-1][:30] for s in BAD_LABELS])
def test_labels_that_are_none(changes, says, tmp_path):
    top = folders(tmp_path / "set", (3,))
    label(top / "a", **changes)
    with fails(DataError, *says):
        ImageFolders(top)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "is no file of joints"),
        ({"0.png": 3}, "is no file of joints"),
        ({"0.png": {}}, "is None, expected a list"),
        ({"0.png": {"joints": [[1, 2]] * 4}}, "of 4 joints, expected 15, 17 or 32"),
        ({"0.png": {"joints": [[1, 2, 3]] * 15}}, "has shape [15, 3], expected [15, 2]"),
        ({"0.png": {"joints": [[1, 2]] * 15, "box": [1]}}, "has shape [1], expected [4]"),
    ],
)
def test_json_labels_that_are_none(content, says, tmp_path):
    top = folders(tmp_path / "set", (3,))
    (top / "a" / "joints.json").write_text(json.dumps(content))
    with fails(DataError, says):
        ImageFolders(top)


def test_json_labels_with_more_than_one_thing_wrong(tmp_path):
    top = folders(tmp_path / "set", (3,))
    (top / "joints.json").write_text("{")
    with fails(DataError, "joints.json is not valid JSON"):
        ImageFolders(top)


def test_images_that_can_not_be_used(tmp_path):
    with fails(MissingFileError, "nowhere does not exist, expected a folder of folders of images"):
        ImageFolders(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with fails(DataError, "empty has no folders of images, expected folders with files that end in"):
        ImageFolders(tmp_path / "empty")
    with fails(MissingFileError, "is no folder, expected one of folders of images"):
        ImageFolders(write(tmp_path / "one.png"))
    top = folders(tmp_path / "single", (3, 1))
    with fails(DataError, "1 folder of", "has a single image (b), expected at least two frames"):
        ImageFolders(top)
    assert list(ImageFolders(top, missing="skip").folders) == ["a"]

    top = folders(tmp_path / "broken", (3, 2))
    (top / "a" / "1.png").write_bytes(b"no image at all")
    with fails(DataError, "1.png", "is of no known image format"):
        ImageFolders(top)
    with pytest.warns(UserWarning, match=r"1 of 5 images .* are left out: .*1\.png"):
        found = ImageFolders(top, missing="skip")
    assert list(found.lengths) == [2, 2] and found.file(0, 1).name == "2.png"
    unchecked = ImageFolders(top, check="none")
    with fails(DataError, "1.png", "is of no known image format"):
        unchecked.frame(0, 1)
    (top / "b" / "0.png").write_bytes((top / "b" / "1.png").read_bytes()[:-30])
    (top / "a" / "1.png").unlink()
    with fails(DataError, "0.png", "is cut off"):
        ImageFolders(top)

    top = folders(tmp_path / "sizes", (3,))
    write(top / "a" / "2.png", picture(24, 20))
    with fails(DataError, "2.png has 24 x 20 pixels, expected 24 x 24, as the first image of its folder"):
        ImageFolders(top)
    with fails(ArgumentError, "missing is 'drop', expected one of"):
        ImageFolders(top, missing="drop")
    with fails(ArgumentError, "boxes is given for", "expected it with videos"):
        open_frames(folders(tmp_path / "good"), boxes=[0, 0, 3, 4])


# Videos ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def video(tmp_path):
    """Eight frames of 64 x 48 pixels: the grid has lines every 8."""
    return write_video(tmp_path / "walk.avi", frames=8, size=(64, 48))


def test_a_video_without_boxes_is_one_folder(video):
    found = open_frames(video)
    assert isinstance(found, VideoFolders) and list(found.folders) == ["walk"] and list(found.lengths) == [8]
    frame = found.frame(0, 3)
    assert frame.image.shape == (64, 64, 3) and not frame.annotated.any() and np.isnan(frame.diagonal)
    assert (frame.image[:7] == 0).all() and (frame.image[-7:] == 0).all()  # beyond the frame
    assert frame.image[40, 32].mean() == pytest.approx(20 + 25 * 3, abs=6)


def test_frames_with_one_snapped_box_make_a_folder(video):
    boxes = [[20, 10, 10, 20]] * 3 + [[28, 10, 10, 20]] + [[21, 11, 10, 20]] * 2 + [None] + [[29, 10, 9, 20]]
    (video.parent / "walk.boxes.json").write_text(json.dumps(boxes))
    found = open_frames(video)
    assert list(found.folders) == ["walk-16-8-32-32", "walk-24-8-40-32"] and list(found.lengths) == [5, 2]
    for folder, number, frame in ((0, 2, 2), (0, 3, 4), (1, 0, 3), (1, 1, 7)):
        found_frame = found.frame(folder, number)
        assert found_frame.image[20, 10].mean() == pytest.approx(20 + 25 * frame, abs=6)
        assert found_frame.image.shape == (28, 28, 3)  # 24 * 200 / 170
    assert found.frame(0, 0).diagonal == pytest.approx(np.hypot(10, 20) * 28 / (24 * 200 / 170))
    assert list(VideoFolders(video, boxes=[20, 10, 10, 20]).lengths) == [8]


def test_joints_of_a_video(video):
    joints = np.full((8, 17, 2), np.nan)
    joints[:6] = np.random.default_rng(1).uniform(17, 30, (1, 17, 2))
    joints[2, 4] = np.nan
    np.savez(video.parent / "walk.npz", joints=joints, boxes=np.array([[18, 10, 12, 20.0]] * 8))
    found = VideoFolders(video, boxes=video.parent / "walk.npz")
    frame = found.frame(0, 2)
    hip = JOINTS.index("hipR")
    assert frame.annotated.sum() == 14 and not frame.annotated[hip] and not found.frame(0, 7).annotated.any()
    scale = 28 / (24 * 200 / 170)
    expected = (joints[2, 0] - np.array([23.5, 19.5])) * scale + 13.5
    np.testing.assert_allclose(frame.joints[0], expected, rtol=1e-5)
    np.savez(video.parent / "walk.npz", joints=joints)
    alone = read_frame_boxes(video.parent / "walk.npz", 8, "walk")
    low, high = np.nanmin(joints[2], 0), np.nanmax(joints[2], 0)
    assert (alone.boxes[2, :2] < low).all() and (alone.boxes[2, :2] + alone.boxes[2, 2:] > high).all()
    assert np.isnan(alone.boxes[6:]).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.csv", "1,2,3,4\n,,,\n5,6,7,8\n"),
        ("b.csv", "frame,x,y,width,height\n2,5,6,7,8\n0,1,2,3,4\n"),
        ("b.csv", "height,width,y,x\n4,3,2,1\n,,,\n8,7,6,5\n"),
        ("b.json", "[[1, 2, 3, 4], null, [5, 6, 7, 8]]"),
        ("b.json", '{"0": [1, 2, 3, 4], "2": [5, 6, 7, 8]}'),
    ],
)
def test_files_of_boxes(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    found = read_frame_boxes(tmp_path / name, 3, "a video").boxes
    np.testing.assert_array_equal(found, [[1, 2, 3, 4], [np.nan] * 4, [5, 6, 7, 8]])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("b.csv", "1,2,3,4\n5,6,7,8\n", "has boxes of 2 frames, expected 3, those of a video"),
        ("b.json", "[[1, 2, 3, 4]]", "has boxes of 1 frame, expected 3"),
        ("b.csv", "", "has no boxes, expected lines of x, y, width, height"),
        ("b.csv", "1,2,three,4\n", "line 1 of"),
        ("b.csv", "x,y,width,height,frame\n1,2,3,4\n", "has a box for frame '', expected numbers of frames"),
        ("b.csv", "frame,x,y,width,height\n3,1,2,3,4\n", "has a box for frame '3', expected numbers of frames below 3"),
        ("b.json", '{"x": [1, 2, 3, 4]}', "has a box for frame 'x'"),
        ("b.json", "[]", "has no boxes"),
        ("b.json", "7", "has no boxes"),
        ("b.json", "[[1, 2, 3], [1, 2, 3, 4], null]", "box 0 of"),
        ("b.json", "[[1, 2, 0, 4], [1, 2, 3, 4], null]", "the box of frame 0 of a video is [1.0, 2.0, 0.0, 4.0]"),
        ("b.json", "[null, null, null]", "have nobody in any frame"),
    ],
)
def test_files_of_boxes_that_are_none(name, text, says, tmp_path):
    (tmp_path / name).write_text(text)
    with fails(DataError, says):
        read_frame_boxes(tmp_path / name, 3, "a video")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"other": np.zeros(3)}, "has other, expected boxes or joints"),
        (
            {"boxes": np.ones((3, 3))},
            "boxes of",
        ),
        ({"boxes": np.ones((4, 4))}, "has boxes of 4 frames, expected 3"),
        ({"joints": np.ones((3, 16, 2))}, "expected numbers [T, K, 2] with K = 15, 17 or 32"),
        ({"joints": np.ones((2, 17, 2)), "boxes": np.ones((3, 4))}, "expected numbers [3, K, 2]"),
    ],
)
def test_arrays_of_boxes_that_are_none(arrays, says, tmp_path):
    np.savez(tmp_path / "b.npz", **arrays)
    with fails(DataError, says):
        read_frame_boxes(tmp_path / "b.npz", 3, "a video")


@pytest.mark.parametrize(
    "box", [[64, 0, 5, 5], [0, 48, 5, 5], [-5, 0, 5, 5], [0, -6, 5, 5], [0, 0, 5, 200], [-9, 0, 1e9, 5]]
)
def test_boxes_that_show_nothing_of_the_frame_or_would_take_the_memory(box):
    with fails(DataError, "the box of frame 0 of walk is", "some of the frame of 64 x 48 pixels"):
        read_frame_boxes(box, 3, "walk", (64, 48))
    assert read_frame_boxes([63, -4, 5, 5], 3, "walk", (64, 48)).boxes.shape == (3, 4)


def test_videos_that_can_not_be_used(video, tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"not a video")
    with fails(DataError, "no.mp4", "is no video that can be opened"):
        open_frames(tmp_path / "no.mp4")
    (tmp_path / "no.mp4").unlink()
    (tmp_path / "boxes.json").write_text(json.dumps([[1, 2, 3, 4]] * 7))
    with fails(DataError, "has boxes of 7 frames, expected 8, those of"):
        open_frames(video, boxes=tmp_path / "boxes.json")
    (tmp_path / "boxes.json").write_text(json.dumps([[8 * n, 1, 3, 4] for n in range(8)]))
    with fails(DataError, "has 8 frames, each with a snapped box of its own, expected two of one"):
        open_frames(video, boxes=tmp_path / "boxes.json")
    write_video(tmp_path / "second.avi", frames=3, size=(64, 48))
    with fails(ArgumentError, "one file for several videos, expected a folder with a file for each"):
        open_frames(tmp_path, boxes=tmp_path / "boxes.json")
    (tmp_path / "inner").mkdir()
    with fails(MissingFileError, "has no boxes of second.avi, expected second.npz"):
        open_frames(tmp_path, boxes=tmp_path / "inner")
    (tmp_path / "inner" / "second.csv").write_text("1,2,3,4\n" * 3)
    (tmp_path / "inner" / "walk.csv").write_text("1,2,3,4\n" * 8)
    assert list(open_frames(tmp_path, boxes=tmp_path / "inner").lengths) == [3, 8]


# Written frames -------------------------------------------------------------------------------------------------------


def human36m(top):
    """Videos as Human3.6M has them: two of one subject and camera, one of an action and one of a subject that the
    published sets don't have. Boxes beside them, of a person who moves on after five frames."""
    rows = [[20, 10, 10, 20]] * 5 + [[28, 10, 10, 20]] * 2 + [[44, 10, 10, 20]]
    joints = np.random.default_rng(0).uniform(17, 30, (8, 32, 2))
    for name in (
        "S1/Videos/Directions 1.54138969.avi",
        "S1/Videos/TakingPhoto.54138969.avi",
        "S1/Videos/Eating.54138969.avi",
        "S2/Videos/Posing.54138969.avi",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        file = write_video(top / name, frames=8, size=(64, 48))
        np.savez(file.with_name(f"{file.stem}.boxes.npz"), boxes=np.array(rows, float), joints=joints)
    return top


def test_videos_become_folders_of_frames(tmp_path, capsys):
    from structloss.cli import main

    top = human36m(tmp_path / "h36m")
    assert not main(["data", "frames", str(top), str(tmp_path / "out"), "--size", "32"])
    said = capsys.readouterr().out
    assert "16 frames in 3 folders, joints of 16" in said and "2 videos of other subjects or actions" in said
    found = ImageFolders(tmp_path / "out", check="decode")
    # Both videos share a camera; the last frame of either shares its snapped box with the other's.
    assert list(found.folders) == ["S1-54138969-16-8-32-32", "S1-54138969-24-8-40-32", "S1-54138969-40-8-56-32"]
    assert list(found.lengths) == [10, 4, 2] and found.labelled == 16
    names = [file.name for file in sorted((tmp_path / "out" / found.folders[0]).iterdir())]
    frame = found.frame(0, 0)
    assert frame.image.shape == (32, 32, 3) and frame.annotated.all()
    grey = [round((found.frame(0, number).image[20, 10].mean() - 20) / 25) for number in range(10)]
    assert sorted(grey) == sorted([0, 1, 2, 3, 4] * 2) and grey != sorted(grey)  # of both videos, in a random order
    joints = np.random.default_rng(0).uniform(17, 30, (8, 32, 2))[grey[0]][list(H36M_JOINTS)]
    scale = 32 / (24 * 200 / 170)
    np.testing.assert_allclose(frame.joints, (joints - [23.5, 19.5]) * scale + 15.5, rtol=1e-4)
    assert frame.diagonal == pytest.approx(np.hypot(10, 20) * scale)
    data = TemplatesDataModule(str(tmp_path / "out"), batch_size=2, **SMALL)
    assert next(iter(data.val_dataloader()))["annotated"].all()

    # Again: nothing is left to do; of other settings it refuses.
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.jpg")}
    assert not main(["data", "frames", str(top), str(tmp_path / "out"), "--size", "32"])
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.jpg")} == before
    assert main(["data", "frames", str(top), str(tmp_path / "out"), "--size", "16"])
    assert "which holds frames of" in capsys.readouterr().err
    assert sorted(names) == names

    assert not main(["data", "inspect", str(tmp_path / "out")])
    assert "3 of 2 to 10 frames, 8 pairs; joints of 16 frames" in capsys.readouterr().out


def test_writing_frames_goes_on_where_it_stopped(tmp_path, monkeypatch):
    from structloss.images.frames import writing

    top = human36m(tmp_path / "h36m")
    written, write_bytes = [], writing.write_bytes

    def stopping(path, data):
        if len(written) == 11:
            raise KeyboardInterrupt
        written.append(path.name)
        return write_bytes(path, data)

    monkeypatch.setattr(writing, "write_bytes", stopping)
    with pytest.raises(KeyboardInterrupt):
        writing.write_frames(top, tmp_path / "out", size=16)
    monkeypatch.setattr(writing, "write_bytes", lambda path, data: written.append(path.name) or write_bytes(path, data))
    found = writing.write_frames(top, tmp_path / "out", size=16)
    assert (found.frames, found.folders, found.videos) == (16, 3, 1)  # the first video was finished before
    assert len(written) == len(set(written)) == 16  # no frame was written twice
    whole = writing.write_frames(top, tmp_path / "whole", size=16)
    assert whole.frames == 16 and whole.videos == 2
    for file in (tmp_path / "whole").rglob("*.jpg"):
        assert file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "whole")).read_bytes()


def test_other_videos_are_written_whole_or_without_frames_that_are_alone(video, tmp_path):
    from structloss.images.frames.writing import write_frames

    found = write_frames(video, tmp_path / "whole", size=16, step=2)
    assert (found.frames, found.folders, found.labelled, found.alone) == (4, 1, 0, 0)
    assert list(ImageFolders(tmp_path / "whole").folders) == ["walk"]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([[20, 10, 10, 20]] * 6 + [None, [28, 10, 10, 20]]))
    found = write_frames(video, tmp_path / "cropped", boxes=boxes, size=16)
    assert (found.frames, found.folders, found.alone) == (6, 1, 1)
    assert list(ImageFolders(tmp_path / "cropped").lengths) == [6]
    assert write_frames(video, tmp_path / "cropped", boxes=boxes, size=16).videos == 0  # nothing is left to do
    for other in (None, [20, 10, 10, 20]):
        with fails(ArgumentError, "cropped, which holds frames of walk.avi by other boxes, expected the same boxes"):
            write_frames(video, tmp_path / "cropped", boxes=other, size=16)


def content(out):
    """Frames by name, and names of labels."""
    found = {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.rglob("*.jpg"))}
    labels = out / "joints.npz"
    return found, sorted(np.load(labels)["names"].tolist()) if labels.exists() else None


def killed_after(monkeypatch, frames, *arguments, **settings):
    """Write frames until the process is killed: what is on the disk then stays as it is."""
    from structloss.images.frames import writing

    written, write_bytes = [], writing.write_bytes

    def stopping(path, data):
        if len(written) == frames:
            raise KeyboardInterrupt
        written.append(path)
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_bytes", stopping)
        with pytest.raises(KeyboardInterrupt):
            writing.write_frames(*arguments, **settings)


BOX, OTHER_BOX = [20, 10, 10, 20], [28, 10, 10, 20]


@pytest.mark.parametrize("killed", [False, True])
def test_a_video_that_is_another_is_written_anew(video, tmp_path, monkeypatch, killed, capsys):
    """With nothing of the one before, whether its frames were finished or not."""
    from structloss.cli import main
    from structloss.images.frames.writing import write_frames

    boxes, out = video.with_name("walk.boxes.npz"), tmp_path / "out"
    np.savez(boxes, boxes=np.array([BOX] * 5 + [OTHER_BOX] * 3, float), joints=np.full((8, 15, 2), 20.0))
    if killed:
        killed_after(monkeypatch, 6, video, out, size=16)
        (out / "walk-16-8-32-32" / ".0123456789abcdef.jpg.4194305.0123abcd.tmp").write_bytes(b"half")
    else:
        write_frames(video, out, size=16)
        assert content(out)[1] is not None
    write_video(video, frames=6, size=(48, 64))
    boxes.unlink()
    assert not main(["data", "frames", str(video), str(out), "--size", "16"])
    said = capsys.readouterr().out
    assert (
        "6 frames in 1 folder\n" in said
        and "note: frames of 1 video written anew, since the video or its boxes changed" in said
    )
    write_frames(video, tmp_path / "fresh", size=16)
    assert content(out) == content(tmp_path / "fresh") and len(content(out)[0]) == 6
    assert sorted(path.name for path in out.iterdir()) == [".frames", "walk"]
    again = write_frames(video, out, size=16)
    assert (again.videos, again.anew) == (0, 0)


def test_boxes_that_are_others_after_a_kill(video, tmp_path, monkeypatch):
    from structloss.images.frames.writing import write_frames

    killed_after(monkeypatch, 7, video, tmp_path / "out", size=16, boxes=BOX)
    assert len(content(tmp_path / "out")[0]) == 7
    found = write_frames(video, tmp_path / "out", size=16, boxes=OTHER_BOX)
    assert (found.frames, found.folders, found.anew) == (8, 1, 1)
    write_frames(video, tmp_path / "fresh", size=16, boxes=OTHER_BOX)
    assert content(tmp_path / "out") == content(tmp_path / "fresh") and len(content(tmp_path / "out")[0]) == 8


@pytest.mark.parametrize("removed", [0, 3])
def test_a_kill_while_frames_of_another_video_go(video, tmp_path, monkeypatch, removed):
    """Neither the one that was nor the one that is there now leaves frames or lacks them."""
    from structloss.images.frames import writing

    write_frames, out, before = writing.write_frames, tmp_path / "out", video.read_bytes()
    write_frames(video, out, size=16)
    time = video.stat().st_mtime_ns
    write_video(video, frames=4, size=(48, 64))
    fresh = {}
    write_frames(video, tmp_path / "fresh", size=16)
    fresh["now"] = content(tmp_path / "fresh")
    remove = writing.remove_frames

    def stopping(folder, names):
        remove(folder, list(names)[:removed])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, "remove_frames", stopping)
        with pytest.raises(KeyboardInterrupt):
            write_frames(video, out, size=16)
    if removed:  # and the first one comes back
        video.write_bytes(before)
        os.utime(video, ns=(time, time))
        write_frames(video, tmp_path / "first", size=16)
        fresh["now"] = content(tmp_path / "first")
    write_frames(video, out, size=16)
    assert content(out) == fresh["now"]


@pytest.mark.parametrize(
    "name",
    ["../precious.txt", "../0123456789abcdef.jpg", "ABOVE/precious.txt", "walk/../../precious.txt", "walk/notes.txt",
     ".frames/0123456789abcdef.jpg", "precious.txt", "walk/0123456789ABCDEF.jpg", "a/b/0123456789abcdef.jpg",
     "?/0123456789abcdef.jpg"],
)  # fmt: skip
@pytest.mark.parametrize("changed", [False, True])
def test_a_record_of_frames_removes_nothing_else(video, tmp_path, name, changed):
    from structloss.images.frames.writing import write_frames

    out = tmp_path / "out"
    write_frames(video, out, size=16)
    (out / "walk" / "notes.txt").write_text("mine")
    others = [tmp_path / "precious.txt", tmp_path / "0123456789abcdef.jpg", out / "precious.txt"]
    for file in others:
        file.write_text("mine")
    (record,) = (out / ".frames").glob("*.npz")
    arrays = dict(np.load(record))
    arrays["names"] = np.array([name.replace("ABOVE", str(tmp_path)), *arrays["names"].tolist()[1:]])
    if name[0] == "?":  # no character at all, as an array may hold it
        arrays["names"].view(np.uint32)[0] = 1 << 30
    np.savez(record, **arrays)
    if changed:
        os.utime(video)
    before = content(out)
    with fails(DataError, f"{record} names '", "expected frames as they are written, walk/0123456789abcdef.jpg."):
        write_frames(video, out, size=16)
    assert content(out) == before and (out / "walk" / "notes.txt").read_text() == "mine"
    assert [file.read_text() for file in others] == ["mine"] * 3


def test_records_of_frames_that_are_damaged(video, tmp_path):
    from structloss.images.frames.writing import write_frames

    write_frames(video, tmp_path / "out", size=16)
    (record,) = (tmp_path / "out" / ".frames").glob("*.npz")
    arrays = dict(np.load(record))
    for key, value, says in (
        ("names", np.arange(8), "has no names of frames"),
        ("joints", np.zeros((7, 15, 2)), "has no joints of 8 frames"),
        ("annotated", np.zeros((8, 15)), "has no annotated of 8 frames"),
        ("diagonal", None, "has no diagonal of 8 frames"),
    ):
        changed = {name: array for name, array in {**arrays, key: value}.items() if array is not None}
        np.savez(record, **changed)
        with fails(DataError, f"{record} {says}", "expected a record"):
            write_frames(video, tmp_path / "out", size=16)
    assert len(content(tmp_path / "out")[0]) == 8


def test_a_folder_of_frames_that_is_a_link_is_refused(video, tmp_path):
    """What is written and removed there would be somewhere else."""
    from structloss.images.frames.writing import write_frames

    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write_frames(video, out, size=16)
    (out / "walk").rename(elsewhere)
    (out / "walk").symlink_to(elsewhere)
    os.utime(video)
    with fails(ArgumentError, "where walk is a link, expected a folder of frames"):
        write_frames(video, out, size=16)
    assert len(list(elsewhere.iterdir())) == 8


def test_videos_whose_frames_would_come_into_one_folder(tmp_path):
    from structloss.images.frames.writing import write_frames

    for name, other in (("a.avi", "a.mov"), ("b/c.avi", "b-c.avi")):
        top = tmp_path / name.replace("/", "-").replace(".", "-")
        (top / name).parent.mkdir(parents=True)
        for file in (name, other):
            write_video(top / file, frames=2)
        with fails(DataError, name, other, "whose frames would come into one folder"):
            write_frames(top, tmp_path / "out", size=16)
        assert not (tmp_path / "out").exists()
    # One after the other, and of a snapped box.
    write_frames(tmp_path / "a-avi" / "a.avi", tmp_path / "out", size=16, boxes=BOX)
    before = content(tmp_path / "out")
    assert {name.partition("/")[0] for name in before[0]} == {"a-16-8-32-32"}
    for video, box in (("a.mov", BOX), ("a-16-8-32-32.avi", None)):
        if box is None:
            write_video(tmp_path / "a-avi" / video, frames=2)
        with fails(ArgumentError, "a-16-8-32-32 holds frames of a.avi", f"new folder for those of {video}"):
            write_frames(tmp_path / "a-avi" / video, tmp_path / "out", size=16, boxes=box)
    assert content(tmp_path / "out") == before
    assert write_frames(tmp_path / "a-avi" / "a.mov", tmp_path / "out", size=16).folders == 1  # a folder of its own
    assert len(content(tmp_path / "out")[0]) == 4


def test_names_of_videos_that_are_no_text_or_hidden(tmp_path, capsys):
    from structloss.cli import main

    (tmp_path / "videos").mkdir()
    try:
        video = write_video(tmp_path / "walk.avi", frames=4).rename(tmp_path / "videos" / "bad\udcff.avi")
    except OSError:
        pytest.skip("this disk takes no such names")
    np.savez(tmp_path / "videos" / "bad\udcff.boxes.npz", boxes=np.array([BOX] * 4), joints=np.full((4, 15, 2), 20.0))
    out = tmp_path / "out"
    assert not main(["data", "frames", str(tmp_path / "videos"), str(out), "--size", "16"])
    assert "4 frames in 1 folder, joints of 4" in capsys.readouterr().out
    found = ImageFolders(out)
    assert list(found.folders) == ["bad\udcff-16-8-32-32"] and found.labelled == 4
    assert not main(["data", "frames", str(tmp_path / "videos"), str(out), "--size", "16"])
    for name in ("...avi", ".frames.avi"):  # not the folder above, nor that of the records
        video = video.rename(tmp_path / name)
        out, before = tmp_path / "to" / name, set(tmp_path.rglob("*.jpg"))
        assert not main(["data", "frames", str(video), str(out), "--size", "16"])
        assert list(ImageFolders(out).folders) == [{"...avi": "video", ".frames.avi": "frames"}[name]]
        assert all(out in file.parents for file in {*tmp_path.rglob("*.jpg")} - before)


def test_a_folder_that_can_not_be_made_or_was_hardly_begun(video, tmp_path, monkeypatch, capsys):
    from structloss.cli import main
    from structloss.images.frames import writing

    def refusing(path, *_, **__):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    with monkeypatch.context() as patch:  # as /proc does
        patch.setattr(writing.Path, "mkdir", refusing)
        assert main(["data", "frames", str(video), str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert error == (
        f"structloss: error: {tmp_path / 'out'} can't be written or read: nothing can be made in its folder.\n"
    )
    (tmp_path / "out" / ".frames").mkdir(parents=True)  # and killed
    assert writing.write_frames(video, tmp_path / "out", size=16).frames == 8


def test_frames_that_can_not_be_written(video, tmp_path):
    from structloss.images.frames.writing import write_frames

    with fails(MissingFileError, "nowhere does not exist, expected a video, or a folder of videos"):
        write_frames(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with fails(ArgumentError, "full, which holds something else, expected a new or an empty folder"):
        write_frames(video, tmp_path / "full")
    with fails(DataError, "full has no videos"):
        write_frames(tmp_path / "full", tmp_path / "out")
    with fails(ArgumentError, "size is 0, expected at least 1"):
        write_frames(video, tmp_path / "out", size=0)
    with fails(DataError, "the box of frame 0 of", "some of the frame of 64 x 48 pixels"):
        write_frames(video, tmp_path / "out", boxes=[70, 0, 5, 5])
    assert not (tmp_path / "out").exists()  # nor would it have to be removed for other settings
    (tmp_path / "S1").mkdir()
    video.rename(tmp_path / "S1" / "Eating.54138969.avi")
    with fails(DataError, "has 1 video, of none of the subjects S1, S5"):
        write_frames(tmp_path / "S1", tmp_path / "out")


# The module -----------------------------------------------------------------------------------------------------------


def test_rendered_batches():
    data = TemplatesDataModule(size=24, batch_size=6, frames=6, count=5, val_count=2, flip=True, progress=False)
    data.setup()
    assert len(data.train_dataset) == 5 * 4 and len(data.val_dataset) == 12  # the larger half of three pairs, twice
    batch = next(iter(data.train_dataloader()))
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "frame": ((6, 3, 24, 24), torch.float32),
        "reference": ((6, 3, 24, 24), torch.float32),
        "joints": ((6, 15, 2), torch.float32),
        "annotated": ((6, 15), torch.bool),
        "diagonal": ((6,), torch.float32),
        "folder": ((6,), torch.int64),
        "index": ((6,), torch.int64),
    }
    assert batch["frame"].min() >= 0 and 0.2 < batch["frame"].max() <= 1 and (batch["diagonal"] > 5).all()
    scored = torch.cat([batch["index"] for batch in data.val_dataloader()])
    assert scored.tolist() == list(range(12)) and data.test_dataset is data.val_dataset
    folders = torch.cat([batch["folder"] for batch in data.test_dataloader()]).unique().tolist()
    assert folders == [5, 6]  # others than those of training
    who = data.train_dataset.frames.people.folders, data.val_dataset.frames.people.folders
    clips = [{clip.subject for clip in part._clips} for part in who]
    assert not clips[0] & clips[1]  # nobody does the motion of another part's


def test_the_last_batch_is_left_out():
    data = TemplatesDataModule(batch_size=4, frames=6, count=3, val_count=1, **SMALL)
    assert [len(batch["index"]) for batch in data.train_dataloader()] == [4, 4]
    data = TemplatesDataModule(batch_size=20, frames=6, count=3, val_count=1, **SMALL)
    assert [len(batch["index"]) for batch in data.train_dataloader()] == [9]  # unless it is the only one


def test_a_split_by_folders(tmp_path):
    top = folders(tmp_path / "set")
    data = TemplatesDataModule(str(top), batch_size=2, shuffle_frames=False, **SMALL)
    assert (data.train_dataset.pairs == trained_pairs([4, 5, 3])).all()
    assert (data.val_dataset.pairs == scored_pairs([6])).all()  # the last quarter by name
    assert data.val_dataset.frames.people.folders.folders == ["d"]
    named = TemplatesDataModule(str(top), val_folders=["b", "[cd]"], **SMALL)
    assert named.val_dataset.frames.people.folders.folders == ["b", "c", "d"]
    assert named.train_dataset.frames.people.folders.folders == ["a"]
    subjects = folders(tmp_path / "subjects", (2, 2, 2, 2))
    for old, new in zip("abcd", ("S1-1", "S9-1", "S90-1", "S11-2"), strict=True):
        (subjects / old).rename(subjects / new)
    published = TemplatesDataModule(str(subjects), **SMALL)
    assert published.val_dataset.frames.people.folders.folders == ["S11-2", "S9-1"]
    other = TemplatesDataModule(str(top), val_path=str(subjects), count=2, val_count=1, val_pairs=1, **SMALL)
    assert other.train_dataset.frames.people.folders.folders == ["a", "c"]
    assert len(other.val_dataset) == 1 and other.val_dataset[0]["folder"] == 2
    rendered = TemplatesDataModule(val_path=str(top), val_folders=["a"], count=1, frames=2, **SMALL)
    assert len(rendered.train_dataset) == 1 and len(rendered.val_dataset) == 4


def test_frames_are_paired_at_random_unless_told_otherwise(tmp_path):
    top = folders(tmp_path / "set", (12, 2))
    one, same, other = (TemplatesDataModule(str(top), seed=seed, **SMALL).train_dataset.pairs for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any() and (one != trained_pairs([12])).any()


def test_frames_with_arms_down_or_out():
    options = {"frames": 12, "count": 1, "val_count": 4, "rendered": {"ratio": 5.0}, **SMALL}
    whole, down, out = (TemplatesDataModule(arms=arms, **options).val_dataset for arms in ("all", "down", "out"))
    assert len(down) + len(out) == len(whole) == 48 and 2 <= len(out) <= 16
    assert {*map(tuple, down.pairs)} | {*map(tuple, out.pairs)} == {*map(tuple, whole.pairs)}
    wrist, shoulder = JOINTS.index("wristR"), JOINTS.index("shoulderR")
    for index in range(len(out)):
        joints = out[index]["joints"]
        assert abs(joints[wrist, 1] - joints[shoulder, 1]) < joints[wrist, 0] - joints[shoulder, 0]
    trained = TemplatesDataModule(arms="out", **options).train_dataset
    assert len(trained) == 6  # all are trained on


def test_arms_need_joints(tmp_path):
    top = folders(tmp_path / "set")
    with fails(ArgumentError, "arms is 'down', which no frame of", "0 of 6 frames have annotated joints"):
        TemplatesDataModule(str(top), arms="down", **SMALL).setup()


class Notes(L.LightningModule):
    """A network of a few weights, that notes what it is shown."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3 * 16 * 16, 2)
        self.shown = []

    def training_step(self, batch, batch_idx):
        self.shown.append((self.current_epoch, batch["index"].tolist(), float(batch["frame"].double().sum())))
        return (self.net(batch["frame"].flatten(1)) - batch["reference"].mean()).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-2)


def fit(data, folder, epochs=3, callbacks=(), start=None):
    torch.manual_seed(0)
    module = Notes()
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=list(callbacks), enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, limit_val_batches=0, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=start)
    return module


@pytest.mark.parametrize("stop", [7, 10])
def test_a_run_resumes_in_the_middle_of_an_epoch(stop, tmp_path):
    top = folders(tmp_path / "set", (8, 7, 6, 8, 2))
    options = {"path": str(top), "batch_size": 3, "flip": True, "seed": 3, **SMALL}
    path = tmp_path / "last.ckpt"
    whole = fit(TemplatesDataModule(**options), tmp_path, callbacks=[Saves(stop, path)])
    assert len(whole.shown) == 3 * 5  # 16 pairs, the last one of an epoch is left out
    assert torch.load(path, weights_only=True)["datamodule_hyper_parameters"]["flip"] is True
    second = fit(TemplatesDataModule(**options), tmp_path, start=path)
    assert second.shown == whole.shown[stop:]
    for name, weights in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], weights), name
    epochs = [[shown for epoch, *shown in whole.shown if epoch == number] for number in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    first = [index for _, indices, _ in whole.shown[:5] for index in indices]
    assert len(set(first)) == 15  # no pair twice in an epoch


def test_processes_that_load_and_that_train(tmp_path):
    top = folders(tmp_path / "set", (8, 7, 6, 8))
    options = {"path": str(top), "batch_size": 3, "seed": 2, **SMALL}
    shown = [fit(TemplatesDataModule(num_workers=n, **options), tmp_path, epochs=1).shown for n in (0, 1)]
    assert shown[0] == shown[1] and len(shown[0]) == 3

    def place(rank):
        data = TemplatesDataModule(**options)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, is_global_zero=rank == 0)
        return data

    def indices(loader):
        return [index for batch in loader for index in batch["index"].tolist()]

    trained = [indices(place(rank).train_dataloader()) for rank in (0, 1)]
    assert len(trained[0]) == len(trained[1]) == 3 and not set(trained[0]) & set(trained[1])
    scored = [indices(place(rank).val_dataloader()) for rank in (0, 1)]
    assert sorted(scored[0] + scored[1]) == list(range(8))


def test_images_are_decoded_once(tmp_path, monkeypatch):
    top = folders(tmp_path / "set", (4, 4))
    data = TemplatesDataModule(str(top), batch_size=2, **SMALL)
    data.setup()
    decoded = []
    monkeypatch.setattr(
        "structloss.images.frames.images.read_image", lambda path: decoded.append(path) or picture(24, 24)
    )
    for _ in range(3):
        list(data.train_dataloader())
    assert len(decoded) == len(set(decoded)) == 4
    data = TemplatesDataModule(str(top), batch_size=2, keep_megabytes=0, **SMALL)
    for _ in range(2):
        list(data.train_dataloader())
    assert len(decoded) == 4 + 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"size": 4}, "size is 4, expected at least 8"),
        ({"frames": 1}, "frames is 1, expected at least 2"),
        ({"count": 0}, "count is 0"),
        ({"arms": "up"}, "arms is 'up', expected one of 'all', 'down', 'out'"),
        ({"boxes": "b.json"}, "boxes is 'b.json', expected it with path"),
        ({"val_boxes": "b.json"}, "val_boxes is 'b.json', expected it with val_path"),
        ({"val_folders": ["a"]}, "val_folders is ['a'], expected it with path"),
        ({"path": "x", "motion": "m.npz"}, "motion is 'm.npz', expected it with rendered people"),
        ({"keep_megabytes": -1}, "keep_megabytes is -1"),
        ({"rendered": {"light": 1}}, "rendered has 'light', expected ratio or facing"),
        ({"check": "some"}, "check is 'some', expected one of"),
    ],
)
def test_arguments_that_are_refused(options, says):
    with fails(ArgumentError, says):
        TemplatesDataModule(**options)


def test_splits_that_are_refused(tmp_path):
    top = folders(tmp_path / "set")
    with fails(ArgumentError, "val_folders has 'S9*', expected names of folders of", "a, b, c, d"):
        TemplatesDataModule(str(top), val_folders=["a", "S9*"], **SMALL).setup()
    with fails(DataError, "the training split of", "is empty"):
        TemplatesDataModule(str(top), val_folders=["*"], **SMALL).setup()
    one = folders(tmp_path / "one", (4,))
    with fails(DataError, "the training split of", "expected at least one folder in each"):
        TemplatesDataModule(str(one), **SMALL).setup()
    with fails(MissingFileError, "nowhere does not exist"):
        TemplatesDataModule(str(tmp_path / "nowhere"), **SMALL).setup()

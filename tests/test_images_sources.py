"""People in images: formats of annotations, image files that are not what they should be, videos, and the report."""

import copy
import json
import re
import struct
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest

from structloss.cli import main
from structloss.errors import ArgumentError, DataError, MissingFileError, StructlossError, UnknownNameError
from structloss.images.image_files import check_image, read_image
from structloss.images.inspection import inspect_images
from structloss.images.joint_layouts import LAYOUTS, MPII, layout_of, to_mpii
from structloss.images.opening import open_images, recognise_images, require_joints, require_labelled
from structloss.images.source import SOURCES

RNG = np.random.default_rng(5)
NAMES = list(MPII.joint_names)


def picture(width=64, height=48, seed=0):
    """Smooth noise, RGB, that survives JPEG."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path, image=None, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture(**settings) if image is None else image
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image)
    return path


def one_sentence(error):
    text = str(error)
    assert text.endswith((".", "?")) and "\n" not in text and ". " not in text.replace("...", ""), text
    return text


@contextmanager
def fails(kind, *parts):
    with pytest.raises(kind) as caught:
        yield
    text = one_sentence(caught.value)
    for part in parts:
        assert part in text, text


# Image files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp", ".ppm"])
def test_image_files(ending, tmp_path):
    path = write(tmp_path / f"a{ending}")
    header = check_image(path)
    assert (header.width, header.height, header.channels, header.bits) == (64, 48, 3, 8)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (48, 64, 3) and image.flags["C_CONTIGUOUS"]
    difference = np.abs(image.astype(int) - picture()).mean()
    assert difference == 0 if ending in (".png", ".bmp", ".ppm") else difference < 6
    assert np.abs(image[..., ::-1].astype(int) - picture()).mean() > 12  # RGB, not BGR


def test_grey_alpha_palette_and_16_bits(tmp_path):
    rgb = picture()
    grey = rgb[..., 0].copy()
    write(tmp_path / "grey.png", grey)
    write(tmp_path / "grey.jpg", grey)
    write(tmp_path / "grey.pgm", grey)
    for name in ("grey.png", "grey.pgm"):
        assert check_image(tmp_path / name).channels == 1
        np.testing.assert_array_equal(read_image(tmp_path / name), np.repeat(grey[..., None], 3, -1))
    assert check_image(tmp_path / "grey.jpg").channels == 1
    found = read_image(tmp_path / "grey.jpg")
    assert (found[..., 0] == found[..., 2]).all()
    alpha = np.dstack([rgb[..., ::-1], np.full((48, 64), 90, np.uint8)])
    write(tmp_path / "alpha.png", alpha)
    assert check_image(tmp_path / "alpha.png").channels == 4
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), rgb)
    write(tmp_path / "deep.png", rgb.astype(np.uint16)[..., ::-1] * 257)
    assert check_image(tmp_path / "deep.png").bits == 16
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[..., ::-1], rgb)


def exif(path, orientation):
    """The JPEG at a path with an EXIF orientation."""
    content = path.read_bytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:])
    return path


def test_exif_orientation_is_followed_only_on_request(tmp_path):
    plain = read_image(write(tmp_path / "plain.jpg"))
    path = exif(write(tmp_path / "turned.jpg"), 6)
    np.testing.assert_array_equal(read_image(path), plain)
    np.testing.assert_array_equal(read_image(path, upright=True), np.rot90(plain, -1))
    (person,) = open_images(path)
    assert person.image.shape == (64, 48, 3) and person.centre.tolist() == [23.5, 31.5] and person.side == 64
    (person,) = open_images(path, upright=False)
    assert person.image.shape == (48, 64, 3) and person.centre.tolist() == [31.5, 23.5]


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp", ".ppm"])
def test_truncated_images(ending, tmp_path, capfd):
    content = write(tmp_path / f"whole{ending}").read_bytes()
    path = tmp_path / f"cut{ending}"
    for end in (0, 1, 5, 20, 30, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(DataError) as caught:
            read_image(path)
        assert str(path) in one_sentence(caught.value)
    assert capfd.readouterr().err == ""  # OpenCV's own messages


def png_of(width, height, bits=8, colours=2):
    """A PNG of a few bytes that declares any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_bombs_and_other_files(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_of(100_000, 100_000))
    with fails(DataError, "has 100000 x 100000 pixels, expected at most 67108864"):
        read_image(path)
    path.write_bytes(png_of(0, 10))
    with fails(DataError, "0 x 10 pixels"):
        read_image(path)
    path.write_bytes(png_of(64, 48))
    with fails(DataError, "is damaged"):
        read_image(path)
    path.write_bytes(b"")
    with fails(DataError, "is empty"):
        read_image(path)
    path.write_bytes(b"II*\0" + bytes(100))
    with fails(DataError, "no known image format, expected JPEG, PNG, WebP, BMP or PNM"):
        read_image(path)
    with fails(MissingFileError, "does not exist"):
        read_image(tmp_path / "b.png")
    with fails(MissingFileError, "is a directory"):
        read_image(tmp_path)


def test_any_bytes_are_an_image_or_a_sentence(tmp_path):
    """Bytes of headers are changed at random."""
    path = tmp_path / "a"
    random = np.random.default_rng(1)
    refused = 0
    for ending in (".jpg", ".png", ".webp", ".bmp", ".ppm"):
        content = write(tmp_path / f"whole{ending}").read_bytes()
        for _ in range(60):
            changed = bytearray(content)
            for place in random.integers(0, min(len(changed), 60), 3):
                changed[place] = random.integers(256)
            path.write_bytes(changed)
            try:
                image = read_image(path)
                assert image.ndim == 3 and image.shape[2] == 3
            except DataError as error:
                refused += 1
                one_sentence(error)
    assert refused > 30


# MPII -----------------------------------------------------------------------------------------------------------------


def mpii_person(image="a.jpg", **changes):
    joints = [[20.0 + j, 10.0 + 2 * j] for j in range(16)]
    return {"image": image, "joints": joints, "center": [32, 20], "scale": 0.2} | changes


@pytest.fixture
def mpii(tmp_path):
    write(tmp_path / "images" / "a.jpg")
    people = [mpii_person(), mpii_person(joints_vis=[0] * 4 + [1] * 12), mpii_person()]
    people[2]["joints"][3] = [-1, -1]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(people))
    return path


def test_mpii(mpii):
    people = open_images(mpii)
    assert len(people) == 3 and not people.labelled and people.source == str(mpii) and people.has_joints
    first, second, third = people
    assert first.image.shape == (48, 64, 3) and first.name == "a.jpg" and first.pose is None
    np.testing.assert_allclose(first.joints, [[19 + j, 9 + 2 * j] for j in range(16)])  # 1-based in the file
    assert first.annotated.all() and first.visible.all()
    np.testing.assert_allclose(first.centre, [31, 19 + 15 * 0.2])
    assert first.side == pytest.approx(1.25 * 200 * 0.2)
    assert second.annotated.all() and second.visible.tolist() == [False] * 4 + [True] * 12
    assert not third.annotated[3] and third.annotated.sum() == 15 and (third.joints[3] == 0).all()
    assert first.joints.dtype == first.centre.dtype == np.float32 and first.annotated.dtype == bool


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"joints": [[1, 2]] * 15}, "joints of person 1 of * has shape [15, 2], expected [16, 2]"),
        ({"joints": "none"}, "joints of person 1 of * is 'none', expected numbers"),
        ({"joints": [[1, 2]] * 15 + [[3]]}, "expected numbers"),
        ({"center": None}, "center of person 1 of * has shape [], expected [2]"),
        ({"scale": [1, 2]}, "scale of person 1"),
        ({"joints_vis": [1] * 15}, "joints_vis of person 1"),
        ({"image": "../a.jpg"}, "names the image '../a.jpg', expected a path within the folder of images"),
        ({"image": "/etc/passwd"}, "expected a path within"),
        ({"image": "x/../../a.jpg"}, "expected a path within"),
        ({"image": "C:\\a.jpg"}, "expected a path within"),
        ({"image": "..\\a.jpg"}, "expected a path within"),
        ({"image": "a\0.jpg"}, "expected the name of a file"),
        ({"image": 3}, "names the image 3, expected the name of a file"),
        ({"image": ""}, "expected the name of a file"),
    ],
)
def test_bad_mpii(mpii, changes, message):
    people = json.loads(mpii.read_text())
    people[1] |= changes
    mpii.write_text(json.dumps(people))
    with fails(DataError, *message.split("*")):
        open_images(mpii)


def test_people_that_cannot_be_shown_are_left_out_with_a_note(mpii):
    people = json.loads(mpii.read_text())
    people[0]["joints"] = [[0, 0]] * 16
    people[1]["scale"] = 0
    mpii.write_text(json.dumps(people))
    found = open_images(mpii)
    assert len(found) == 1 and not found[0].annotated[3]
    no_joint = "1 of 2 people are left out: they have no annotated joint"
    for name, value, what in (
        ("scale", 0, "empty, less than a pixel wide"),
        ("scale", float("nan"), "NaN or infinite"),
        ("center", [3, float("inf")], "NaN or infinite"),
        ("center", [1e7, 3], "outside of any image, a million pixels away or wide"),
        ("scale", 1e7, "outside of any image, a million pixels away or wide"),
    ):
        people[1] |= {"scale": 0.2, "center": [30, 20]} | {name: value}
        mpii.write_text(json.dumps(people))
        assert open_images(mpii).notes == (f"1 of 3 people are left out: their boxes are {what}", no_joint)
    people[2]["scale"] = float("nan")
    mpii.write_text(json.dumps(people))
    with fails(DataError, "has nobody whom it could show"):
        open_images(mpii)
    people[2] |= {"scale": 0.2, "joints": [[1e300, 1e300]] * 15 + [[5, 5]]}
    mpii.write_text(json.dumps(people))
    assert open_images(mpii)[0].annotated.sum() == 1


# COCO -----------------------------------------------------------------------------------------------------------------


def coco_content(**changes):
    """The synthetic file of the data sheet: two images, three annotations; one without keypoints, one a crowd."""
    keypoints = np.array([[10.0 * k % 60 + 1, 5.0 * k % 45 + 2, 2] for k in range(17)])
    keypoints[5, 2] = 1
    person = {"id": 1, "image_id": 7, "category_id": 1, "num_keypoints": 17, "area": 400.0, "iscrowd": 0}
    person |= {"keypoints": keypoints.ravel().tolist(), "bbox": [10, 4, 20, 30], "segmentation": [[1, 2, 3, 4]]}
    nobody = person | {"id": 2, "keypoints": [0] * 51, "num_keypoints": 0}
    crowd = person | {"id": 3, "iscrowd": 1, "segmentation": {"counts": [1], "size": [48, 64]}}
    other = person | {"id": 4, "image_id": 8}
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48} for n in (7, 8)]
    return {"images": images, "annotations": [person | changes, nobody, crowd, other], "categories": []}


@pytest.fixture
def coco(tmp_path):
    for number in (7, 8):
        write(tmp_path / "val2017" / f"{number}.jpg", seed=number)
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    path.write_text(json.dumps(coco_content()))
    return path


def test_coco(coco):
    people = open_images(coco)  # the images are where COCO has them
    assert len(people) == 2 and people.notes[0].startswith("2 of 4 annotations are left out: crowds")
    person = people[0]
    points = np.array(coco_content()["annotations"][0]["keypoints"]).reshape(17, 3)
    for name, keypoint in zip(SPIN[:12], (16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9), strict=True):
        np.testing.assert_allclose(person.joints[NAMES.index(name)], points[keypoint, :2], err_msg=name)
    np.testing.assert_allclose(person.joints[6], points[[11, 12], :2].mean(0))
    np.testing.assert_allclose(person.joints[7], points[[5, 6], :2].mean(0))
    np.testing.assert_allclose(person.joints[8], (points[0, :2] + points[[5, 6], :2].mean(0)) / 2)
    assert person.annotated.tolist() == [name != "HeadTop" for name in NAMES]
    hidden = {"HeadTop", "LShoulder", "Thorax", "UpperNeck"}  # what is made of the hidden left shoulder, too
    assert {name for name, seen in zip(NAMES, person.visible, strict=True) if not seen} == hidden
    np.testing.assert_allclose(person.centre, [19.5, 18.5])
    assert person.side == 1.25 * 30
    assert (people[1].image == read_image(coco.parents[1] / "val2017" / "8.jpg")).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"keypoints": [1, 2, 2] * 16}, "keypoints of annotation 0 of * are 48 numbers, expected 51, COCO's 17"),
        ({"keypoints": "all"}, "expected 51"),
        ({"keypoints": ["x"] * 51}, "expected numbers"),
        ({"bbox": [1, 2, 3]}, "bbox of annotation 0 of * has shape [3], expected [4]"),
        ({"bbox": None}, "bbox of annotation 0"),
        ({"image_id": 99}, "has the image_id 99, which is not listed"),
        ({"image_id": [7]}, "has the image_id [7], expected a number or a name"),
        ({"num_keypoints": "all"}, "num_keypoints of annotation 0 of * is 'all', expected a number"),
        ({"area": {}}, "area of annotation 0"),
    ],
)
def test_bad_coco(coco, changes, message):
    coco.write_text(json.dumps(coco_content(**changes)))
    with fails(DataError, *message.split("*")):
        open_images(coco)


def test_other_content_of_coco(coco):
    content = coco_content()
    for images, annotations, part in [
        ({}, [], "are no lists"),
        (content["images"], [3], "annotation 0 of"),
        ([3], content["annotations"], "image 0 of"),
        ([{"id": 7, "file_name": "../../x.jpg"}], content["annotations"], "expected a path within"),
        (content["images"], content["annotations"][1:3], "no person with labelled keypoints"),
    ]:
        coco.write_text(json.dumps({"images": images, "annotations": annotations}))
        with fails(DataError, part):
            open_images(coco)
    coco.write_text("{")
    with fails(DataError, "is not valid JSON"):
        open_images(coco)
    coco.write_text("[" * 100_000)
    with fails(DataError, "nested too deeply"):
        open_images(coco)


def test_images_of_another_size_than_annotated(coco):
    write(coco.parents[1] / "val2017" / "8.jpg", width=48, height=64)
    with fails(DataError, "1 of 2 images", "8.jpg has 48 x 64 pixels", "set missing to 'skip'"):
        open_images(coco)


# SPIN -----------------------------------------------------------------------------------------------------------------

#: the published order, as facts of its own
SPIN = (
    *("RAnkle", "RKnee", "RHip", "LHip", "LKnee", "LAnkle", "RWrist", "RElbow", "RShoulder", "LShoulder", "LElbow"),
    *("LWrist", "UpperNeck", "HeadTop", "Pelvis", "Thorax", "Spine", "Jaw", "Head", "Nose", "LEye", "REye", "LEar"),
    "REar",
)


def spin_arrays(n=5, joints=24, seed=3):
    """People seen by a weak perspective: 2D joints are 3D ones, scaled and moved."""
    random = np.random.default_rng(seed)
    solid = np.ones((n, joints, 4))
    solid[..., :3] = random.normal(0, 0.3, (n, joints, 3))
    part = np.ones((n, joints, 3))
    part[..., :2] = solid[..., :2] * 20 + (32, 24)
    names = np.array([f"S{1 + i % 2}/S{1 + i % 2}_Walking_{i}.jpg" for i in range(n)])
    box = {"center": np.tile([32.0, 24.0], (n, 1)), "scale": np.full(n, 0.2)}
    return {"imgname": names, "part": part, "S": solid, **box}


def write_spin(path, **changes):
    arrays = spin_arrays() | changes
    for name in arrays["imgname"]:
        if isinstance(name, str) and not (path.parent / name).exists() and ".." not in name:
            write(path.parent / name)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_spin(tmp_path):
    arrays = spin_arrays()
    arrays["part"][:, 13] = arrays["part"][:, 15] = 0  # as in Human3.6M's frames
    arrays["S"][:, 13] = arrays["S"][:, 15] = 0
    arrays["part"][1, SPIN.index("LWrist"), 2] = 0  # known in 3D only
    people = open_images(write_spin(tmp_path / "h36m.npz", **arrays))
    assert people.labelled and len(people) == 5 and set(people.subjects) == {"S1", "S2"}
    person = people[0]
    assert person.subject == "S1" and person.side == pytest.approx(40) and person.centre.tolist() == [32, 24]
    root = arrays["S"][0, 14, :3]
    for place, name in enumerate(NAMES):
        source = {"HeadTop": [SPIN.index("Head")], "Thorax": [8, 9]}.get(name, [SPIN.index(name)])
        solid = (arrays["S"][0, source, :3].mean(0) - root) * 1000
        np.testing.assert_allclose(person.pose[place], solid, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(person.joints[place], arrays["part"][0, source, :2].mean(0), rtol=1e-6)
    assert person.annotated.all() and (person.pose[6] == 0).all()
    assert people[1].annotated.sum() == 15 and not people[1].annotated[15] and people[1].pose is not None
    require_labelled(people, "data")


def test_spin_without_3d_and_with_some(tmp_path):
    people = open_images(write_spin(tmp_path / "a.npz", S=None))
    assert not people.labelled and people[0].annotated.all()
    np.testing.assert_allclose(people[0].joints[7], spin_arrays()["part"][0, 15, :2], rtol=1e-6)  # the annotated thorax
    with fails(DataError, "data is", "has no 3D poses, expected people with 2D and 3D joints"):
        require_labelled(people, "data")
    arrays = spin_arrays()
    arrays["S"][2, 0, 3] = 0
    people = open_images(write_spin(tmp_path / "b.npz", **arrays))
    assert people.labelled and len(people) == 4
    assert people.notes == ("1 of 5 people are left out: S lacks some of their joints",)
    arrays["S"][:, 0, 3] = 0
    people = open_images(write_spin(tmp_path / "c.npz", **arrays))
    assert not people.labelled and len(people) == 5 and "2D only" in people.notes[0]
    assert people[0].annotated.all()


@pytest.mark.parametrize("order", ["h36m", "mpi_inf_3dhp"])
def test_17_joints_need_their_order(order, tmp_path):
    arrays = spin_arrays(joints=17)
    path = write_spin(tmp_path / "a.npz", **arrays)
    with fails(DataError, "has 17 joints, expected 24, those of SPIN; set joints to the order"):
        open_images(path)
    people = open_images(path, joints=order)
    wrist = {"h36m": 13, "mpi_inf_3dhp": 7}[order]
    np.testing.assert_allclose(people[0].joints[15], arrays["part"][0, wrist, :2], rtol=1e-6)
    assert people.labelled and people[0].annotated.all()


def test_joints_by_name(tmp_path):
    order = [*NAMES[::-1], "-", "Nose"]
    arrays = spin_arrays(joints=18)
    people = open_images(write_spin(tmp_path / "a.npz", **arrays), joints=order)
    expected = arrays["part"][0, :16, :2][::-1].copy()
    expected[7] = expected[[12, 13]].mean(0)
    np.testing.assert_allclose(people[0].joints, expected, rtol=1e-6)
    for joints, kind, part in [
        (["RAnkel"], UnknownNameError, "did you mean 'RAnkle'"),
        (["RAnkle", "RAnkle"], ArgumentError, "has RAnkle twice"),
        (["-", "Nose"], ArgumentError, "joints has none of"),
        ("spni", UnknownNameError, "did you mean 'spin'"),
        ("RAnkle, RKnee", DataError, "part of * has 18 joints, expected 2"),
    ]:
        with fails(kind, *part.split("*")):
            open_images(tmp_path / "a.npz", joints=joints)


def test_layouts_agree_with_the_skeletons():
    from structloss.skeletons import convert, get

    for name in ("h36m", "mpi_inf_3dhp"):
        pose = RNG.normal(size=(3, 17, 2))
        known, found = to_mpii(LAYOUTS[name], np.ones((3, 17), bool), pose)
        as_h36m = convert(pose, name, "h36m")
        expected = convert(as_h36m, "h36m", "mpii", variant="zhou").copy()
        expected[:, 7] = as_h36m[:, [11, 14]].mean(1)
        assert known.all()
        np.testing.assert_allclose(found, expected)
    layout, size = layout_of("coco")
    joints = get("coco").joint_names
    assert size == 17
    for place, choices in enumerate(layout):
        if len(choices) == 1 and len(choices[0]) == 1:
            side, part = NAMES[place][0], NAMES[place][1:].lower()
            assert joints[choices[0][0][0]] == f"{'left' if side == 'L' else 'right'}_{part}"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"part": np.ones((5, 24, 2))}, "part of * has shape [5, 24, 2], expected [5, K, 3]"),
        ({"part": np.ones((4, 24, 3))}, "part of * has shape [4, 24, 3]"),
        ({"part": None}, "has no numbers part"),
        ({"part": np.ones((5, 23, 3)), "S": None}, "has 23 joints, expected 24, those of SPIN."),
        ({"S": np.ones((5, 23, 4))}, "S of * has shape [5, 23, 4], expected [5, 24, 4]"),
        ({"center": np.ones(5)}, "center of"),
        ({"scale": np.ones((5, 2))}, "scale of"),
        ({"scale": np.array(["a"] * 5)}, "has no numbers scale"),
        ({"imgname": np.arange(5)}, "has no list of names imgname"),
        ({"imgname": np.array(["../../x.jpg"] * 5)}, "expected a path within"),
        ({"imgname": np.array([], str)}, "has no people"),
    ],
)
def test_bad_spin(tmp_path, changes, message):
    path = write_spin(tmp_path / "a.npz", **changes)
    with fails(DataError, *message.split("*")):
        open_images(path)


def test_3d_joints_of_another_frame_are_refused(tmp_path):
    arrays = spin_arrays()
    arrays["S"][..., :3] = arrays["S"][..., [0, 2, 1]] * [1, 1, -1]  # z up, as in the world
    with fails(DataError, "y of S in", "does not follow y of part", "expected the camera's frame"):
        open_images(write_spin(tmp_path / "a.npz", **arrays))


def test_names_of_objects_are_read_and_code_is_not(tmp_path):
    import os

    arrays = spin_arrays()
    people = open_images(write_spin(tmp_path / "a.npz", imgname=arrays["imgname"].astype(object)))
    assert len(people) == 5

    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(StructlossError, match="refers to"):
        open_images(write_spin(tmp_path / "b.npz", imgname=np.array([Bad()] * 5, object)))
    assert not (tmp_path / "made").exists()


# Folders and videos ---------------------------------------------------------------------------------------------------


def test_folder(tmp_path):
    for name in ("b/10.png", "b/9.png", "a.jpg", ".hidden.png", "c/x.PNG"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    people = open_images(tmp_path)
    assert [person.name for person in people] == ["a.jpg", "b/9.png", "b/10.png", "c/x.PNG"]
    assert [person.subject for person in people] == ["", "b", "b", "c"]
    person = people[0]
    assert not person.annotated.any() and person.pose is None and (person.joints == 0).all()
    assert person.centre.tolist() == [31.5, 23.5] and person.side == 64
    with fails(DataError, "data is", "has no annotated joints"):
        require_joints(people, "data")


def test_folder_with_boxes(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "images" / name)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.png": [10, 4, 20, 30], "b.png": [[0, 0, 8, 4], [20, 20, 4, 8]]}))
    people = open_images(tmp_path / "images", boxes=boxes)
    assert [person.name for person in people] == ["a.png", "b.png", "b.png"]
    assert [person.side for person in people] == [37.5, 10, 10]
    np.testing.assert_allclose([person.centre for person in people], [[19.5, 18.5], [3.5, 1.5], [21.5, 23.5]])
    assert people.notes[0].startswith("1 of 3 images are left out")
    for content, part in [
        ({}, "has no boxes"),
        (3, "has no boxes"),
        ({"a.png": [1, 2, 3]}, "has shape [3], expected [4]"),
        ({"a.png": [1, 2, -3, 4]}, "expected x, y and a width and height above 0"),
        ({"../a.png": [1, 2, 3, 4]}, "expected a path within"),
        ({"x.png": [1, 2, 3, 4]}, "boxes names 1 image that"),
    ]:
        boxes.write_text(json.dumps(content))
        with fails(DataError, part):
            open_images(tmp_path / "images", boxes=boxes)
    boxes.write_text(json.dumps({"x.png": [1, 2, 3, 4], "c.png": [1, 2, 3, 4], "a.png": [60, 4, 9, 9]}))
    with pytest.warns(UserWarning, match="1 of 3 images of .* can't be used: x.png does not exist"):
        people = open_images(tmp_path / "images", boxes=boxes, missing="skip")
    assert [person.name for person in people] == ["a.png", "c.png"]  # in the order of names, not of the file
    assert [person.name for person in open_images(tmp_path / "images/c.png", boxes=boxes)] == ["c.png"]
    with fails(DataError, "has no box for b.png", "it has some for"):
        open_images(tmp_path / "images/b.png", boxes=boxes)
    assert [person.side for person in open_images(tmp_path / "images", boxes=[10, 4, 20, 30])] == [37.5] * 3
    for box in ([64, 4, 9, 9], [-9, 4, 9, 9], [4, 64, 9, 9], [4, -9, 9, 9]):
        with fails(ArgumentError, "boxes has [", "for a.png, which has 64 x 48 pixels"):
            open_images(tmp_path / "images", boxes=box)


def test_missing_images_are_named_counted_and_skipped_on_request(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"):
        write(tmp_path / name)
    names = ("a", "b", "c", "d", "e", "f", "a")
    (tmp_path / "x.json").write_text(json.dumps([mpii_person(f"{name}.jpg") for name in names]))
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "c.jpg").write_bytes(b"")
    (tmp_path / "d.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-40])
    (tmp_path / "e.jpg").write_bytes(png_of(1 << 20, 1 << 20))
    path = tmp_path / "x.json"
    said = ("4 of 6 images of", "b.jpg does not exist, c.jpg is empty, d.jpg is cut off and 1 more")
    with fails(DataError, *said, "set missing to 'skip' to leave them out"):
        open_images(path)
    with pytest.warns(UserWarning) as warned:
        people = open_images(path, missing="skip")
    assert all(part in str(warned[0].message) for part in (*said, "4 of 7 people are left out."))
    assert [person.name for person in people] == ["a.jpg", "f.jpg", "a.jpg"] and len(people.skipped) == 4
    unchecked = open_images(path, check="none")
    assert len(unchecked) == 7
    with fails(DataError, "c.jpg is empty"):
        unchecked[2]
    for name in ("a", "f"):
        (tmp_path / f"{name}.jpg").unlink()
    with fails(DataError, "6 of 6 images", "nobody is left"):
        open_images(path, missing="skip", images=tmp_path)


def test_decoding_all_finds_damage_inside(tmp_path):
    content = bytearray(write(tmp_path / "a.png").read_bytes())
    write(tmp_path / "b.png")
    at = content.index(b"IDAT") + 30
    content[at : at + 40] = bytes(40)
    (tmp_path / "a.png").write_bytes(content)
    people = open_images(tmp_path)  # its header and its end are those of an image
    assert len(people) == 2
    with fails(DataError, "is damaged"):
        people[0]
    with pytest.warns(UserWarning, match="1 of 2 images"):
        assert [person.name for person in open_images(tmp_path, check="decode", missing="skip")] == ["b.png"]


def video(path, frames=8, rate=25, size=(64, 48)):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.gop_size = 4
        container.start_encoding()
        for number in range(frames):
            image = np.full((size[1], size[0], 3), 20 + 25 * number, np.uint8)
            image[:8] = 0
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_video(tmp_path):
    import pickle

    from structloss.images.video import video_frames

    path = video(tmp_path / "walk.mp4")
    people = open_images(path)
    assert len(people) == 8 and people.fps == 25 and people.size == (64, 48) and not people.labelled

    def level(image):  # which of the greys it is
        return round((float(image[16:].mean()) - 20) / 25)

    for order in (range(8), [5, 2, 7, 0, 3, 3, 4], range(7, -1, -1)):  # in order, at random, backwards
        assert [level(people[number].image) for number in order] == list(order)
    assert [level(frame) for frame in video_frames(path)] == list(range(8))
    again = pickle.loads(pickle.dumps(people))
    np.testing.assert_array_equal(again[6].image, people[6].image)
    person = people[3]
    assert person.centre.tolist() == [31.5, 23.5] and person.side == 64 and person.subject == "walk"
    with pytest.raises(IndexError):
        people[8]
    boxes = tmp_path / "boxes.json"
    for content, sides in [
        ([10, 4, 20, 30], [37.5] * 8),
        ({"0": [0, 0, 8, 8], "5": [0, 0, 16, 16]}, [10] * 5 + [20] * 3),
        ([[0, 0, 8, 8 + 8 * n] for n in range(8)], [1.25 * (8 + 8 * n) for n in range(8)]),
    ]:
        boxes.write_text(json.dumps(content))
        assert [person.side for person in open_images(path, boxes=boxes)] == sides
    for content in ({"2": [0, 0, 8, 8]}, {"0": [0, 0, 8, 8], "8": [0, 0, 8, 8]}):
        boxes.write_text(json.dumps(content))
        with fails(DataError, "boxes has frames", "expected the first one, 0"):
            open_images(path, boxes=boxes)
    assert [person.side for person in open_images(path, boxes=[10, 4, 20, 30])] == [37.5] * 8
    with fails(ArgumentError, "boxes has [64, 4, 9, 9] for frame 0 of", "which has 64 x 48 pixels"):
        open_images(path, boxes=[64, 4, 9, 9])


def test_frames_of_any_container_by_number(tmp_path):
    """AVI tells no times of frames that are decoded in another order than they are shown in."""
    import av

    from structloss.images.video import VideoPeople, video_frames

    for name, codec in (("a.avi", "libx264"), ("a.mkv", "libx264"), ("a.mpg", "mpeg2video"), ("a.mov", "mjpeg")):
        if codec not in av.codecs_available:
            continue
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.gop_size = 8
            if codec == "libx264":
                stream.codec_context.max_b_frames = 3
            for number in range(12):
                image = np.full((48, 64, 3), 20 + 15 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        people = VideoPeople(tmp_path / name)
        in_order = [frame.mean() for frame in video_frames(tmp_path / name)]
        assert len(people) == len(in_order) == 12 and people.fps == 30, name
        for number in (9, 2, 5, 11, 0, 1, 10):
            assert people.frame(number).mean() == pytest.approx(in_order[number]), (name, number)


def test_a_video_is_turned_as_it_says(tmp_path):
    """Telephones store frames as the sensor lies, and how to turn them."""
    from structloss.images.video import VideoPeople

    path = video(tmp_path / "a.mp4")
    content, one = path.read_bytes(), 0x10000
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 0x40000000)
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 0x40000000)  # a quarter to the right
    at = content.index(plain, content.index(b"tkhd"))
    before = VideoPeople(path).frame(7)
    path.write_bytes(content[:at] + turned + content[at + len(plain) :])
    people = VideoPeople(path)
    assert people.size == (48, 64)
    np.testing.assert_array_equal(people.frame(7), np.rot90(before, -1))


def test_files_that_are_no_video(tmp_path):
    from structloss.images.video import VideoPeople

    content = video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "a.mp4"
    for bad in (b"", b"x" * 5000, content[: len(content) // 2]):
        path.write_bytes(bad)
        with pytest.raises(DataError) as caught:
            VideoPeople(path)
        assert "a.mp4" in one_sentence(caught.value)
    empty = tmp_path / "none.avi"
    with pytest.raises(DataError, match=r"none.avi"):
        VideoPeople(video(empty, frames=0))
    with fails(MissingFileError, "does not exist"):
        VideoPeople(tmp_path / "b.mp4")


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_playlists_are_no_videos(name, tmp_path):
    """A playlist names other files, and addresses."""
    from structloss.images.video import VideoPeople

    inner = video(tmp_path / "whole.mp4")
    path = tmp_path / name
    path.write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{inner}\n#EXT-X-ENDLIST\n")
    with fails(DataError, "is no video that can be opened"):
        VideoPeople(path)
    path.write_text(f"ffconcat version 1.0\nfile {inner.name}\n")
    with fails(DataError, "is no video that can be opened"):
        VideoPeople(path)


# Opening and the report -----------------------------------------------------------------------------------------------


def test_formats_are_told_apart(tmp_path, mpii, coco):
    write_spin(tmp_path / "s.npz")
    (tmp_path / "v.mp4").write_bytes(b"")
    found = {
        mpii: "mpii", coco: "coco", tmp_path / "s.npz": "spin", tmp_path / "images": "image-folder",
        tmp_path / "images" / "a.jpg": "image-folder", tmp_path / "v.mp4": "video",
    }  # fmt: skip
    assert {path: recognise_images(path)[1].name for path in found} == found
    assert set(found.values()) == set(SOURCES)
    (tmp_path / "other").mkdir()
    with fails(DataError, "has no images, expected one of"):
        open_images(tmp_path / "other")
    (tmp_path / "x.json").write_text("{}")
    with fails(DataError, "is of no known format"):
        open_images(tmp_path / "x.json")
    with fails(MissingFileError, "does not exist"):
        open_images(tmp_path / "none")
    with fails(UnknownNameError, "did you mean 'coco'"):
        open_images(coco, format="cocco")


VALUES = (
    None, True, 0, -1, 1e308, float("nan"), float("inf"), 10**30, "x", "", [], [[]], {}, {"a": 1}, [1, 2], "7.jpg",
    -5.5, [None] * 51, [["x"] * 2] * 16, [1e308] * 51, "a" * 5000, "\ud800", [[1, 2]] * 16,
)  # fmt: skip


def changed_somewhere(content, random):
    """The content with a value in it taken out or replaced by another."""
    places = []

    def visit(node, place):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, dict | list):
                visit(value, (*place, key))

    visit(content, ())
    node, key = random.choice(places)
    if random.random() < 0.2:
        del node[key]
    else:
        node[key] = copy.deepcopy(random.choice(VALUES))
    return content


@pytest.mark.parametrize("kind", ["coco", "mpii"])
def test_any_json_is_people_or_a_sentence(kind, tmp_path):
    for name in ("a.jpg", "7.jpg", "8.jpg"):
        write(tmp_path / name)
    random, path, read = Random(3), tmp_path / "x.json", 0
    for _ in range(250):
        content = coco_content() if kind == "coco" else [mpii_person(), mpii_person(joints_vis=[1] * 16)]
        path.write_text(json.dumps(changed_somewhere(json.loads(json.dumps(content)), random)))
        try:
            report = inspect_images(path, format=kind, images=tmp_path)
            json.dumps(report.to_dict(), allow_nan=False)
            read += str(report) != ""
        except StructlossError as error:
            assert len(one_sentence(error)) < 500
    assert 50 < read < 230


def test_any_numbers_in_an_npz_are_people_or_a_sentence(tmp_path):
    from structloss.images.samples import ImageSamples

    path = write_spin(tmp_path / "x.npz")
    random, noise, read = Random(4), np.random.default_rng(4), 0
    for _ in range(120):
        arrays = spin_arrays()
        name = random.choice(["part", "S", "center", "scale"])
        odd = random.choice([np.nan, np.inf, -1, 0, 1e300, -1e300, 1e-300])
        arrays[name][noise.random(arrays[name].shape) < random.choice([0.01, 0.3, 1.0])] = odd
        np.savez(path, **arrays)
        try:
            samples = ImageSamples(open_images(path), input_size=16)
        except StructlossError as error:
            one_sentence(error)
            continue
        for number in range(len(samples)):
            for key, value in samples[number].items():
                assert not value.is_floating_point() or value.isfinite().all(), key
        read += 1
    assert 20 < read < 110


#: a made-up format: a line for each person, with the image, the centre of the box and its side
LINES = """
import numpy as np

from structloss.data.formats.registry import Option
from structloss.images.image_people import Annotations, gathered
from structloss.images.source import MISSING, SOURCES, Source


def read_lines(file, settings):
    rows = [line.split() for line in file.path.read_text().splitlines()]
    box = np.array([row[1:] for row in rows], float)
    joints = np.repeat(box[:, None, :2], 16, 1)
    known = np.ones((len(rows), 16), bool)
    people = Annotations(
        files=[row[0] for row in rows], file=np.arange(len(rows)), centre=box[:, :2],
        side=box[:, 2] * float(settings.get("times", 1)), joints=joints, annotated=known, visible=known,
    )
    return gathered(people, file.path.parent, str(file.path), missing=settings.get("missing", "error"))


SOURCES.register(
    Source("lines", "a line for each person", read_lines, suffixes=(".lines",), options=(MISSING, Option("times", "x")))
)
"""


def test_a_new_format_is_one_file(monkeypatch, tmp_path, capsys):
    import sys

    from structloss.images import sources

    path = tmp_path / "a.lines"
    path.write_text("a.png 20 10 8\nb.png 20 10 16\n")
    write(tmp_path / "a.png")
    with fails(DataError, "is of no known format"):
        open_images(path)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "lines.py").write_text(LINES)
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES))
    monkeypatch.setattr(SOURCES, "_searched", set(SOURCES._searched))
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "beside")])
    try:
        with pytest.warns(UserWarning, match="1 of 2 images"):
            (person,) = open_images(path, times=2, missing="skip")
        assert person.side == 16 and person.image.shape == (48, 64, 3)
        code, out, _ = run(capsys, "inspect", path, "--times", "3")
        assert code == 0 and "boxes      24 to 24 px" in out
        assert "\nlines " in run(capsys, "formats")[1]
        with fails(ArgumentError, "times is given for", "expected it with lines only"):
            open_images(tmp_path / "a.png", times=2)
        with fails(UnknownNameError, "unknown option 'tims': did you mean 'times'"):
            open_images(path, tims=2)
    finally:
        sys.modules.pop("structloss.images.sources.lines", None)


def test_options_that_a_format_has_no_use_for(mpii, tmp_path):
    for options, part in [({"joints": "spin"}, "spin only"), ({"boxes": "x"}, "image-folder, video only")]:
        with fails(ArgumentError, f"{next(iter(options))} is given for", f"expected it with {part}"):
            open_images(mpii, **options)
    for options in ({"missing": "ignore"}, {"check": "all"}):
        with fails(ArgumentError, f"{next(iter(options))} is", "expected one of"):
            open_images(mpii, **options)
    with fails(MissingFileError, "images is", "expected the folder of the images"):
        open_images(mpii, images=tmp_path / "none")
    (tmp_path / "images" / "a.jpg").unlink()
    with fails(MissingFileError, "a.jpg, the first image", "set images to the folder"):
        open_images(mpii)


def test_report(mpii, coco, tmp_path):
    report = inspect_images(mpii)
    assert (report.format, report.people, report.images, report.gives) == ("mpii", 3, 1, "2D")
    assert report.annotated["LHip"] == pytest.approx(2 / 3, abs=1e-3) and report.annotated["RHip"] == 1
    assert report.sizes == [[64, 48, 1]] and report.boxes["median"] == 50 and not report.skipped
    report = inspect_images(coco)
    assert report.annotated["HeadTop"] == 0 and "HeadTop annotated for nobody" in report.notes
    (tmp_path / "val2017" / "8.jpg").unlink()
    write(tmp_path / "val2017" / "7.jpg", picture()[..., 0].copy())
    report = inspect_images(coco)
    assert report.people == 1 and report.grey == 1 and len(report.skipped) == 1
    assert "1 image can't be used: 8.jpg does not exist" in report.problems
    assert "1 image is grey, read as RGB with three equal channels" in report.notes
    text = str(report)
    assert "people     1 in 1 image; 2D" in text and "problem " in text
    json.dumps(report.to_dict(), allow_nan=False)


def test_report_of_a_folder_names_its_subfolders_alone(tmp_path):
    write(tmp_path / "in" / "a.png")
    assert inspect_images(tmp_path / "in").subjects == [] and "subjects" not in str(inspect_images(tmp_path / "in"))
    write(tmp_path / "in" / "anna" / "a.png")
    report = inspect_images(tmp_path / "in")
    assert report.subjects == ["anna"] and "\nsubjects   anna\n" in str(report)


def test_report_of_poses(tmp_path):
    arrays = spin_arrays(60)
    report = inspect_images(write_spin(tmp_path / "a.npz", **arrays))
    assert report.gives == "2D and 3D" and report.subjects == ["S1", "S2"] and report.body > 2.5
    arrays["S"][..., :3] *= 1000
    report = inspect_images(write_spin(tmp_path / "b.npz", **arrays))
    assert any("S may not be in metres" in problem for problem in report.problems)
    arrays = spin_arrays(60)
    arrays["S"][..., 1] *= -1
    arrays["part"][..., 1] = 48 - arrays["part"][..., 1]
    assert inspect_images(write_spin(tmp_path / "c.npz", **arrays)).people == 60


def test_report_of_mirrored_and_upside_down_people(tmp_path):
    from structloss.images.inspection import ImagesReport, _poses, _upright
    from structloss.images.joints import from_h36m

    legs = {"straight": 0.0, "bent": 0.3}
    pose = np.zeros((17, 3))
    pose[1], pose[4] = (-100, 0, 0), (100, 0, 0)
    for side, hip in ((1, -100), (4, 100)):
        pose[side + 1] = (hip, 400, -200)  # the knee in front
        pose[side + 2] = (hip, 800, 200)
    pose[7:] = [(0, -250, 0), (0, -500, 0), (0, -600, 0), (0, -700, 0), (200, -500, 0), (300, -250, 0), (300, 0, 0),
                (-200, -500, 0), (-300, -250, 0), (-300, 0, 0)]  # fmt: skip
    assert legs
    poses = np.repeat(from_h36m(pose)[None], 30, 0)
    for factor, wrong in ((1, False), (-1, True)):
        report = ImagesReport("", "", "", "")
        _poses(report, poses * [factor, 1, 1], False)
        assert any("knees bend forwards" in problem for problem in report.problems) == wrong
    joints = np.zeros((4, 16, 2))
    joints[:, 8, 1] = [-1, -1, -1, 5]
    assert _upright(joints, np.ones((4, 16), bool)).tolist() == [True, True, True, False]


def run(capsys, *arguments):
    code = main(["data", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_the_command(mpii, coco, tmp_path, capsys):
    code, out, err = run(capsys, "inspect", mpii)
    assert code == 0 and "mpii: MPII" in out and err == ""
    code, out, _ = run(capsys, "inspect", coco, "--images", tmp_path / "val2017", "--json")
    assert code == 0 and json.loads(out)["people"] == 2
    code, out, _ = run(capsys, "inspect", tmp_path / "images", "--no-upright")
    assert code == 0 and "no joints" in out
    (tmp_path / "val2017" / "8.jpg").unlink()
    code, out, _ = run(capsys, "inspect", coco)
    assert code == 0 and "8.jpg does not exist" in out
    code, out, err = run(capsys, "inspect", coco, "--missing", "error")
    assert code == 1 and "set --missing to 'skip'" in err and err.count("\n") == 1
    code, out, err = run(capsys, "inspect", coco, "--scale", "2")
    assert code == 1 and "--scale is given for" in err and "expected it with" in err
    code, out, err = run(capsys, "inspect", coco, "--joints", "spin")
    assert code == 1 and "--joints is given for" in err
    code, out, err = run(capsys, "inspect", mpii, "--format", "coco")
    assert code == 1 and err.count("\n") == 1
    code, out, _ = run(capsys, "formats")
    assert code == 0 and all(f"\n{name} " in out for name in SOURCES)
    (tmp_path / "x.json").write_text("{}")
    code, out, err = run(capsys, "inspect", tmp_path / "x.json")
    assert code == 1 and "is of no known format" in err


def test_the_page_lists_the_formats():
    page = (Path(__file__).resolve().parents[1] / "docs" / "images.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([\w-]+)` \|.*\| ([\w ]+) \|$", page.partition("\n## Images in\n")[2], re.MULTILINE)
    assert dict(table) == {name: source.gives for name, source in SOURCES.items()}


def test_motion_is_still_inspected(tmp_path, capsys):
    from structloss.data import generate_clips, save_archive

    save_archive(tmp_path / "a.npz", generate_clips(1, 1, 20, seed=0))
    code, out, _ = run(capsys, "inspect", tmp_path / "a.npz")
    assert code == 0 and "motions" in out
    code, _, err = run(capsys, "inspect", tmp_path / "a.npz", "--images", "x")
    assert code == 1 and "--images is given for" in err
    (tmp_path / "cut.json").write_text('{"images": [{"id": 1, "file_na')
    code, _, err = run(capsys, "inspect", tmp_path / "cut.json", "--images", "x")
    assert code == 1 and "cut.json is not valid JSON: " in err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(SOURCES) == 5

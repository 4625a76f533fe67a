"""`structloss predict` with shape templates: joints in images and videos, drawn over them, and what is refused."""

import json
import re

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("cv2")

from structloss import images
from structloss.commands.predict import PredictSettings, run_predict
from structloss.errors import ArgumentError
from structloss.harness.template_prediction import TemplateFinder, predict_joints
from structloss.harness.template_training import TemplateModule
from structloss.images.template_body import TEMPLATE_BODY
from structloss.shape_templates import JOINT_MIRROR, JOINTS, get

SMALL = {"input_size": 32, "regressor_widths": [8, 8, 8], "translator_widths": [8, 8], "hidden": 16}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """As `structloss fit` writes it, of a network that leaves the template where it is."""
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    module = TemplateModule(shape_network="shape-template-tiny", shape_network_args=SMALL)
    last = module.model.regressor.layers[-1][-1]
    torch.nn.init.zeros_(last.weight)
    content = {"pytorch-lightning_version": "2", "hyper_parameters": dict(module.hparams)}
    torch.save(content | {"state_dict": module.state_dict()}, path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for name, shape in (("a.png", (64, 64, 3)), ("b.png", (40, 60, 3))):
        pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
        images.write_picture(tmp_path / "frames" / name, pixels)
    return tmp_path


def expected(centre, side):
    """The template's joints in a square of an image."""
    anchors = np.array(get("natural").at(32).anchors)
    module = images.create("shape-template-tiny", **SMALL)
    joints = module.readout.numpy() @ anchors
    return (joints + 0.5 - 16) * side / 32 + np.array(centre) - 0.5


def test_joints_are_pixels_of_the_images(checkpoint, folder, capsys):
    out = folder / "out"
    run_predict(PredictSettings(input=str(folder / "frames"), ckpt=checkpoint, out=str(out)))
    assert sorted(path.name for path in out.iterdir()) == ["frames.json", "frames.npz", "overlay"]
    found = np.load(out / "frames.npz", allow_pickle=False)
    meta = json.loads(str(found["meta"]))
    assert found["keypoints"].shape == (2, 15, 2) and meta["joint_names"] == list(JOINTS)
    assert meta["images"] == ["a.png", "b.png"] and meta["template"] == "natural"
    # the whole image, in the middle of a square
    np.testing.assert_allclose(found["keypoints"][0], expected((32, 32), 64), atol=1e-3)
    np.testing.assert_allclose(found["keypoints"][1], expected((30, 20), 60), atol=1e-3)
    told = json.loads((out / "frames.json").read_text())
    np.testing.assert_allclose(told["keypoints"], found["keypoints"], atol=0.006)
    for name in ("a.png", "b.png"):
        before, after = ((folder / part / name).read_bytes() for part in ("frames", "out/overlay"))
        assert before != after
    assert "wrote" in capsys.readouterr().out


def test_a_box_is_seen_with_what_is_around_it(checkpoint, folder):
    path = folder / "joints.json"
    settings = PredictSettings(
        input=str(folder / "frames" / "a.png"), ckpt=checkpoint, json=str(path), box=(10.0, 20.0, 16.0, 24.0)
    )
    assert run_predict(settings) == [path]
    found = np.array(json.loads(path.read_text())["keypoints"])
    np.testing.assert_allclose(found[0], expected((18, 32), 1.25 * 24), atol=0.01)


def test_every_frame_of_people_in_order(moving):
    people = images.RenderedPeople(5, size=48, seed=2)
    together, apart = (predict_joints(moving, people, batch_size=size).keypoints for size in (5, 2))
    np.testing.assert_allclose(together, apart, atol=1e-3)
    assert together.std(0).max() > 1e-3  # each its own


@pytest.fixture(scope="module")
def moving():
    """A finder whose network moves each part somewhere else in every image."""
    model = images.create("shape-template-tiny", **SMALL).eval()
    with torch.no_grad():
        model.regressor.layers[-1][-1].weight.mul_(50)
    return TemplateFinder(model, "shape-template-tiny", "none.ckpt")


def test_flip_is_the_mean_with_the_mirrored_image_whose_sides_are_exchanged(moving, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for name, pixels in (("a.png", picture), ("b.png", picture[:, ::-1])):
        images.write_picture(tmp_path / name, pixels)
    people = images.open_images(tmp_path)
    (own, other), (averaged, mirrored) = (predict_joints(moving, people, flip=on).keypoints for on in (False, True))
    turned = other[list(JOINT_MIRROR)] * [-1, 1] + [31, 0]
    assert np.abs(own - turned).max() > 0.1  # the network is not symmetric
    np.testing.assert_allclose(averaged, (own + turned) / 2, atol=1e-4)
    np.testing.assert_allclose(mirrored[list(JOINT_MIRROR)] * [-1, 1] + [31, 0], averaged, atol=1e-4)


def test_flip_is_a_flag(checkpoint, folder):
    out = folder / "out.npz"
    run_predict(PredictSettings(input=str(folder / "frames"), ckpt=checkpoint, npz=str(out), flip=True))
    with np.load(out, allow_pickle=False) as found:
        assert json.loads(str(found["meta"]))["flip"] is True
        # the middle of the image: what lies right of it in one image lies left of it in the other
        np.testing.assert_allclose(found["keypoints"][0].mean(0)[0], 31.5, atol=0.01)


def test_the_body_that_is_drawn_has_two_sides():
    assert TEMPLATE_BODY.mirror == JOINT_MIRROR and len(TEMPLATE_BODY.bones) == 14
    names = {(JOINTS[child], JOINTS[parent]) for child, parent in TEMPLATE_BODY.bones}
    assert {("wristL", "elbowL"), ("shoulderR", "chest"), ("ankleR", "kneeR"), ("neck", "chest")} <= names


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"out": None}, "expected a folder for --out, or a file for --npz, --json or --overlay."),
        ({"bvh": "a.bvh"}, "--bvh is 'a.bvh', expected it with a network that answers in 3D"),
        ({"refine": "tpnet.ckpt"}, "--refine is 'tpnet.ckpt', expected it with a network that answers in 3D"),
        ({"floor": True}, "--floor is given, expected it with a network that answers in 3D"),
        ({"layout": "coco"}, "--layout is 'coco' with a network from images"),
        ({"json": "a.txt"}, "--json is 'a.txt', expected a name that ends in .json"),
    ],
)
def test_what_shape_templates_have_no_use_for(checkpoint, folder, more, words):
    with pytest.raises(ArgumentError, match=re.escape(words)):
        run_predict(
            PredictSettings(**{"input": str(folder / "frames"), "ckpt": checkpoint, "out": str(folder / "out")} | more)
        )
    assert not (folder / "out").exists()


def test_json_is_of_shape_templates(folder):
    settings = PredictSettings(input=str(folder), backbone="repose-tiny", weights="x.pth", json="a.json")
    with pytest.raises(ArgumentError, match=r"--json is 'a\.json', expected it with a network of shape templates"):
        run_predict(settings)

"""Networks as files: they give what the network gives and say what they are of, and nothing wrong is written.

One variant of each family of networks is exported; families of one class (MotionBERT and RePOSE) once. `torch.export`
itself is tested with the networks.
"""

import csv
import errno
import json
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from structloss import backbones, images, render_parts, shape_templates, skeletons
from structloss.cli import main
from structloss.errors import (
    ArgumentError,
    BackendError,
    CheckpointError,
    DtypeError,
    MissingDependencyError,
    UnknownNameError,
)
from structloss.export import export
from structloss.export.ports import Case, Port
from structloss.refine import LSTMRefiner, TPNet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "without_torch.py"

#: what is exported -> arguments that make it small, with all kinds of its levels
BACKBONES = {
    "d3dp-ddim-tiny": {"depth": 1},
    "jointformer-h36m": {"depth": 2},
    "jointformer-h36m-refine": {"depth": 1, "dim_feat": 64},
    "ktpformer-27": {"depth": 1, "frames": 9, "embed_dim": 64},
    "mhformer-27": {"depth": 1, "mhg_depth": 1, "frames": 9, "dim": 64, "hidden": 64},
    "mixste-27": {"depth": 1, "frames": 9, "embed_dim": 64},
    "motionagformer-xsmall": {"depth": 1, "frames": 9},
    "poseformer-27": {"depth": 1},
    "poseformerv2-27-1-3": {"depth": 1},
    "pstmo-refine": {},
    "pstmo-s-3dhp-81": {"depth": 1, "frames": 9, "strides": (3, 3)},
    "repose-tiny": {"depth": 1},
    "semgcn-nonlocal": {"depth": 1},
    "simplebaseline-16j": {"depth": 1, "linear_size": 64},
    "stcformer-27": {"depth": 1},
    "videopose3d-27": {"channels": 64},
}
ELSEWHERE = {"lift": "the example", "motionbert": "the class of repose", "pstmo-pretrain": "gives no poses"}
IMAGES = {
    "sapnet-tiny": {"stacks": 1, "modules": 1, "depth_modules": 1, "features": 16, "levels": 2, "input_size": 32},
    "shape-template-tiny": {},
}


def noisy(network):
    """With weights that leave nothing at zero, which would hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def facts_of(path):
    return session_of(path).get_modelmeta().custom_metadata_map


def run(path, inputs):
    return session_of(path).run(None, {name: value.numpy() for name, value in inputs.items()})


def assert_close(got, want):
    assert got.shape == tuple(want.shape)
    assert float(np.abs(got - want.numpy()).max()) <= 1e-4 * float(want.abs().max())


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)) / 2


def test_every_family_is_exported():
    known = {(backbones.info(name).family, backbones.info(name).kind) for name in BACKBONES}
    for name in backbones.names():
        about = backbones.info(name)
        key = "pstmo-pretrain" if about.kind == "pretrain" else about.family
        assert (about.family, about.kind) in known or key in ELSEWHERE, name
    assert {images.info(name).family for name in images.names()} - {"sapnet", "shape-template-legacy"} == {
        images.info(name).family for name in IMAGES
    } - {"sapnet"}


#: the cut of `make check` has these; torch's exporter takes seconds for each
QUICK = ("simplebaseline-16j", "videopose3d-27")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow(seconds=5)) for name in BACKBONES]
)
def test_backbones(name, tmp_path):
    """With batches and lengths that were neither traced nor compared when the file was written."""
    network = noisy(backbones.create(name, **BACKBONES[name]))
    about = backbones.info(name)
    written = export(network, tmp_path / "it.onnx", name, target="global", licence="mine")
    free = network.shortest != network.longest
    frames = network.shortest + 7 if free else network.frames
    joints = network.joints[0]
    x = random(4, frames, joints, network.channels)
    if network.kind == "refine" and about.family == "jointformer":
        inputs = {"features": x}
    elif name == "pstmo-refine":
        inputs = {"poses": x, "reprojected": 0.9 * x.flip(0)}
    elif about.family == "d3dp":
        inputs = {"keypoints": x, "noisy": random(4, frames, joints, 3), "timestep": torch.tensor([0, 5, 500, 999])}
    else:
        inputs = {"keypoints": x}
    with torch.no_grad():
        want = network(*inputs.values())
    (got,) = run(written.path, inputs)
    assert_close(got, want)

    session, facts = session_of(written.path), facts_of(written.path)
    assert [i.name for i in session.get_inputs()] == [port.name for port in written.inputs] == list(inputs)
    assert [o.name for o in session.get_outputs()] == ["refined" if name == "pstmo-refine" else "poses"]
    for port, value in zip(session.get_inputs(), inputs.values(), strict=True):
        assert [isinstance(axis, str) for axis in port.shape][: value.dim()] == [True, free, False, False][
            : value.dim()
        ]
    assert facts == dict(written.facts) and facts["network"] == name and facts["licence"] == "mine"
    assert facts["opset"] == "18" and facts["structloss"] == "0.1.0" and facts["target"] == "global"
    assert "screen" in facts["normalisation"]
    names = json.loads(facts["joints_out"])
    assert len(names) == want.shape[2] and names[0] == skeletons.get(about.skeleton).joint_names[0]
    root = "Pelvis" if about.skeleton == "mpi_inf_3dhp" else "Hip"
    assert facts["units"].startswith("standard" if name == "simplebaseline-16j" else "image space") and root in names
    assert f"the joint {root}" in facts["units"]
    assert json.loads(facts["inputs"])[0]["name"] == next(iter(inputs))
    model = onnx.load(written.path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18
    assert b"/structloss/" not in written.path.read_bytes(), "no paths of the machine that it was written on"


def test_a_network_from_images_with_its_poses(tmp_path):
    network = noisy(images.create("sapnet-tiny", **IMAGES["sapnet-tiny"]))
    written = export(network, tmp_path / "it.onnx", "sapnet-tiny", colours="bgr")
    picture = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        heatmaps, depth = network(picture.flip(1))  # weights that were trained on BGR, an image in RGB
    found = run(written.path, {"image": picture})
    for got, want in zip(found, (heatmaps[-1], depth), strict=False):
        assert_close(got, want)
    assert_close(found[2], images.decode(heatmaps, depth, unit="pixels"))
    assert_close(found[3], images.decode(heatmaps, depth))
    assert [port.name for port in written.outputs] == ["heatmaps", "depth", "joints", "poses"]
    facts = facts_of(written.path)
    assert json.loads(facts["joints_out"])[6] == "Pelvis" and facts["normalisation"].startswith("RGB, 0 to 1")


def test_a_network_of_shape_templates(tmp_path):
    """Without what it draws, which only training needs."""
    network = noisy(images.create("shape-template-tiny"))
    written = export(network, tmp_path / "it.onnx", "shape-template-tiny")
    picture = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = network(picture)
    joints, anchors = run(written.path, {"image": picture})
    assert_close(joints, want.joints)
    assert_close(anchors, want.anchors)
    assert json.loads(facts_of(written.path)["joints_out"]) == list(shape_templates.JOINTS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TPNet(root=0, hidden=32, past=3, future=2, residual=True, border="zero"),
        lambda: LSTMRefiner(root=0, hidden=16, bidirectional=True, past=1, future=1),
    ],
    ids=["tpnet", "lstm"],
)
def test_refiners(make, tmp_path):
    network = noisy(make())
    written = export(network, tmp_path / "it.onnx", "mine")
    for batch, frames in ((3, 30), (1, 1)):
        poses = random(batch, frames, 17, 3)
        with torch.no_grad():
            assert_close(run(written.path, {"poses": poses})[0], network(poses))


def test_a_refiner_of_a_fixed_length_takes_any_batch(tmp_path):
    network = noisy(TPNet(root=0, hidden=8, past=1))
    program = torch.export.load(export(network, tmp_path / "it.pt2", "mine", format="torch-export", frames=5).path)
    for batch in (1, 6):
        poses = random(batch, 5, 17, 3)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(poses=poses), network(poses))


def test_a_network_that_onnx_unrolls_has_a_fixed_length(tmp_path):
    network = noisy(LSTMRefiner(hidden=8))
    with pytest.raises(ArgumentError, match=r"^frames is None, expected a number: ONNX has mine frame by frame"):
        export(network, tmp_path / "it.onnx", "mine")
    assert not list(tmp_path.iterdir())
    written = export(network, tmp_path / "it.onnx", "mine", frames=2)
    poses = random(3, 2, 17, 3)
    with torch.no_grad():
        assert_close(run(written.path, {"poses": poses})[0], network(poses))


def test_a_program_of_torch(tmp_path):
    network = noisy(backbones.create("lift-27", channels=16))
    written = export(network, tmp_path / "it.pt2", "lift-27", format="torch-export")
    extra = {"structloss.json": ""}
    program = torch.export.load(written.path, extra_files=extra)
    facts = json.loads(extra["structloss.json"])
    assert facts["least_frames"] == "28" and facts == dict(written.facts) and "torch" in facts
    for frames in (28, 60):
        x = random(2, frames, 17, 3)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(keypoints=x), network(x))


def test_the_network_stays_as_it_is(tmp_path):
    network = backbones.create("lift-s", channels=16, gradient_checkpointing=True)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    export(network, tmp_path / "it.pt2", "lift-s", format="torch-export", frames=1, licence="\udcff")
    assert network.training and network.gradient_checkpointing and network.embed.weight.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# ------------------------------------------------------------------------------------------------------------- refused
def lift(**changes):
    return backbones.create("lift-s", channels=16, depth=1, **changes)


def spoilt():
    network = lift()
    network.head.bias.data[3] = float("nan")
    return network


def meta():
    with torch.device("meta"):
        return lift()


PRETRAIN = "pstmo-pretrain-s-3dhp-81"
WRONG = {
    "nan": (spoilt, {}, ArgumentError, "model has NaN or infinite values in head.bias, expected weights."),
    "double": (lambda: lift().double(), {}, DtypeError, "model has dtype torch.float64 in embed.weight"),
    "meta": (meta, {}, ArgumentError, "model has no values in embed.weight, which is on the device meta"),
    "no module": (lambda: "lift-s", {}, ArgumentError, "model is a str, expected one of structloss.backbones"),
    "another": (lambda: torch.nn.Linear(2, 2), {}, ArgumentError, "model is a Linear, expected a network of"),
    "no poses": (lambda: backbones.create(PRETRAIN), {"name": PRETRAIN}, ArgumentError, f"model is {PRETRAIN}, for"),
    "name": (lift, {"name": "lft-s"}, UnknownNameError, "unknown backbone 'lft-s': did you mean 'lift-s'"),
    "other": (lift, {"name": "mixste-27"}, ArgumentError, "model is a Lift, expected a MixSTE, which mixste-27 is."),
    "skeleton": (lift, {"skeleton": "h37m"}, UnknownNameError, "unknown skeleton 'h37m': did you mean 'h36m'"),
    "target": (lift, {"target": "world"}, ArgumentError, "target is 'world', expected one of 'camera'"),
    "format": (lift, {"format": "tflite"}, ArgumentError, "format is 'tflite', expected one of 'onnx', 'torch-export'"),
    "frames": (lift, {"frames": 0}, ArgumentError, "frames is 0, expected 1 to 10000 for this network."),
    "too many": (lift, {"frames": 10**9}, ArgumentError, "frames is 1000000000, expected 1 to 10000 for this network."),
    "colours": (lift, {"colours": "bgr"}, ArgumentError, "colours is 'bgr', expected it with networks that take"),
    "ending": (
        lift,
        {"path": "it.pt2"},
        ArgumentError,
        "path is 'it.pt2', expected a name that ends in .onnx for onnx.",
    ),
    "folder": (lift, {"path": "folder.onnx"}, ArgumentError, "path is 'folder.onnx', a folder, expected the name of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(case, tmp_path, monkeypatch):
    make, changes, kind, message = WRONG[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    given = {"path": "it.onnx", "name": "lift-s", **changes}
    with pytest.raises(kind) as raised:
        export(make(), given.pop("path"), given.pop("name"), **given)
    assert str(raised.value).startswith(message) and len(str(raised.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_a_fixed_length_is_told_where_it_is_the_only_one(tmp_path):
    network = backbones.create("mixste-27", depth=1, embed_dim=16)
    with pytest.raises(ArgumentError, match=r"^frames is 10, expected 27 for this network\.$"):
        export(network, tmp_path / "it.onnx", "mixste-27", frames=10)


def test_an_operator_that_onnx_lacks():
    from structloss.export.onnx_file import OnnxFile

    class Draws(torch.nn.Module):
        def forward(self, image):
            return render_parts(image, "natural", 8)

    def make(batch, frames):
        return {"image": torch.zeros(batch, 18, 2, 3)}

    case = Case(
        Draws(), [Port("image", ("batch", 18, 2, 3), "")], [Port("parts", ("batch", 18, 8, 8), "")], make, frames=1
    )
    with pytest.raises(BackendError) as raised:
        OnnxFile(case, "drawing")
    assert "drawing can't be written as ONNX, which has no operator for structloss" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    from structloss.export.torch_file import TorchFile

    right = TorchFile.loaded

    def wrong(self, path):
        return lambda inputs: [value + 0.01 for value in right(self, path)(inputs)]

    monkeypatch.setattr(TorchFile, "loaded", wrong)
    with pytest.raises(
        BackendError, match=r"^lift-s gives poses that differ by .* from its file, expected at most 0.0001"
    ):
        export(lift().eval(), tmp_path / "it.pt2", "lift-s", format="torch-export", frames=1)
    assert not list(tmp_path.iterdir())


@contextmanager
def small_disk(limit):
    before, previous = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)


def test_a_full_disk_leaves_what_was_there(tmp_path, capsys):
    out = tmp_path / "it.pt2"
    out.write_text("before")
    with small_disk(4096):
        assert (
            main(["backbones", "export", "lift-s", "--frames", "1", "--format", "torch-export", "--out", str(out)]) == 1
        )
    assert "it.pt2 can't be written or read: " in capsys.readouterr().err
    assert out.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["it.pt2"]
    assert errno.EFBIG  # what a limit gives, as a full disk gives ENOSPC


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "structloss.export.onnx_file", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="onnxruntime is not installed, expected the onnx extra"):
        export(lift(), tmp_path / "it.onnx", "lift-s")


# ------------------------------------------------------------------------------------------------------------- command
@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["mixste-27"],
            "--ckpt is not given, expected a file of weights of mixste-27; those of lift-27 and lift-s come",
        ),
        (["lft-27"], "unknown network 'lft-27': did you mean 'lift-27'"),
        (["lift-27", "--ckpt", "gone.ckpt"], "--ckpt: gone.ckpt does not exist, expected a checkpoint file."),
        (["lift-27", "--ckpt", "text.ckpt"], "--ckpt: text.ckpt is damaged, truncated or no PyTorch file"),
        (["lift-27", "--ckpt", "LIFT_S"], "name is 'lift-27', expected 'lift-s', which "),
        (["sapnet-tiny"], "--ckpt is not given, expected a file of weights of sapnet-tiny"),
        (["tpnet"], "--ckpt is not given, expected a file of weights of tpnet"),
        (["lift-27", "--frames", "9"], "--frames is 9, expected 27 to 10000 for this network."),
        (["lift-27", "--target", "world"], "--target is 'world', expected one of"),
        (["lift-27", "--colours", "bgr"], "--colours is 'bgr', expected none with a lifting network."),
        (["lift-27", "--out", "there.onnx"], "--out is 'there.onnx', a folder, expected the name of a file to write."),
        (["lift-27", "--out", ""], "--out is '.', a folder, expected the name of a file to write."),
        (["lift-27", "--backbone-args", "{depth: 2}"], "--backbone-args is {'depth': 2}, expected {}, as "),
        (["lift-27", "--out", "it.tflite"], "--out is 'it.tflite', expected a name that ends in .onnx for onnx."),
        (["lift-27", "--out", "text.ckpt/it.onnx"], "text.ckpt"),
    ],
)
def test_wrong_commands(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").mkdir()
    (tmp_path / "text.ckpt").write_text("no weights")
    lift_s = str(backbones.pretrained_file("lift-s"))
    assert main(["backbones", "export", *(lift_s if word == "LIFT_S" else word for word in arguments)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("structloss: error: ") and message in said and len(said.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"there.onnx", "text.ckpt"}


def test_checkpoints_of_fit(tmp_path):
    """They say what they are of: backbones with their target, networks from images, refiners."""
    pytest.importorskip("lightning")
    from structloss.harness.image_training import ImageModule
    from structloss.harness.lifting import LiftingModule
    from structloss.harness.refining import RefineModule
    from structloss.harness.trained_network import trained_network

    modules = {
        "lift-s": LiftingModule(backbone="lift-s", backbone_args={"channels": 16}, target="root_relative"),
        "sapnet-tiny": ImageModule(network="sapnet-tiny"),
        "tpnet": RefineModule(refiner="tpnet", refiner_args={"hidden": 8}, past=2),
    }
    for name, module in modules.items():
        path = tmp_path / f"{name}.ckpt"
        content = {"pytorch-lightning_version": "2.6.0", "epoch": 1, "global_step": 2}
        hyper = dict(module.hparams.items())
        torch.save({**content, "state_dict": module.state_dict(), "hyper_parameters": hyper}, path)
        found = trained_network(name, path)
        assert found.name == name and not found.packaged and found.source == path.name and found.colours == "rgb"
        for key, value in module.model.state_dict().items():
            assert torch.equal(found.model.state_dict()[key], value)
    assert trained_network("lift-s", tmp_path / "lift-s.ckpt").target == "root_relative"
    assert trained_network("lift-s", tmp_path / "lift-s.ckpt", target="camera").target == "camera"
    assert trained_network("tpnet", tmp_path / "tpnet.ckpt").skeleton == "h36m"
    for name, path, message in (
        ("lift-27", "lift-s.ckpt", "is of lift-s, expected a checkpoint of lift-27"),
        ("sapnet", "sapnet-tiny.ckpt", "is of sapnet-tiny, expected a checkpoint of sapnet"),
        ("lstm", "tpnet.ckpt", "is of tpnet, expected a checkpoint of lstm"),
        ("lift-s", "tpnet.ckpt", "is of a refiner of 3D poses, expected a checkpoint of a lifting network"),
    ):
        with pytest.raises(CheckpointError, match=message):
            trained_network(name, tmp_path / path)
    with pytest.raises(ArgumentError, match=r"backbone_args is {'depth': 2}, expected none"):
        trained_network("lift-s", tmp_path / "lift-s.ckpt", backbone_args={"depth": 2})


def test_published_weights_from_images_see_blue_first(tmp_path):
    from structloss.harness.trained_network import trained_network

    path = images.save_checkpoint(images.create("sapnet-tiny"), tmp_path / "it.safetensors")
    assert trained_network("sapnet-tiny", path).colours == "bgr"
    assert trained_network("sapnet-tiny", path, colours="rgb").colours == "rgb"


def test_the_weights_in_the_box_run_without_torch(tmp_path, monkeypatch, capsys):
    """The command, then the example in a process in which neither torch nor structloss can be imported."""
    monkeypatch.chdir(tmp_path)
    assert main(["backbones", "export", "lift-27"]) == 0
    assert "written to lift-27.onnx" in capsys.readouterr().out
    facts = facts_of("lift-27.onnx")
    assert facts["licence"] == "Apache-2.0" and facts["weights"] == "lift-27.safetensors" and facts["centre"] == "13"

    frames, width, height = 40, 1000, 800
    pixels = 400 + 200 * random(frames, 17, 2).numpy()
    confidence = np.abs(random(frames, 17).numpy()).clip(0, 1)
    confidence[::5, 3] = 0
    meta = json.dumps({"width": width, "height": height})
    np.savez("person.npz", keypoints=pixels, confidence=confidence, meta=meta)
    blocked = "import runpy, sys; sys.modules.update(torch=None, structloss=None, lightning=None); "
    code = f"{blocked}sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(EXAMPLE), "lift-27.onnx", "person.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "40 poses of 17 joints" in done.stdout

    from structloss.data import normalize_screen

    screen = np.concatenate([normalize_screen(pixels, width, height), confidence[..., None]], axis=-1)
    model = backbones.create("lift-27", pretrained=True).eval()
    want = backbones.predict_video(model, torch.from_numpy(screen).float(), flip=False)
    assert float(np.abs(np.load("poses.npy") - want.numpy()).max()) <= 1e-4


def test_the_example_is_short():
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").split('"""', 2)[2].splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("#")]) <= 22


def test_the_benchmark(tmp_path, capsys):
    from bench import export as benchmark

    threads, path = torch.get_num_threads(), tmp_path / "rows.csv"
    arguments = ["--networks", "lift-s", "--threads", "1", "--rounds", "3", "--budget", "1", "--csv", str(path)]
    try:
        assert benchmark.main([*arguments, "--loaded"]) == 0, capsys.readouterr().err
    finally:
        torch.set_num_threads(threads)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["provider"] for row in rows] == ["eager", "onnxruntime"]
    for row in rows:
        assert 0 < float(row["p20"]) <= float(row["p50"]) <= float(row["p80"]) and row["note"] == "loaded machine"
        assert row["op"] == "export lift-s" and f"onnxruntime {onnxruntime.__version__}" in row["versions"]
    assert "| lift-s | 1 | 1 |" in capsys.readouterr().out

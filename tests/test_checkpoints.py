"""Published checkpoints: what is accepted, what is refused, and that nothing is ever executed or half loaded."""

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from golden.fill import fill_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

from structloss import backbones
from structloss.errors import ArgumentError, CheckpointError, MissingFileError, UnknownNameError

NAME = "repose-tiny"


@pytest.fixture
def source():
    model = backbones.create(NAME)
    fill_state_dict(model.state_dict())
    return model


@pytest.fixture
def target():
    return backbones.create(NAME)


def prefixed(model, prefix):
    return OrderedDict((prefix + key, value) for key, value in model.state_dict().items())


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def refused(model, what, message, **kwargs):
    """Loading raises one sentence that matches, and leaves the model as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as raised:
        backbones.load_published(model, what, **kwargs)
    text = str(raised.value)
    assert text.endswith(".") and "\n" not in text
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return text


# Accepted forms


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "model.module.", "model._orig_mod."])
@pytest.mark.parametrize("container", [None, "model_pos", "state_dict"])
def test_prefixes_and_containers(source, target, prefix, container):
    weights = prefixed(source, prefix)
    report = backbones.load_published(target, {container: weights, "epoch": 3} if container else weights)
    assert same(source, target)
    assert report.complete and report.loaded == len(weights) and report.prefix == prefix


@pytest.mark.parametrize("legacy", [False, True])
def test_official_file_with_optimizer_and_random_state(source, target, tmp_path, legacy):
    source(torch.rand(1, 3, 17, 3)).sum().backward()
    optimizer = torch.optim.AdamW(source.parameters())
    optimizer.step()
    generator = np.random.RandomState(1)
    generator.normal()
    content = {
        "epoch": 60,
        "lr": np.float64(1e-4),
        "optimizer": optimizer.state_dict(),
        "min_loss": np.float32(37.2),
        "random_state": generator,
        "history": np.arange(4.0),
        "model_pos": prefixed(source, "module."),
    }
    path = tmp_path / "best_epoch.bin"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(pickle.UnpicklingError):  # the file does hold what PyTorch's default list refuses
        torch.load(path, weights_only=True)
    report = backbones.load_published(target, path)
    assert same(source, target) and str(path) in str(report) and "module." in str(report)


@pytest.mark.parametrize("bits", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_states_of_numpy_generators_are_skipped(source, target, tmp_path, bits):
    """RandomState's successors, whose pickles also name the seed sequence they grew from."""
    generator = np.random.Generator(getattr(np.random, bits)(3))
    state = {"rng": generator, "seeds": np.random.SeedSequence(5), "children": generator.spawn(1)}
    path = tmp_path / "w.bin"
    torch.save({"state_dict": source.state_dict(), **state}, path)
    report = backbones.load_published(target, path)
    assert report.complete and same(source, target)


def test_names_of_older_numpy_are_known(source, target, tmp_path):
    """Published files name NumPy 1's modules; today's NumPy can't write them, so the names are put in place."""
    path = tmp_path / "old.pth"
    torch.save({"state_dict": source.state_dict(), "err": np.float64(1.0)}, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    for old in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        if old in written:
            path.write_bytes(written.replace(old, b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in path.read_bytes()
    backbones.load_published(target, path)
    assert same(source, target)


def test_allowing_numpy_ends_with_the_call(source, target, tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": source.state_dict()}, path)
    before = set(torch.serialization.get_safe_globals())
    backbones.load_published(target, path)
    assert set(torch.serialization.get_safe_globals()) == before


def test_lightning_checkpoint_with_other_entries(source, target, tmp_path):
    weights = prefixed(source, "model.") | {"objective.weights": torch.ones(3)}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": weights, "pytorch-lightning_version": "2.6.0", "loops": {}}, path)
    report = backbones.load_published(target, path)
    assert same(source, target) and report.ignored == 1 and "1 entries outside 'model.'" in str(report)


def test_half_precision_weights_keep_the_models_dtype(source, target):
    backbones.load_published(target, {key: value.half() for key, value in source.state_dict().items()})
    torch.testing.assert_close(target.head.weight, source.head.weight, rtol=1e-3, atol=1e-4)
    assert target.head.weight.dtype == torch.float32


def test_files_without_batch_counters():
    source, target = (backbones.create("simplebaseline-semgcn", linear_size=8) for _ in range(2))
    old = {key: value for key, value in source.state_dict().items() if "num_batches" not in key}
    assert backbones.load_published(target, old).complete
    assert same(source, target)


def test_not_strict_loads_what_fits(source, target):
    weights = source.state_dict()
    del weights["norm.weight"]
    weights["norm.bias"] = torch.zeros(3)
    weights["extra"] = torch.zeros(1)
    before = target.norm.bias.clone()
    report = backbones.load_published(target, weights, strict=False)
    assert report.missing == ("norm.weight",) and report.unexpected == ("extra",) and not report.complete
    assert report.mismatched == (("norm.bias", (3,), (64,)),)
    assert report.loaded == len(source.state_dict()) - 2
    assert torch.equal(target.head.weight, source.head.weight) and torch.equal(target.norm.bias, before)
    for line in (
        "1 missing from the checkpoint: norm.weight",
        "1 not in the model: extra",
        "norm.bias [3], expected [64]",
    ):
        assert line in str(report)


# Refused


class Harmful:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "system"), (eval, "eval"), (exec, "exec"), (np.load, "numpy.load")]
)
@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_is_refused_and_not_run(source, target, tmp_path, function, name, legacy):
    trace = tmp_path / "trace"
    command = {"system": f"touch {trace}"}.get(name, f"open({str(trace)!r}, 'w')")
    path = tmp_path / "bad.pth"
    content = {"model_pos": prefixed(source, "module."), "extra": Harmful(function, command)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    text = refused(target, path, f"bad.pth refers to .*{name}")
    assert "running code" in text and not trace.exists()


def test_plain_pickle_is_refused(target, tmp_path):
    path = tmp_path / "bad.pth"
    path.write_bytes(pickle.dumps(Harmful(os.system, f"touch {tmp_path / 'trace'}"), protocol=2))
    refused(target, path, "bad.pth refers to .*system")
    assert not (tmp_path / "trace").exists()


def test_missing_file_and_directory(target, tmp_path):
    with pytest.raises(MissingFileError, match=r"nothing\.pth does not exist, expected a checkpoint file\."):
        backbones.load_published(target, tmp_path / "nothing.pth")
    refused(target, tmp_path, "is a directory, expected a checkpoint file")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_file(source, target, tmp_path, form, share):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(target, path, r"w\.(pth is damaged, truncated|safetensors is not a readable safetensors file)")


def test_compressed_members_are_not_unpacked(source, target, tmp_path):
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as stored, zipfile.ZipFile(tmp_path / "c.pth", "w", 8) as small:
        for name in stored.namelist():
            small.writestr(name, stored.read(name))
    refused(target, tmp_path / "c.pth", r"c\.pth has '.+' in it compressed, expected a file as torch\.save writes it")
    target.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))


def test_random_bytes(target, tmp_path):
    path = tmp_path / "noise.pth"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    refused(target, path, "noise.pth is damaged, truncated or no PyTorch file")


def test_another_model(source, tmp_path):
    wide = backbones.create(NAME, dim_feat=32)
    text = refused(
        wide, source.state_dict(), "state_dict is not a checkpoint of this DSTformer: [0-9]+ of 110 keys match"
    )
    assert "has shape [1, 243, 1, 64], expected [1, 243, 1, 32]" in text
    other = backbones.create("simplebaseline", linear_size=8)
    path = tmp_path / "w.pth"
    torch.save(source.state_dict(), path)
    text = refused(
        other, path, "is not a checkpoint of this SimpleBaseline: 0 of 37 keys match, for example w1.weight is"
    )
    assert "temp_embed is not in the model" in text
    refused(other, path, "0 of 37 keys match", strict=False)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"epoch": 3, "model_pos": {"a": 1}}])
def test_nothing_to_load(target, content):
    refused(target, content, "state_dict holds no tensors, expected a dictionary of weights")


def test_an_unknown_container_is_named(source, target):
    text = refused(target, {"epoch": 3, "net": source.state_dict()}, "holds its tensors in 'net', expected")
    assert "model_pos or state_dict" in text


def test_not_a_dictionary(target, tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    refused(target, tmp_path / "w.pth", "w.pth holds a Tensor, expected a dictionary of weights")


def test_integers_do_not_become_weights(source, target):
    weights = source.state_dict() | {"head.bias": torch.zeros(3, dtype=torch.int64)}
    refused(target, weights, "head.bias has dtype torch.int64, expected torch.float32")
    report = backbones.load_published(target, weights, strict=False)
    assert report.miscast == (("head.bias", torch.int64, torch.float32),) and not report.mismatched
    assert not report.complete and "1 of another dtype: head.bias torch.int64, expected torch.float32" in str(report)


# Writing


@pytest.mark.parametrize("name", [NAME, "simplebaseline-semgcn"])
def test_save_and_load_round_trip(tmp_path, name):
    model, other = backbones.create(name), backbones.create(name)
    path = backbones.save_checkpoint(model, tmp_path / "w.safetensors", {"backbone": name, "epoch": 3})
    assert backbones.load_published(other, path).complete and same(model, other)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"backbone": name, "epoch": "3"}
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_failed_write_leaves_the_old_file(source, tmp_path, monkeypatch):
    path = backbones.save_checkpoint(source, tmp_path / "w.safetensors")
    old = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        backbones.save_checkpoint(backbones.create(NAME), path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["w.safetensors"]


def test_shared_tensors_are_written(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    path = backbones.save_checkpoint(model, tmp_path / "w.safetensors")
    assert backbones.load_published(model, path).loaded == 4


def test_save_refuses_bad_paths(source, tmp_path):
    with pytest.raises(ArgumentError, match=r"path is .*w\.pth', expected a name that ends in \.safetensors"):
        backbones.save_checkpoint(source, tmp_path / "w.pth")
    with pytest.raises(MissingFileError, match="does not exist, expected the directory"):
        backbones.save_checkpoint(source, tmp_path / "no" / "w.safetensors")


def test_convert(source, target, tmp_path):
    torch.save({"model_pos": prefixed(source, "module.")}, tmp_path / "official.bin")
    report = backbones.convert(tmp_path / "official.bin", tmp_path / "ours.safetensors", NAME)
    assert report.complete
    backbones.load_published(target, tmp_path / "ours.safetensors")
    assert same(source, target)
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata()["backbone"] == NAME and file.metadata()["source"] == "official.bin"
    with pytest.raises(UnknownNameError, match="repose-tiny"):
        backbones.convert(tmp_path / "official.bin", tmp_path / "x.safetensors", "repose-tini")
    with pytest.raises(CheckpointError, match="is not a checkpoint of this SimpleBaseline"):
        backbones.convert(tmp_path / "official.bin", tmp_path / "x.safetensors", "simplebaseline")
    assert not (tmp_path / "x.safetensors").exists()

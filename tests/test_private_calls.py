"""What is not part of the public interface of torch, Lightning and others, and is used all the same.

One test per private name: that it is there, takes what it is given and still does what it is used for. The first test
reads the sources, so that a new private name needs a line here. A version of Lightning or torch that fails one of these
must not be allowed by pyproject.toml before the place that is named is mended.
"""

import argparse
import ast
import contextlib
import ctypes
import importlib
import inspect
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
#: private names in the sources, and the test below that watches over each
WATCHED = {
    "argparse._SubParsersAction": "test_argparse_parsers_of_commands",
    "action._name_parser_map": "test_argparse_parsers_of_commands",
    "parser._actions": "test_argparse_parsers_of_commands",
    "library._name": "test_ctypes_name_of_a_library",
    "nn.modules.batchnorm._BatchNorm": "test_torch_base_of_batch_norms",
    "torch.nn.modules.batchnorm._BatchNorm": "test_torch_base_of_batch_norms",
    "Objective._buffers": "test_torch_where_a_module_keeps_its_tensors",
    "Objective._parameters": "test_torch_where_a_module_keeps_its_tensors",
    "TemplateNetwork._apply": "test_torch_modules_move_by_apply",
    "Sums._apply": "test_torchmetrics_move_their_states_by_apply",
    "torch._C": "test_torch_keep_graph",
    "torch._C._are_functorch_transforms_active": "test_torch_whether_a_transform_is_active",
    "torch._C._autograd": "test_torch_keep_graph",
    "forward_ad._current_level": "test_torch_whether_forward_mode_is_active",
    "function._dynamo_marked_constant": "test_torch_mark_of_constants",
    "native._packet_creator": "test_mediapipe_native_module",
    "native._packet_getter": "test_mediapipe_native_module",
    "packets._create_image_frame_from_pixel_data": "test_mediapipe_native_module",
    "answers._get_serialized_proto": "test_mediapipe_native_module",
    "loop._data_fetcher": "test_lightning_whether_a_validation_comes_next",
    "loop.epoch_loop._should_check_val_fx": "test_lightning_whether_a_validation_comes_next",
    "trainer._logger_connector": "test_lightning_row_of_a_step",
    "RunLogger._experiment": "test_lightning_csv_logger",
    "RunLogger._fs": "test_lightning_csv_logger",
    "RunLogger._version": "test_lightning_csv_logger",
    "_Writer._check_log_dir_exists": "test_lightning_csv_writer",
    "_Writer._rewrite_with_new_header": "test_lightning_csv_writer",
    "_CLI._parse_ckpt_path": "test_lightning_cli_path_of_a_checkpoint",
    "_CLI._parser": "test_lightning_cli_parser",
    "_CLI._prepare_subcommand_kwargs": "test_lightning_cli_arguments_of_a_subcommand",
    "_CLI._run_subcommand": "test_lightning_cli_run_of_a_subcommand",
}
#: with an underscore in front, and documented all the same
DOCUMENTED = {"os._exit"}


def _private(name):
    return name.startswith("_") and not name.startswith("__")


@cache
def _of_a_base(base):
    """Private names of a class that is not ours; many of ours have the same bases."""
    names = set(filter(_private, vars(base)))
    with contextlib.suppress(OSError, TypeError):  # written in C
        names |= set(re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(base)))
    return names


def _theirs(cls):
    """Private names of the bases of a class that are not ours."""
    bases = inspect.getmro(cls)[1:]
    foreign = (b for b in bases if b.__module__.partition(".")[0] not in ("structloss", "builtins", "typing", "abc"))
    return set().union(*map(_of_a_base, foreign))


def _attributes(node, of):
    """Attributes with an underscore of what `of` lets through."""
    found = (n for n in ast.walk(node) if isinstance(n, ast.Attribute))
    return [n for n in found if _private(n.attr) and of(n.value)]


def _is_self(value):
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def _is_super(value):
    return isinstance(value, ast.Call) and getattr(value.func, "id", "") == "super"


def private_names(path):
    """`thing._name` and `Class._name` of a source file, where the name is a foreign package's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {ast.unparse(n) for n in _attributes(tree, lambda value: not _is_self(value) and not _is_super(value))}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name for name in names if any(map(_private, name.split(".")))}
    if path.is_relative_to(ROOT / "structloss"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                used = {n.attr for n in _attributes(node, lambda value: _is_self(value) or _is_super(value))}
                used |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                found |= {
                    f"{node.name}.{name}" for name in filter(_private, used & _theirs(getattr(module, node.name)))
                }
    return found


@pytest.mark.slow(seconds=8)
def test_every_private_name_is_watched():
    for extra in ("lightning", "jsonargparse", "matplotlib", "h5py"):
        pytest.importorskip(extra)
    found = {}
    for path in sorted([*(ROOT / "structloss").rglob("*.py"), *(ROOT / "kernels").glob("*.py")]):
        for name in private_names(path) - DOCUMENTED:
            found.setdefault(name, str(path.relative_to(ROOT)))
    unwatched = {name: file for name, file in found.items() if name not in WATCHED}
    assert not unwatched, f"private names without a test in {Path(__file__).name}: {unwatched}"
    assert found.keys() == WATCHED.keys(), f"no longer used: {WATCHED.keys() - found.keys()}"
    assert set(WATCHED.values()) <= globals().keys()


def parameters(function):
    return list(inspect.signature(function).parameters)


def source(thing):
    return inspect.getsource(thing)


def gone(name, user):
    return f"{name} is gone or another thing now; {user} needs it"


# Python itself


def test_argparse_parsers_of_commands():
    """commands/_parser.py walks from a parser to the one of a command, and through its flags."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("one")
    one.add_argument("--flag")
    message = gone("argparse's tree of parsers", "structloss/commands/_parser.py")
    assert isinstance(commands, argparse._SubParsersAction) and commands in parser._actions, message
    assert commands._name_parser_map == {"one": one}, message
    assert [action.option_strings for action in one._actions] == [["-h", "--help"], ["--flag"]], message


def test_ctypes_name_of_a_library():
    """kernels/native.py finds the note beside the compiled CUDA library by the path that it was opened with."""
    path = str(next((Path(torch.__file__).parent / "lib").glob("*c10*")))
    assert ctypes.CDLL(path)._name == path, gone("ctypes.CDLL._name", "kernels/native.py")


# torch


def test_torch_apply_of_functions():
    """ops/autograd.py calls what Function.apply calls in the end, without its search for transforms."""
    from structloss.ops import autograd

    message = gone("the apply of torch.autograd.Function's base", "structloss/ops/autograd.py")
    assert "return super().apply(*args, **kwargs)" in source(torch.autograd.Function.apply), message
    x = torch.ones(2, requires_grad=True)
    total = autograd._apply(x, None, lambda pred: (pred.sum(), [], torch.full((2,), 3.0)))
    assert type(total.grad_fn).__name__ == "_PlannedBackward", message
    total.backward()
    assert total == 2 and x.grad.tolist() == [3, 3], message


def test_torch_where_a_module_keeps_its_tensors():
    """nn/fused.py looks there for weights that are tensors, and leaves out those that are numbers."""
    message = gone("Module._parameters and Module._buffers", "structloss/nn/fused.py")
    module = torch.nn.Module()
    module.lambda_a, module.plain = torch.nn.Parameter(torch.ones(())), 3.0
    module.register_buffer("lambda_b", torch.ones(()))
    assert module._parameters.keys() == {"lambda_a"} and module._buffers.keys() == {"lambda_b"}, message
    assert "plain" in vars(module) and not {"lambda_a", "lambda_b"} & vars(module).keys(), message


def test_torch_modules_move_by_apply():
    calls = []

    class Seen(torch.nn.Linear):
        def _apply(self, fn, recurse=True):
            calls.append(recurse)
            return super()._apply(fn, recurse)

    module = torch.nn.Sequential(Seen(1, 1))
    for move in (module.double, module.half, lambda: module.to("meta"), lambda: module.to_empty(device="cpu")):
        calls.clear()
        move()
        assert calls == [True], gone("torch.nn.Module._apply", "networks with constants of a precision of their own")


def test_torchmetrics_move_their_states_by_apply():
    """metrics/_precision.py narrows float64 states where a metric moves to a device that has none."""
    torchmetrics = pytest.importorskip("torchmetrics")
    message = gone("torchmetrics.Metric._apply", "structloss/metrics/_precision.py")
    moved = []

    class Watched(torchmetrics.MeanMetric):
        def _apply(self, fn, *args, **kwargs):
            return super()._apply(lambda x: moved.append(x.shape) or fn(x), *args, **kwargs)

    assert parameters(torchmetrics.Metric._apply)[:2] == ["self", "fn"], message
    Watched().to("cpu")
    assert moved, message


def test_torch_base_of_batch_norms():
    """backbones/base.py and harness/lifting.py find all batch norms of a network by their base class."""
    base = getattr(torch.nn.modules.batchnorm, "_BatchNorm", None)
    assert base is not None, gone("torch.nn.modules.batchnorm._BatchNorm", "structloss/backbones/blocks/levels.py")
    for kind in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm):
        assert issubclass(kind, base) and kind(3).momentum == 0.1 and int(kind(3).num_batches_tracked) == 0


def test_torch_keep_graph():
    """ops/autograd.py asks whether the graph is kept: without an answer it copies a gradient, which is only slower."""
    name = "_get_current_graph_task_keep_graph"
    asked = getattr(torch._C._autograd, name, None)
    assert asked is not None, gone(f"torch._C._autograd.{name}", "structloss/ops/autograd.py")
    answers = []

    class Ask(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            answers.append(asked())
            return grad

    x = Ask.apply(torch.ones(1, requires_grad=True))
    x.backward(retain_graph=True)
    x.backward()
    assert answers == [True, False]


def test_torch_whether_a_transform_is_active():
    message = gone("torch._C._are_functorch_transforms_active", "structloss/ops/autograd.py")
    asked = getattr(torch._C, "_are_functorch_transforms_active", None)
    assert asked is not None and asked() is False, message
    answers = []
    torch.func.grad(lambda x: answers.append(asked()) or x)(torch.tensor(1.0))
    torch.vmap(lambda x: answers.append(asked()) or x)(torch.ones(2))
    assert answers == [True, True], message


def test_torch_whether_forward_mode_is_active():
    from torch.autograd import forward_ad

    message = gone("torch.autograd.forward_ad._current_level", "structloss/functional/_plans.py")
    assert getattr(forward_ad, "_current_level", None) == -1, message
    with forward_ad.dual_level():
        assert forward_ad._current_level == 0, message
    assert forward_ad._current_level == -1, message


def test_torch_mark_of_constants():
    """functional/_call.py sets the mark itself: the function that does it imports the compiler."""

    @torch.compiler.assume_constant_result
    def constant():
        return 1

    message = gone("the mark of torch.compiler.assume_constant_result", "structloss/functional/_call.py")
    assert getattr(constant, "_dynamo_marked_constant", None) is True, message


def test_torch_parallel_for():
    """kernels/native.py takes the address of a C function of libtorch: the kernels' threads are torch's."""
    from structloss.kernels.native import parallel_for_address

    assert parallel_for_address(), gone("the symbol torch_parallel_for", "kernels/native.py")


# Lightning


@pytest.fixture(scope="module")
def L():
    return pytest.importorskip("lightning")


def test_lightning_whether_a_validation_comes_next(L):
    """harness/restart.py saves where none does; Lightning asks the same question in the same way."""
    from lightning.pytorch.loops.fit_loop import _FitLoop
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    message = gone("_TrainingEpochLoop._should_check_val_fx", "structloss/harness/restart.py")
    assert parameters(_TrainingEpochLoop._should_check_val_fx) == ["self", "data_fetcher"], message
    assert "self._should_check_val_fx(data_fetcher)" in source(_TrainingEpochLoop), message
    message = gone("_FitLoop._data_fetcher", "structloss/harness/restart.py")
    assert "self._data_fetcher" in source(_FitLoop.__init__), message
    assert "self.epoch_loop.run(self._data_fetcher)" in source(_FitLoop.advance), message


def test_lightning_row_of_a_step(L):
    """harness/restart.py writes a step's row before its checkpoint; Lightning writes it in the same way afterwards."""
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
    from lightning.pytorch.trainer.connectors.logger_connector import _LoggerConnector

    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    message = gone("Trainer._logger_connector.update_train_step_metrics", "structloss/harness/restart.py")
    assert isinstance(trainer._logger_connector, _LoggerConnector), message
    assert parameters(_LoggerConnector.update_train_step_metrics) == ["self"], message
    assert "trainer._logger_connector.update_train_step_metrics()" in source(_TrainingEpochLoop), message


def test_lightning_progress_of_an_epoch(L):
    """harness/restart.py asks whether a batch is counted already, is the last, and whether the run is to stop."""
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    loop = trainer.fit_loop.epoch_loop
    message = gone("the progress of Lightning's loop", "structloss/harness/restart.py")
    assert loop.batch_progress.is_last_batch is False and loop.batch_progress.current.completed == 0, message
    assert loop.batch_idx == -1 and trainer.received_sigterm is False, message
    assert trainer.accumulate_grad_batches == 1, message


def test_lightning_stops_on_sigterm_by_an_exception(L):
    from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    assert issubclass(SIGTERMException, SystemExit)
    assert "received_sigterm = True" in source(_SignalConnector), gone(
        "received_sigterm", "structloss/harness/restart.py"
    )


def test_lightning_csv_logger(L, tmp_path):
    """harness/run_logger.py gives the logger a writer and a version of its own."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    message = gone("CSVLogger._experiment, ._version or ._fs", "structloss/harness/run_logger.py")
    assert {"_experiment", "_version", "_fs"} <= vars(logger).keys() and logger._experiment is None, message
    logger._version = 7
    assert logger.version == 7 and Path(logger.log_dir).name == "version_7", message
    logger._fs.makedirs(str(tmp_path / "made"), exist_ok=True)
    assert (tmp_path / "made").is_dir(), message
    logger._experiment = writer = object()
    assert logger.experiment is writer, message


def test_lightning_csv_writer(L, tmp_path):
    """harness/run_logger.py keeps earlier rows where Lightning's writer would delete the file."""
    from lightning.pytorch.loggers.csv_logs import ExperimentWriter

    message = gone("ExperimentWriter._check_log_dir_exists", "structloss/harness/run_logger.py")
    assert parameters(ExperimentWriter.__init__) == ["self", "log_dir"], message
    assert parameters(ExperimentWriter._check_log_dir_exists) == ["self"], message
    called = []

    class Writer(ExperimentWriter):
        def _check_log_dir_exists(self):
            called.append(self.metrics_file_path)

        def _rewrite_with_new_header(self, fieldnames):
            called.append(fieldnames)

    writer = Writer(str(tmp_path))
    assert called == [str(tmp_path / "metrics.csv")] and writer.metrics == [], message
    writer.log_metrics({"loss": 1.0}, 3)
    assert writer.metrics == [{"loss": 1.0, "step": 3}], message
    writer.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["loss,step", "1.0,3"], message
    message = gone("ExperimentWriter._rewrite_with_new_header", "structloss/harness/run_logger.py")
    assert parameters(ExperimentWriter._rewrite_with_new_header) == ["self", "fieldnames"], message
    writer.log_metrics({"loss": 1.0, "error": 2.0}, 4)
    writer.save()
    assert called[1:] == [["error", "loss", "step"]] and writer.metrics_keys == called[1], message


def test_lightning_cli_run_of_a_subcommand(L):
    """commands/_lightning.py lets messages name flags while a subcommand runs."""
    from lightning.pytorch.cli import LightningCLI

    message = gone("LightningCLI._run_subcommand", "structloss/commands/_lightning.py")
    assert parameters(LightningCLI._run_subcommand) == ["self", "subcommand"], message
    assert "self._run_subcommand(self.subcommand)" in source(LightningCLI.__init__), message


def test_lightning_cli_arguments_of_a_subcommand(L):
    """commands/_lightning.py looks for a run to resume where the arguments of `fit` are made."""
    from lightning.pytorch.cli import LightningCLI

    message = gone("LightningCLI._prepare_subcommand_kwargs", "structloss/commands/_lightning.py")
    assert parameters(LightningCLI._prepare_subcommand_kwargs) == ["self", "subcommand"], message
    assert "self._prepare_subcommand_kwargs(subcommand)" in source(LightningCLI._run_subcommand), message
    assert "ckpt_path" in parameters(L.Trainer.fit), message


def test_lightning_cli_parser(L):
    """commands/_lightning.py compares the configuration of `fit` with those of earlier runs."""
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    user = "structloss/commands/_lightning.py"
    assert parameters(LightningCLI._parser) == ["self", "subcommand"], gone("LightningCLI._parser", user)
    parser = LightningArgumentParser()
    parser.add_argument("--none", type=int)
    from structloss.harness.run_start import config_text

    message = gone("ArgumentParser.dump(..., skip_unset=False)", "structloss/harness/run_start.py")
    assert config_text(parser, parser.parse_args([])).endswith("none: null\n"), message


def test_lightning_cli_path_of_a_checkpoint(L):
    """commands/_lightning.py leaves out that a checkpoint's arguments win over the command line's."""
    from lightning.pytorch.cli import LightningCLI

    message = gone("LightningCLI._parse_ckpt_path", "structloss/commands/_lightning.py")
    assert parameters(LightningCLI._parse_ckpt_path) == ["self"], message
    assert "self._parse_ckpt_path()" in source(LightningCLI.__init__), message


def test_mediapipe_native_module():
    """images/detectors/mediapipe.py runs the graph without the package around it; the version is pinned."""
    from structloss.errors import MissingDependencyError
    from structloss.images.detectors import mediapipe

    try:
        native = mediapipe._native(mediapipe._folder())
    except MissingDependencyError as error:
        pytest.skip(str(error))
    message = gone("_framework_bindings._packet_creator, ._packet_getter", "structloss/images/detectors/mediapipe.py")
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    create = native._packet_creator._create_image_frame_from_pixel_data
    packet = create(native.image_frame.ImageFormat.SRGB, pixels, True)
    assert (native._packet_getter.get_image_frame(packet).numpy_view() == pixels).all(), message
    assert "-> bytes" in native._packet_getter._get_serialized_proto.__doc__, message


def test_lightning_data_module_of_a_trainer(L):
    """harness/loss_nets.py and lifting.py read `trainer.datamodule`, which Lightning's types don't tell of."""
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    from lightning.pytorch.trainer.connectors.data_connector import _DataConnector

    message = gone("Trainer.datamodule", "structloss/harness/loss_nets.py")
    assert "trainer.datamodule = datamodule" in source(_DataConnector.attach_datamodule), message
    assert isinstance(trainer.callbacks, list), gone("Trainer.callbacks", "structloss/commands/_lightning.py")


def test_lightning_checkpoints_say_what_they_are(L, tmp_path):
    """harness/checkpoint_io.py knows a checkpoint by Lightning's own entry, harness/load.py reads the arguments."""
    module = L.LightningModule()
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    found = torch.load(tmp_path / "a.ckpt", weights_only=True)
    wanted = {"pytorch-lightning_version", "state_dict", "epoch", "global_step"}
    assert wanted <= found.keys(), gone(
        f"{wanted - found.keys()} of a checkpoint", "structloss/harness/checkpoint_io.py"
    )
    assert L.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY == "hyper_parameters", gone("it", "structloss/harness/load.py")


def test_lightning_checkpoint_io(L):
    """harness/checkpoint_io.py overrides both halves."""
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    assert parameters(TorchCheckpointIO.save_checkpoint) == ["self", "checkpoint", "path", "storage_options"]
    assert parameters(TorchCheckpointIO.load_checkpoint)[:3] == ["self", "path", "map_location"]
    from structloss.harness.checkpoint_io import SafeCheckpointIO

    ours = set(parameters(SafeCheckpointIO.load_checkpoint))
    assert ours >= set(parameters(TorchCheckpointIO.load_checkpoint)), "an argument that SafeCheckpointIO doesn't take"


def test_lightning_average_of_weights_keeps_both(L):
    """Checkpoints hold the average and, under a name of Lightning's, the weights themselves (lightning >= 2.6)."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    kind = getattr(callbacks, "EMAWeightAveraging", None)
    assert kind is not None, gone("EMAWeightAveraging", "--model.ema in structloss/harness/optimizers.py")
    assert "decay" in parameters(kind.__init__) and "current_model_state" in source(kind.on_save_checkpoint)


def test_a_private_name_without_a_test_is_found(tmp_path):
    """The scan sees attributes, imports and overridden methods."""
    code = (
        "from torch._dynamo import config\nimport torch\n\n\ndef f(module):\n    return module._parameters, torch._C\n"
    )
    (tmp_path / "new.py").write_text(code)
    assert private_names(tmp_path / "new.py") == {"torch._dynamo.config", "module._parameters", "torch._C"}


def test_the_installed_lightning_is_one_that_is_allowed(L):
    """The bounds of pyproject.toml: below 2.6 there is no EMAWeightAveraging, above, these tests haven't run."""
    text = (ROOT / "pyproject.toml").read_text()
    low, high = re.search(r'"lightning>=(\d+\.\d+)[\d.]*,<(\d+\.\d+)', text).groups()
    version = tuple(int(part) for part in L.__version__.split(".")[:2])
    assert tuple(map(int, low.split("."))) == (2, 6) <= version < tuple(map(int, high.split(".")))

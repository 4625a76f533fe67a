"""What a user can do wrong with `structloss fit`, `test` and `validate` comes out as one sentence that names the flag;
a fault of ours keeps its traceback."""

import errno
import os
import warnings

import pytest
import torch

pytest.importorskip("lightning")

from structloss.cli import main
from structloss.commands._refusals import bounded_memory_and_disk, parser_sentence, refusals, refused
from structloss.commands._trainer import check_trainer
from structloss.errors import ArgumentError, BackendError, DataError, StructlossError
from structloss.harness.lifting import LiftingModule
from structloss.harness.recipe_files import bounded_parser

SMALL = [
    "--config", "repose-tiny", "--data.num_subjects", "2", "--data.clips_per_subject", "1", "--data.frames", "30",
    "--data.views", "1", "--data.window", "9", "--data.progress", "false", "--trainer.accelerator", "cpu",
    "--trainer.max_epochs", "1",
]  # fmt: skip
TINY = ["--model.backbone_args", "{dim_feat: 16, dim_rep: 16, depth: 1, num_heads: 2}"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "none.ckpt").write_text("hello")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "typo.yaml").write_text("modle: {lr: 1}\n")
    return tmp_path


def run(capsys, *arguments):
    """Exit code and what standard error has of a command."""
    try:
        code = main(list(arguments))
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize("name", ["fit", "validate", "test"])
@pytest.mark.parametrize("arguments", [(), ("--data.window", "9")], ids=str)
def test_without_a_recipe(name, arguments, folder, capsys):
    code, error = run(capsys, name, *arguments)
    assert code == 1 and error.startswith("structloss: error: --config is not given, expected a recipe")
    assert f"structloss {name} --help lists them" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--trainer.max_epochs x", 2, "--trainer.max_epochs is 'x', expected a whole number or null."),
        ("--trainer.max_step 3", 2, "unrecognized arguments: --trainer.max_step 3; did you mean --trainer.max_steps?"),
        ("nonsense", 2, "unrecognized arguments: nonsense."),
        ("--trainer.callbacks nonsense", 2, "--trainer.callbacks is 'nonsense', expected a Callback"),
        ("--config typo.yaml", 2, "--config has modle.lr, expected settings that there are; did you mean model.lr?"),
        ("--trainer.devices abc", 1, "--trainer.devices is 'abc', expected a number of processes, at least 1"),
        ("--trainer.strategy nonsense", 1, "--trainer.strategy is 'nonsense', which can't be used: You selected an"),
        ("--trainer.val_check_interval 9999", 1, "--trainer.val_check_interval is 9999, which can't be used: `val_"),
        ("--trainer.profiler nonsense", 1, "--trainer.profiler is 'nonsense', which can't be used: When passing"),
        ("--trainer.default_root_dir none.ckpt", 1, "--trainer.default_root_dir is 'none.ckpt', expected a folder"),
        ("--ckpt_path nothing.ckpt", 1, "--ckpt_path: nothing.ckpt does not exist."),
        (
            "--ckpt_path none.ckpt",
            1,
            "--ckpt_path: none.ckpt can't be read, expected one written by structloss fit",
        ),
        ("--ckpt_path folder", 1, "--ckpt_path: folder is not a regular file, expected one written by structloss fit."),
        ("--config folder", 1, "--config is 'folder', a directory, expected a YAML file or the name of a recipe."),
        ("--config broken.yaml", 1, "--config: broken.yaml is not valid YAML"),
        ("--data.data nothing.npz", 1, "--data.data nothing.npz does not exist, expected a data set."),
        ("--init-from nothing.pth", 1, "--init-from nothing.pth does not exist, expected a checkpoint file."),
        ("--data.format bvh", 1, "--data.format is 'bvh', expected it with data that is read."),
        ("--model.weight_decay -1", 1, "--model.weight_decay is -1.0, expected a number >= 0."),
        ("--trainer.max_time 5", 1, "--trainer.max_time is '5', which can't be used: `Timer(duration='5')` is not a"),
        ("--trainer.max_epochs 1e3", 2, "--trainer.max_epochs is '1e3', expected a whole number or null."),
        ("--seed_everything -1", 1, "--seed_everything is -1, expected a whole number from 0 to 4294967295."),
        ("--model.backbone_args.dim_feat 17", 1, "--model.backbone_args.dim_feat is 17, expected a positive multiple"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("--") and " is " not in value else "",
)
def test_nonsense_is_one_sentence(arguments, code, message, folder, capsys):
    found, error = run(capsys, "fit", *SMALL, *arguments.split())
    assert error.startswith(f"structloss: error: {message}") and error.count("\n") == 1, error
    assert found == code and not (folder / "runs").exists(), "no run is begun"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "gpu"}, "--trainer.accelerator is 'gpu', expected one that this machine has: auto, cpu."),
        ({"accelerator": "tpu"}, "--trainer.accelerator is 'tpu', expected one that this machine has: auto, cpu."),
        ({"devices": "-3"}, "--trainer.devices is '-3', expected a number of processes"),
        ({"devices": [0, 1]}, r"--trainer.devices is \[0, 1\], expected a number of processes"),
        ({"max_steps": -5}, "--trainer.max_steps is -5, expected at least 1, or -1 for no end."),
        ({"max_epochs": 0}, "--trainer.max_epochs is 0, expected something to fit."),
        ({"limit_train_batches": 7.5}, "--trainer.limit_train_batches is 7.5, expected a share from 0.0 to 1.0"),
        ({"limit_val_batches": -1}, "--trainer.limit_val_batches is -1, expected"),
        ({"val_check_interval": 1.5}, "--trainer.val_check_interval is 1.5, expected"),
        ({"val_check_interval": 0}, "--trainer.val_check_interval is 0, expected"),
        ({"accumulate_grad_batches": 0}, "--trainer.accumulate_grad_batches is 0, expected at least 1."),
        ({"check_val_every_n_epoch": 0}, "--trainer.check_val_every_n_epoch is 0, expected at least 1."),
        ({"gradient_clip_val": -1.0}, "--trainer.gradient_clip_val is -1.0, expected at least 0."),
        ({"strategy": "ddp_spawn"}, "--trainer.strategy is 'ddp_spawn', expected one whose processes run the command"),
        ({"num_nodes": 0}, "--trainer.num_nodes is 0, expected at least 1."),
    ],
    ids=str,
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_settings_that_no_trainer_takes(settings, message):
    with pytest.raises(ArgumentError, match=message):
        check_trainer(settings, "fit")


def test_settings_that_a_trainer_takes():
    check_trainer({"limit_val_batches": 0, "limit_train_batches": 3, "max_steps": -1, "devices": "2"}, "fit")
    with pytest.raises(ArgumentError, match="limit_val_batches is 0, expected something to validate"):
        check_trainer({"limit_val_batches": 0}, "validate")
    check_trainer({"val_check_interval": 0.5, "accelerator": "auto", "max_epochs": 0}, "test")


UNION = (
    'Parser key "trainer.max_time":\n  Does not validate against any of the Union subtypes\n  Subtypes: '
    "[<class 'str'>, <class 'datetime.timedelta'>, dict[str, int], <class 'NoneType'>]\n  Errors:\n    - Expected a "
    "<class 'str'>\n  Given value type: <class 'list'>\n  Given value: [1]"
)
ENTRY = (
    'Parser key "model.objective":\n  Does not validate against any of the Union subtypes\n  Subtypes: [dict[str, '
    "float], <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'float'>. Got value: x\n    - Expected a <class "
    "'NoneType'>\n  Given value type: <class 'dict'>\n  Given value: {'mpjpe': 'x'}"
)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("argument -c/--config: expected one argument", "--config has no value, expected one argument."),
        (
            "Parser key \"model.lr\":\n  Expected a <class 'float'>. Got value: x",
            "--model.lr is 'x', expected a number.",
        ),
        (UNION, "--trainer.max_time is '[1]', expected text, a time span, a mapping, as in '{name: value}' or null."),
        (ENTRY, "--model.objective is \"{'mpjpe': 'x'}\", expected a number where it has 'x'."),
        ("unrecognized arguments: --modl.lr 3", "unrecognized arguments: --modl.lr 3; did you mean --model.lr?"),
        ("unrecognized arguments: x", "unrecognized arguments: x."),
        ("Unrecognized arguments: x", "unrecognized arguments: x."),  # jsonargparse 4.39
        ("Subcommand 'fit' does not accept nested key 'modle.lr'.", "--config has modle.lr, expected settings that"),
        ('Linked "data.seed" must be given via "seed_everything".', "--data.seed is given, expected it as --seed_ev"),
        (
            "Unexpected config: - 1\n",
            "--config holds '- 1', expected a recipe: a mapping with model, data and trainer.",
        ),
        ("something else\nof two lines", "something else of two lines."),
    ],
)
def test_sentences_of_the_parser(message, sentence):
    assert parser_sentence(message, {"--model.lr", "--config"}).startswith(sentence)


def raised(error, through=None):
    """An exception as it comes out of a library's own code, or of our code when that runs in between."""
    namespace = {"error": error}
    exec(compile("def fail():\n    raise error", "/site-packages/lightning/loop.py", "exec"), namespace)
    call = namespace["fail"]
    if through is not None:
        ours = {"call": call}
        exec(compile("def ours():\n    call()", through, "exec"), ours)
        call = ours["ours"]
    try:
        call()
    except Exception as caught:
        return caught


def test_what_is_a_refusal_and_what_a_fault():
    import structloss

    inside = os.path.join(os.path.dirname(structloss.__file__), "harness", "lifting.py")
    given = {"trainer.max_time": "x", "data.batch_size": 16, "trainer.precision": "16-true"}
    found = refused(raised(ValueError("`max_time` is no time. Have a look.")), given)
    assert str(found) == "--trainer.max_time is 'x', which can't be used: `max_time` is no time."
    assert str(refused(raised(RuntimeError("workers died")), given)) == "the trainer stopped: workers died."
    assert "--trainer.max_time is" in str(refused(raised(ValueError("`max_time` is none"), inside), given))
    assert refused(raised(ValueError("shapes differ"), inside), given) is None, "our code gave it wrong shapes"
    for fault in (AttributeError("max_time"), KeyError("max_time"), AssertionError()):
        assert refused(raised(fault), given) is None
    half = RuntimeError("\"addmm\" not implemented for 'Half'")
    assert "--trainer.precision is '16-true', which can't be used here" in str(refused(raised(half, inside), given))
    assert refused(raised(half, inside), {}) is None
    memory = refused(raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), inside), given)
    assert isinstance(memory, BackendError) and "not enough memory for --data.batch_size 16" in str(memory)


def test_weights_that_overflow_half_precision_name_it():
    message = r"nan, try --trainer\.precision bf16-mixed, or a lower lr"
    with pytest.raises(DataError, match=message), refusals({"trainer.precision": "16-true"}):
        raise DataError("nan, try a lower lr")


def test_a_loader_process_that_is_killed_takes_one_sentence():
    def inside():
        raise RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. ")

    with pytest.raises(StructlossError) as stopped, refusals({"data.num_workers": 2}):
        inside()
    text = str(stopped.value)
    assert (
        "process that loads data was ended by the system" in text and "(pid 123) is killed by signal: Killed;" in text
    )
    assert "\n" not in text and "--data.num_workers" in text and "resume" in text


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, AttributeError])
def test_out_of_memory_in_training_is_a_sentence_and_a_fault_is_not(kind, folder, capsys, monkeypatch):
    def step(*_):
        raise kind("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(LiftingModule, "training_step", step)
    if kind is AttributeError:
        with pytest.raises(AttributeError):
            main(["fit", *SMALL, *TINY])
        return
    code, error = run(capsys, "fit", *SMALL, *TINY)
    message = "structloss: error: there is not enough memory for --data.batch_size 16, expected a smaller one"
    assert code == 1 and error.startswith(message) and error.count("\n") == 1, error


def test_memory_and_disk_of_any_command(tmp_path):
    with (
        pytest.raises(BackendError, match=r"there is not enough memory: Unable to allocate 7\. TiB for an array\."),
        bounded_memory_and_disk(),
    ):
        raise MemoryError("Unable to allocate 7. TiB for an array")
    (tmp_path / "file").write_text("")
    message = r"file/x can't be written or read: Not a directory\."
    with pytest.raises(DataError, match=message), bounded_memory_and_disk():
        (tmp_path / "file" / "x").read_text()
    with pytest.raises(DataError, match="the disk can't be written: No space left"), bounded_memory_and_disk():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError) as caught, bounded_memory_and_disk():
        (tmp_path / "nothing").read_text()
    assert not isinstance(caught.value, StructlossError)


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)


def test_every_yaml_that_the_parser_reads_is_bounded():
    from jsonargparse import get_loader

    before = get_loader("yaml")
    with bounded_parser():
        with pytest.raises(DataError, match=r"4\.84e\+07 values|\d values with its aliases"):
            get_loader("yaml")(BOMB)
        with pytest.raises(DataError, match="nested too deeply"):
            get_loader("yaml")("[" * 5000)
        assert get_loader("yaml")("{lr: 1e-3, names: [a, b]}") == {"lr": 1e-3, "names": ["a", "b"]}
    assert get_loader("yaml") is before


@pytest.mark.parametrize("place", ["--config=bomb.yaml", "--model.objective"])
def test_aliases_do_not_hang_the_command(place, folder, capsys):
    (folder / "bomb.yaml").write_text(BOMB)
    value = [] if "=" in place else ["{" + BOMB.replace("\n", ", ") + "}"]
    code, error = run(capsys, "fit", *SMALL, place, *value)
    assert code in (1, 2) and error.startswith("structloss: error: --") and error.count("\n") == 1, error


def test_configurations_are_written_without_deprecated_words(monkeypatch):
    from jsonargparse import ArgumentParser

    from structloss.harness.run_start import config_text

    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "all")
    parser = ArgumentParser()
    parser.add_argument("--none", type=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert config_text(parser, parser.parse_args([])).endswith("none: null\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--model.backbone lift-27 --data.target camera",
            "--data.window is 9, expected at least 27 frames for lift-27.",
        ),
        ("--data.frames 310 --data.window 300", "--data.window is 300, expected 1 to 243 frames for repose-tiny."),
    ],
)
def test_windows_that_the_network_does_not_take(arguments, message, folder, capsys):
    code, error = run(capsys, "fit", *SMALL, *arguments.split())
    assert code == 1 and error == f"structloss: error: {message}\n"

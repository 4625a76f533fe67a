"""The structloss command: help, exit codes, one-line errors, and the demo's folder."""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import structloss
from structloss import cli
from structloss.cli import main
from structloss.commands import _parser as parser_module
from structloss.commands import bench as bench_command
from structloss.commands._typed import as_typed
from structloss.commands.demo import FILES, DemoSettings
from structloss.errors import ArgumentError, MissingDependencyError, how_to_install, needs_extra

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [*next(action for action in cli._parser()._actions if action.dest == "command").choices]
QUICK = ["--steps", "2", "--window", "9", "--batch-size", "4"]


@pytest.mark.parametrize(
    "arguments", [(), *((name,) for name in COMMANDS), ("backbones", "convert"), ("data", "convert")], ids=" ".join
)
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "usage: structloss" in text
    if len(arguments) < 2:
        assert "examples:" in text
    if not arguments:
        assert all(f"\n    {name} " in text or f"\n    {name}\n" in text for name in COMMANDS)


def test_every_file_of_the_folder_adds_commands():
    files = {path.stem for path in (Path(structloss.__file__).parent / "commands").glob("[!_]*.py")}
    assert {"ablate", "backbones", "backends", "bench", "data", "demo", "energy", "fit", "predict", "report"} <= files
    assert files <= {*COMMANDS} and {"fit", "validate", "test"} <= {*COMMANDS}
    assert COMMANDS[:4] == ["demo", "fit", "validate", "test"] and COMMANDS[-1] == "bench"


def test_a_command_is_a_file(tmp_path, monkeypatch, capsys):
    """A made-up one is listed, has its help, runs, and its errors name its flags; nothing else is touched."""
    (tmp_path / "greet.py").write_text("""
from structloss.commands._parser import command, options, positive


def add(commands):
    parser = command(commands, "greet", "say hello", "  structloss greet --times 2\\n")
    parser.add_argument("name")
    parser.add_argument("--times", type=positive, default=1, dest="repeats")
    parser.set_defaults(run=lambda arguments: greet(**options(arguments)))


def greet(name, repeats):
    from structloss.errors import ArgumentError

    if repeats > 9:
        raise ArgumentError(f"repeats is {repeats}, expected at most 9.")
    print(f"hello {name}\\n" * repeats, end="")
    return 3 if name == "nobody" else None
""")
    package = importlib.import_module("structloss.commands")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "structloss.commands.greet", raising=False)
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert re.search(r"^    greet +say hello$", out, re.M) and out.index("backends") < out.index("greet")
    with pytest.raises(SystemExit):
        main(["greet", "--help"])
    assert "Say hello." in capsys.readouterr().out
    assert main(["greet", "you", "--times", "2"]) == 0
    assert capsys.readouterr().out == "hello you\nhello you\n"
    assert main(["greet", "nobody"]) == 3
    assert main(["greet", "you", "--times", "10"]) == 1
    assert capsys.readouterr().err == "structloss: error: --times is 10, expected at most 9.\n"
    monkeypatch.delattr(package, "greet", raising=False)
    sys.modules.pop("structloss.commands.greet", None)


@pytest.mark.parametrize("name", ["fit", "test"])
def test_help_of_the_lightning_commands(name, capsys):
    """Ours first, in two screens; all of it when asked for."""
    with pytest.raises(SystemExit) as stopped:
        main([name, "--config", "repose-tiny", "-h"])
    assert stopped.value.code == 0
    ours = capsys.readouterr().out
    assert "examples:" in ours and f"structloss {name}" in ours and "repose-tiny" in ours
    assert ours.count("\n") <= 88 and "--help-all" in ours
    assert ("--fresh" in ours) == (name == "fit") == ("--config shape-template-tiny" in ours)


def test_the_whole_help_of_a_lightning_command(tmp_path, commands):
    done = commands.run(tmp_path, "fit", "--help-all")
    assert done.returncode == 0, done.stderr
    assert "usage: structloss fit --config RECIPE" in done.stdout and "--trainer.detect_anomaly" in done.stdout
    for flag in shown_flags("fit"):  # what the short help shows is there
        ours = ("--help-all", "--debug", "--fresh", "--logger", "--init-from", "--loss", "--model.learned.KEY")
        assert flag in ours or f" {flag}" in done.stdout or f"{flag} " in done.stdout, flag


def shown_flags(name):
    parser = cli._parser()
    chosen = parser_module.chosen(parser, argparse.Namespace(command=name))
    return [flag for action in chosen._actions for flag in action.option_strings if flag.startswith("--")]


@pytest.mark.parametrize("name", ["fit", "bench"])
def test_a_short_help_takes_no_arguments_from_its_command(name):
    """What follows is handed on in its order, whatever the short help knows."""
    given = ["--config", "x", "-q", "--no-tests", "y z", "--csv=1", "--", "--version"]
    assert cli._parser().parse_args([name, *given]).arguments == given


@pytest.mark.parametrize("arguments", [(), ("step",)], ids=["bench", "bench step"])
def test_bench_has_the_scripts_own_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *(arguments or ["--help-all"]), *(["--help"] if arguments else [])])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    name = " ".join(("structloss bench", *arguments))
    assert f"usage: {name} " in text and f"\n  {name} " in text and "--rounds" in text and ".py\n" not in text


def test_bench_times_the_losses(tmp_path):
    path = tmp_path / "rows.csv"
    arguments = ("--quick", "--no-tests", "--shapes", "1,9,17", "--providers", "algorithm12", "torch", "--csv", path)
    command = [sys.executable, "-m", "structloss.cli", "bench", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "(`torch`)" in done.stdout and "algorithm12,forward+backward,time,ms,1,9,17" in path.read_text()


@pytest.mark.parametrize("arguments", [("--rounds", "none"), ("step", "--rounds", "none")], ids=["run", "step"])
def test_bench_errors_name_the_command(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *arguments])
    assert stopped.value.code == 2
    name = "structloss bench step" if arguments[0] == "step" else "structloss bench"
    assert capsys.readouterr().err == f"{name}: error: argument --rounds: 'none' is not a positive integer\n"


def test_bench_outside_of_a_clone_says_where_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_command, "__file__", str(tmp_path / "structloss" / "commands" / "bench.py"))
    assert main(["bench", "--op", "objective"]) == 1
    assert capsys.readouterr().err == (
        "structloss: error: the benchmarks are not part of the installed package; clone the repository of structloss "
        "and run structloss bench there.\n"
    )


def test_bench_of_an_installed_package_runs_in_a_clone(tmp_path):
    """From the folder that one is in, without a path by which anything else of it could be imported."""
    code = f"""
import os, sys
sys.path = [path for path in sys.path if path not in ("", {str(ROOT)!r})]
from structloss.commands import bench
bench.__file__ = {str(tmp_path / "structloss" / "commands" / "bench.py")!r}
os.chdir({str(ROOT)!r})
before = list(sys.path)
from structloss.cli import main
try:
    main(["bench", "step", "--help"])
except SystemExit as stopped:
    assert not stopped.code
assert sys.path == before and sys.modules["bench"].__file__ == {str(ROOT / "bench" / "__init__.py")!r}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: structloss bench step " in done.stdout


def test_version_and_no_command(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert structloss.__version__ in capsys.readouterr().out
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_backbones_and_backends(capsys):
    assert main(["backbones", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in structloss.backbones.names())
    assert "44.3 cpn" in listed and "40.1" not in listed and "3DHP 23.1 gt2d" in listed and "H3WB 125.4" in listed
    rows = {line.split()[0]: line for line in listed.splitlines() if line}
    assert rows["shape-template"].split()[1:8] == ["image", "->", "15", "18.46", "M", "13.2", "G"]
    assert "ICCVW 2023" in rows["shape-template"] and rows["sapnet"].split()[8] == "55.5"
    assert set(structloss.images.names()) < rows.keys() and "ours, after sapnet" in rows["sapnet-tiny"]
    assert main(["backbones"]) == 0 and capsys.readouterr().out == listed
    assert main(["backbones", "info", "repose"]) == 0
    assert "repose-h36m" in capsys.readouterr().out
    assert main(["backbones", "info", "shape-template-legacy"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^params +6766430$", said, re.M) and re.search(r"^kind +images$", said, re.M)
    assert main(["backends"]) == 0
    assert "torch   yes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["demo", "--backbone", "repose-tin"], "unknown backbone 'repose-tin': did you mean 'repose-tiny'"),
        (["demo", "--backbone", "videopose3d-27"], "expected one that predicts the 17 joints in every frame"),
        (["demo", "--backbone", "mixste-81"], "--window is 27, expected 81 frames for mixste-81."),
        (["demo", "--data", "nowhere.npz"], "data file nowhere.npz does not exist."),
        (["demo", "--lambda-s", "0", "--lambda-t", "0"], "--lambda-s and --lambda-t are both 0"),
        (["demo", "--steps", "1"], "--steps is 1, expected at least 2."),
        (["backbones", "info", "motionbrt"], "unknown backbone 'motionbrt': did you mean"),
        (["backbones", "info", "shape-templte"], "unknown backbone 'shape-templte': did you mean 'shape-template'"),
        (["backbones", "convert", "nowhere.pth", "x.safetensors", "--model", "motionbert-lite"], "nowhere.pth"),
        (["fit", "--config", "repose-tyny"], "unknown recipe 'repose-tyny': did you mean 'repose-tiny'"),
    ],
)
def test_errors_take_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("structloss: error: ") and message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    with pytest.raises(structloss.errors.StructlossError):
        main([*arguments, "--debug"])


# ---- messages name flags -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    from structloss.data import generate_clips, save_archive

    path = tmp_path_factory.mktemp("archive") / "motion.npz"
    save_archive(path, generate_clips(2, 1, 20))
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("data convert motion.npz out.poses --fps -1", "--fps is -1.0, expected a positive number of frames"),
        ("data convert motion.npz out.npz --views 2", "--views is given, expected it with an output"),
        ("data convert motion.npz out.poses --seed -1", "--seed is -1, expected at least 0."),
        ("data convert motion.npz motion.npz", "motion.npz exists already, expected a new name; set --overwrite"),
        ("data inspect motion.npz --up z", "--up is given for motion.npz (archive), expected it with"),
        ("data inspect motion.npz --source-fps 9", "--source-fps is given for motion.npz (archive), expected it with"),
        ("data synthetic out.npz --frames 1 --seed -2", "--seed is -2, expected at least 0."),
        ("demo --seed -1 --steps 2", "--seed is -1, expected at least 0."),
        ("demo --out motion.npz", "--out is 'motion.npz', a file, expected a folder."),
        ("demo --out motion.npz/inside", "motion.npz can't be written or read: File exists"),
        ("predict motion.npz --ckpt x --out o --layout z", "--layout is 'z', expected 'auto' or one of 'h36m'"),
        ("report a b --checkpoint x", "--checkpoint is 'x', expected 'best' or 'last' for several runs."),
        ("ablate --seeds 1 1", "--seeds has [1, 1], expected different ones."),
        ("energy --loss-net x --train 5", "--loss-net FILE or --train STEPS"),
    ],
)
def test_messages_name_flags(arguments, message, archive, capsys, monkeypatch):
    """They come from the library, which names arguments; the flags are those of the command's parser."""
    monkeypatch.chdir(archive.parent)
    assert main(arguments.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("structloss: error: ") and message in error and error.count("\n") == 1
    assert [path.name for path in archive.parent.iterdir()] == ["motion.npz"]


def test_messages_of_fit_name_nested_flags(tmp_path, commands):
    subjects = ("--data.val_subjects", "[nobody]")  # found out when the data is opened, in the run's folder
    for arguments, message in (
        (("--data.window", "0"), "--data.window is 0, expected at least 1."),
        (("--model.ema", "3"), "--model.ema is 3.0, expected None or a decay between 0 and 1."),
        (("--model.learned.warmup", "3"), "--model.learned.warmup is 3, expected a share from 0 to 1."),
        (("--loss", "x"), "--loss is 'x', expected 'learned'; other losses are set by --model.objective."),
    ):
        done = commands.run(tmp_path, "fit", "--config", "repose-tiny", "--data.num_subjects", "2", *arguments)
        assert done.returncode == 1 and f"structloss: error: {message}" in done.stderr, done.stderr
        assert not (tmp_path / "runs").exists()
    done = commands.run(tmp_path, "fit", "--config", "repose-tiny", "--data.num_subjects", "2", *subjects)
    assert "structloss: error: --data.val_subjects has 'nobody', expected subjects" in done.stderr, done.stderr


def test_fit_takes_no_abbreviated_flags(tmp_path, commands):
    done = commands.run(tmp_path, "fit", "--conf", "repose-tiny")
    assert done.returncode == 2 and "unrecognized arguments: --conf" in done.stderr.lower(), done.stderr


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("fps is 0, expected more.", "--fps is 0, expected more."),
        ("fps, views and names are wrong.", "--fps, --views and --name are wrong."),
        ("learned.warmup is 3.", "--model.learned.warmup is 3."),
        ("views has 'x', expected others.", "--views has 'x', expected others."),
        ("fps is 3, expected it with views.", "--fps is 3, expected it with --views."),
        ("fps is 3, expected it with views of S1.", "--fps is 3, expected it with views of S1."),
        ("fps is 3, expected it alone, but views is given.", "--fps is 3, expected it alone, but --views is given."),
        ("the rate is not known; set fps, or choose views.", "the rate is not known; set --fps, or choose --views."),
        ("a.json doesn't tell its size, expected image_size.", "a.json doesn't tell its size, expected --image-size."),
        # what is no argument's name
        ("views of S1 are few, out of 4.", "views of S1 are few, out of 4."),
        ("out.npz is damaged.", "out.npz is damaged."),
        ("'views' is missing.", "'views' is missing."),
        ("set fps.txt, image_size=3 or x/image_size", "set fps.txt, image_size=3 or x/image_size"),
        ("--fps is 0, and --image-size too.", "--fps is 0, and --image-size too."),
        ("version is 2, and debug is 3.", "version is 2, and debug is 3."),
    ],
)
def test_names_become_flags_where_they_are_meant(message, expected):
    parser = parser_module.Parser()
    parser.add_argument("--version", action="store_true")
    parser_module.add_debug(parser)
    for flag, name in (("--fps", "fps"), ("--views", "views"), ("--name", "names"), ("--image-size", "image_size")):
        parser.add_argument(flag, dest=name)
    parser.add_argument("-o", "--out")
    parser.add_argument("--model.learned")
    parser.add_argument("--data.seed")
    parser.add_argument("--model.seed")
    flags = parser_module.flags_of(parser)
    assert "seed" not in flags, "which of the two is meant, nobody knows"
    assert parser_module.with_flags(message, flags) == expected


def test_an_entry_of_a_mapping_becomes_a_flag_in_front_alone():
    flags, entries = {"rendered": "--data.rendered"}, {"max_lean": "--data.rendered.max_lean"}
    for message, expected in (
        ("max_lean is 3, expected less.", "--data.rendered.max_lean is 3, expected less."),
        ("rendered has 'x', expected max_lean or facing.", "--data.rendered has 'x', expected max_lean or facing."),
    ):
        assert parser_module.with_flags(message, flags, entries=entries) == expected


def test_short_forms_are_named_where_they_were_typed():
    for given, expected in (
        (["--root", "x"], "--root is 'x', set --model.init_from"),
        (["--root=x", "--init-from=y"], "--root is 'x', set --init-from"),
        (["--model.root", "x"], "--model.root is 'x', set --model.init_from"),
        (["--root", "x", "--model.root=y"], "--model.root is 'x', set --model.init_from"),
        ([], "--model.root is 'x', set --model.init_from"),
    ):
        with pytest.raises(ArgumentError) as caught, as_typed(given):
            raise ArgumentError("--model.root is 'x', set --model.init_from")
        assert str(caught.value) == expected


def test_only_a_wrong_argument_begins_with_its_name():
    """The message of a file may begin with any word."""
    with (
        pytest.raises(structloss.errors.DataError, match=r"^data is no archive"),
        parser_module.naming_flags({"data": "--data"}),
    ):
        raise structloss.errors.DataError("data is no archive.")
    assert parser_module.with_flags("data is 3.", {}) == "data is 3."


def test_an_unknown_name_among_many_lists_a_few():
    with pytest.raises(structloss.errors.UnknownNameError) as caught:
        structloss.backbones.info("zzzzzzzz")
    assert re.fullmatch(
        r"unknown backbone 'zzzzzzzz': expected one of \d+ names such as [\w-]+, [\w-]+, [\w-]+\.", str(caught.value)
    )


def test_a_missing_extra_is_named_with_the_way_to_install_it(tmp_path):
    """Every command that trains or reads a run, in a process that has no lightning."""
    (tmp_path / "grid.yaml").write_text("backbones: [repose-tiny]\n")
    commands = [["fit", "--config", "repose-tiny"], ["demo"], ["report", "."], ["ablate", "grid.yaml"]]
    np.save(tmp_path / "x.npy", np.full((9, 17, 2), 100.0))
    commands += [
        ["predict", "x.npy", "--layout", "h36m", "--image-size", "640", "480", "--ckpt", "x.ckpt", "--out", "o"]
    ]
    code = f"""
import sys
sys.modules["lightning"] = None
from structloss.cli import main
for command in {commands}:
    assert main(command) == 1, command
# the weights of the package need no extra
assert main(["predict", "x.npy", "--layout", "h36m", "--image-size", "640", "480", "--npz", "p.npz"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    clone = Path(__file__).resolve().parents[1]
    line = f'lightning is not installed, expected the harness extra: pip install -e ".[harness]" in {clone}.'
    assert done.stderr.splitlines() == [f"structloss: error: {line}"] * len(commands)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_only_a_missing_package_is_an_extra():
    with pytest.raises(ModuleNotFoundError, match=r"structloss\.nothing") as caught, needs_extra("harness"):
        importlib.import_module("structloss.nothing")
    assert not isinstance(caught.value, MissingDependencyError)


def test_how_an_extra_is_installed_in_a_clone_and_beside_other_packages(tmp_path, monkeypatch):
    clone = Path(__file__).resolve().parents[1]
    monkeypatch.chdir(clone)
    assert how_to_install("harness") == 'pip install -e ".[harness]"'
    monkeypatch.setattr("structloss.errors.__file__", str(tmp_path / "site-packages" / "structloss" / "errors.py"))
    assert how_to_install("harness") == "pip install 'structloss[harness]'"


@pytest.mark.parametrize("arguments", [["demo", "--steps", "0"], ["demo", "--lambda-s", "-1"], ["nothing"]])
def test_unreadable_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + b"\x00" * 50])
def test_demo_refuses_a_corrupt_archive_and_leaves_nothing(content, tmp_path, capsys):
    bad = tmp_path / "bad.npz"
    bad.write_bytes(content)
    assert main(["demo", *QUICK, "--data", str(bad), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "bad.npz" in error and error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.npz"]


def test_demo_refuses_clips_shorter_than_the_window(tmp_path, capsys):
    from structloss.data import generate_clips, save_archive

    archive = tmp_path / "short.npz"
    save_archive(archive, generate_clips(4, 1, 20))
    assert main(["demo", "--steps", "2", "--data", str(archive), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "20" in error and "27" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_demo_does_not_touch_a_folder_with_other_content(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["demo", *QUICK, "--out", str(tmp_path)]) == 1
    assert "other content" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.slow
def test_demo_writes_the_folder_and_repeats_itself(tmp_path, commands):
    """Two runs with one seed give the same figures, on an archive as a user would bring."""
    from structloss.data import generate_clips, save_archive

    archive = tmp_path / "motion.npz"
    save_archive(archive, generate_clips(4, 1, 30))
    results = []
    for out in ("a", "b\x1b[2Jc"):
        done = commands.run(tmp_path, "demo", *QUICK, "--data", archive, "--out", out)
        assert done.returncode == 0, done.stderr
        assert "MPJPE + L_S + L_T" in done.stdout and "Depth order" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr and ("a/:" in done.stdout or r"b\x1b[2Jc/:" in done.stdout)
        assert sorted(p.name for p in (tmp_path / out).iterdir()) == sorted(FILES)
        results.append(json.loads((tmp_path / out / "metrics.json").read_text()))
    arms = [[arm["metrics"] for arm in result["arms"]] for result in results]
    assert arms[0] == arms[1]
    first, second = results[0]["arms"]
    assert first["curves"]["train_mpjpe"][0] == second["curves"]["train_mpjpe"][0], "same weights, same first batch"
    assert first["objective"] == {"mpjpe": 1.0} and len(second["objective"]) == 3
    page = (tmp_path / "a" / "report.html").read_text()
    assert "data:image/png;base64," in page and "structloss demo --steps 2" in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b\x1b[2Jc", "motion.npz"], "no scratch is left"
    again = commands.run(tmp_path, "demo", *QUICK, "--data", archive, "--out", "a")
    assert again.returncode == 0, "an earlier demo's folder may be written again"


def test_settings_name_the_command_that_repeats_them():
    settings = DemoSettings(data="my clips.npz", seed=4)
    assert "--data 'my clips.npz'" in settings.command() and "--seed 4" in settings.command()


def test_values_of_a_flag_are_in_their_order():
    from structloss.commands._arguments import values_of

    given = ["--config=a", "--data.data", "x", "-c", "b", "--config", "c", "--config"]
    assert values_of(given, "--config", "-c") == ["a", "b", "c"] and values_of(given, "--data.data") == ["x"]

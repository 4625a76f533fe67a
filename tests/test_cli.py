"""The structloss command: help, exit codes, one-line errors, and the demo's folder."""

import argparse
import importlib
import json
import os
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
from structloss.commands.demo import FILES, DemoSettings
from structloss.errors import MissingDependencyError, needs_extra

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    *("demo", "fit", "validate", "test", "ablate", "report", "energy", "predict", "data", "backbones", "backends"),
    "bench",
)
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


def test_commands_are_the_files_of_their_folder():
    folder = Path(structloss.__file__).parent / "commands"
    files = {path.stem for path in folder.glob("[!_]*.py")}
    assert files - {"fit"} == {*COMMANDS} - {"fit", "validate", "test"}


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
    assert "\n    greet     say hello\n" in out and out.index("backends") < out.index("greet")
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
    assert ours.count("\n") <= 80 and "--help-all" in ours
    assert ("--fresh" in ours) == (name == "fit")


def test_the_whole_help_of_a_lightning_command(tmp_path, commands):
    done = commands.run(tmp_path, "fit", "--help-all")
    assert done.returncode == 0, done.stderr
    assert "usage: structloss fit --config RECIPE" in done.stdout and "--trainer.detect_anomaly" in done.stdout
    for flag in shown_flags("fit"):  # what the short help shows is there
        ours = ("--help-all", "--debug", "--fresh", "--tensorboard", "--init-from", "--loss", "--model.learned.KEY")
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
    assert main(["backbones"]) == 0 and capsys.readouterr().out == listed
    assert main(["backbones", "info", "repose"]) == 0
    assert "repose-h36m" in capsys.readouterr().out
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
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    line = "lightning is not installed, expected the harness extra: pip install 'structloss[harness]'."
    assert done.stderr.splitlines() == [f"structloss: error: {line}"] * len(commands)
    assert not list(tmp_path.glob("*/"))


def test_only_a_missing_package_is_an_extra():
    with pytest.raises(ModuleNotFoundError, match=r"structloss\.nothing") as caught, needs_extra("harness"):
        importlib.import_module("structloss.nothing")
    assert not isinstance(caught.value, MissingDependencyError)


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
    for out in ("a", "b"):
        done = commands.run(tmp_path, "demo", *QUICK, "--data", archive, "--out", out)
        assert done.returncode == 0, done.stderr
        assert "MPJPE + L_S + L_T" in done.stdout and "Depth order" in done.stdout
        assert sorted(p.name for p in (tmp_path / out).iterdir()) == sorted(FILES)
        results.append(json.loads((tmp_path / out / "metrics.json").read_text()))
    arms = [[arm["metrics"] for arm in result["arms"]] for result in results]
    assert arms[0] == arms[1]
    first, second = results[0]["arms"]
    assert first["curves"]["train_mpjpe"][0] == second["curves"]["train_mpjpe"][0], "same weights, same first batch"
    assert first["objective"] == {"mpjpe": 1.0} and len(second["objective"]) == 3
    page = (tmp_path / "a" / "report.html").read_text()
    assert "data:image/png;base64," in page and "structloss demo --steps 2" in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "motion.npz"], "no scratch is left"
    again = commands.run(tmp_path, "demo", *QUICK, "--data", archive, "--out", "a")
    assert again.returncode == 0, "an earlier demo's folder may be written again"


def test_settings_name_the_command_that_repeats_them():
    settings = DemoSettings(data="my clips.npz", seed=4)
    assert "--data 'my clips.npz'" in settings.command() and "--seed 4" in settings.command()

"""What importing structloss and asking a command for help loads, and what it doesn't."""

import importlib
import subprocess
import sys

import pytest
import torch

import structloss
from structloss._lazy import once_imported
from structloss.cli import _parser

HEAVY = ("torch", "numpy", "lightning", "matplotlib", "jsonargparse", "rich", "yaml")
COMMANDS = next(action for action in _parser()._actions if action.dest == "command").choices


def told(code):
    """What a fresh process prints; it must end well."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_structloss_loads_nothing_heavy():
    code = f"import sys, structloss, structloss.errors; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    assert told(code) == ""


def test_every_public_name_is_there_and_listed():
    everything = {}
    exec("from structloss import *\nfrom structloss.errors import *", everything)
    for module in (structloss, structloss.errors):
        assert set(module.__all__) <= everything.keys() and set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nothing'"):
            module.nothing  # noqa: B018
    assert everything["objective"] is structloss.objective is structloss.functional.objective
    assert structloss.errors.check_floating is everything["check_floating"]
    result = structloss.objective(torch.zeros(1, 2, 17, 3), torch.ones(1, 2, 17, 3), {"mpjpe": 1.0})
    assert isinstance(result, structloss.ObjectiveResult) and structloss.Objective is structloss.ObjectiveResult


class Loss(torch.nn.Module):
    def forward(self, pred, target):
        return structloss.objective(pred, target, {"mpjpe": 1.0, "velocity": 0.5}).total


def test_operators_are_registered_when_torch_comes_after_structloss(tmp_path):
    """As imports are sorted; an exported program must find them. And torch is imported as ever."""
    path = str(tmp_path / "program.pt2")
    poses = torch.ones(2, 9, 17, 3), torch.zeros(2, 9, 17, 3)
    torch.export.save(torch.export.export(Loss(), poses), path)
    code = f"""
import sys, importlib, importlib.util, structloss
assert importlib.util.find_spec("torch").name == "torch" and "torch" not in sys.modules  # asked for, not imported
import torch
assert type(torch.__loader__).__name__ == "SourceFileLoader" and torch.__spec__.loader is torch.__loader__
assert importlib.util.find_spec("torch") is torch.__spec__ and importlib.import_module("torch") is torch
print(float(torch.export.load({path!r}).module()(torch.ones(2, 9, 17, 3), torch.zeros(2, 9, 17, 3))))
"""
    assert float(told(code)) == pytest.approx(3**0.5)


def test_operators_are_registered_when_torch_comes_first():
    """And a compiled function may be the first to use a name of structloss."""
    code = """
import torch, structloss
assert torch.ops.structloss.objective.default.name() == "structloss::objective"
torch.ops.structloss.ranking_hinge.default
assert "objective" not in vars(structloss)
f = torch.compile(lambda p, t: structloss.objective(p, t, {"mpjpe": 1.0}).total, fullgraph=True, backend="eager")
print(float(f(torch.ones(1, 2, 17, 3), torch.zeros(1, 2, 17, 3))))
"""
    assert float(told(code)) == pytest.approx(3**0.5)


@pytest.fixture
def meta_path(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])


def test_what_waits_for_a_module_is_called_once_when_it_is_complete(tmp_path, monkeypatch, meta_path):
    (tmp_path / "awaited.py").write_text("complete = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = []
    for name in ("one", "two"):  # two that wait for the same
        once_imported("awaited", lambda name=name: said.append((name, sys.modules["awaited"].complete)))
    assert not said
    for _ in range(2):
        importlib.import_module("awaited")
        assert sorted(said) == [("one", True), ("two", True)]
        del sys.modules["awaited"]
    once_imported("sys", lambda: said.append("at once"))
    assert said[-1] == "at once"


def test_a_missing_package_of_structloss_does_not_make_the_import_of_torch_fail(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("no numpy here")

    monkeypatch.setattr(structloss.importlib, "import_module", missing)
    structloss._register_operators()


# ---- the command line --------------------------------------------------------------------------------------------

HELP = """
import sys, time
from structloss.cli import main
try:
    main({arguments})
except SystemExit as stopped:
    assert not stopped.code, stopped.code
print(time.process_time(), *sorted({heavy} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments):
    """Python's own start included, it takes less than 0.3 s of the processor; about 0.08 s where this was written."""
    code = HELP.format(arguments=arguments, heavy=set(HEAVY))
    for _ in range(3):  # the first may compile modules to bytecode
        text, _, last = told(code).rpartition("\n")
        seconds, *loaded = last.split()
        assert not loaded
        assert ("usage: structloss" in text) != (arguments == ["--version"])
        if float(seconds) < 0.3:
            return
    pytest.fail(f"{seconds} s")


@pytest.mark.parametrize("arguments", [["data", "inspect"], ["data", "convert"], ["data", "synthetic"]], ids=" ".join)
def test_help_of_actions_does_without_torch(arguments):
    last = told(HELP.format(arguments=[*arguments, "--help"], heavy=set(HEAVY))).splitlines()[-1]
    assert not {"torch", "lightning", "matplotlib"} & {*last.split()}


def test_an_unknown_flag_is_told_without_torch():
    code = """
import sys
from structloss.cli import main
for arguments in ("demo --step 9", "data convert a b --view 1", "predict x --dev cpu"):
    try:
        main(arguments.split())
    except SystemExit as stopped:  # abbreviated flags are unknown ones
        assert stopped.code == 2
    else:
        raise AssertionError(arguments)
print("torch" in sys.modules)
"""
    assert told(code) == "False"

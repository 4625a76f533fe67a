"""The benchmark: what it times is right, what is wrong isn't timed, and its output holds everything."""

import csv
import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.append(str(BENCH))  # bench is no package: its modules import each other as scripts do

measure, providers, run, step = (importlib.import_module(name) for name in ("measure", "providers", "run", "step"))

SMALL = providers.Shape(2, 27, 17)
QUICK = ("--quick", "--no-tests", "--shapes", "2,27,17")


def eager_providers():
    return [name for name in providers.PROVIDERS if name != "compiled"]  # compiling takes ten seconds


def script(*arguments, name="run.py"):
    return subprocess.run([sys.executable, str(BENCH / name), *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("name", eager_providers())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_providers_agree_with_the_definition(name, dtype):
    provider = providers.PROVIDERS[name]
    if problem := provider.problem("cpu"):
        pytest.skip(problem)
    providers.check(provider, provider.build("cpu"), SMALL, dtype, "cpu")


def test_the_definition_is_the_same_by_rows_by_blocks_and_at_once(monkeypatch):
    pred, target = providers.make_input(providers.Shape(2, 40, 5), torch.float64, ties=True)
    whole = providers.definition(pred, target, ("mpjpe", *providers.RANKING))
    for at_once in (40 * 40, 30):  # a row of frames at once; frames by blocks
        monkeypatch.setattr(providers, "LITERAL_PAIRS", at_once)
        torch.testing.assert_close(providers.definition(pred, target, ("mpjpe", *providers.RANKING)), whole)


def test_input_is_plausible_and_ties_are_ties():
    pred, target = providers.make_input(providers.Shape(4, 243, 17), torch.float32)
    assert 1 < target[..., 2].mean() < 7 and 0.04 < (pred - target).std() < 0.06
    assert (target[:, 1:] - target[:, :-1]).abs().max() < 0.2  # smooth
    pred, target = providers.make_input(SMALL, torch.float32, ties=True)
    z = target[..., 2]
    assert ((z.unsqueeze(-1) == z.unsqueeze(-2)).double().mean()) > 0.15


def test_quick_run_writes_every_provider_to_table_and_csv(tmp_path):
    path = tmp_path / "rows.csv"
    done = script(*QUICK, "--providers", *eager_providers(), "--csv", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no terminal, no progress
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == run.COLUMNS
    assert [row["provider"] for row in rows] == eager_providers()
    for row in rows:
        assert f"(`{row['provider']}`)" in done.stdout
        assert (row["B"], row["T"], row["J"], row["dtype"], row["unit"]) == ("2", "27", "17", "float32", "ms")
        if row["p50"]:
            assert 0 < float(row["p20"]) <= float(row["p50"]) <= float(row["p80"]) and float(row["ratio"]) > 0
        else:
            assert row["note"].startswith("skipped: ") and row["note"] in done.stdout
    timed = {row["provider"] for row in rows if row["p50"]}
    assert {"algorithm12", "torch", "mpjpe-eager"} <= timed
    assert f"torch {torch.__version__}" in done.stdout and "interleaved rounds" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.fixture
def extra_provider(monkeypatch):
    def add(loss, **changes):
        provider = dataclasses.replace(
            providers.PROVIDERS["algorithm12"], name="extra", build=lambda device: loss, **changes
        )
        monkeypatch.setitem(providers.PROVIDERS, "extra", provider)

    return add


def forgets_ties(pred, target):
    """Right everywhere but at equal predictions, where relu passes no gradient."""

    def hinge(p, d):
        return (torch.relu(p.unsqueeze(-1) - p.unsqueeze(-2)) * (d.unsqueeze(-1) < d.unsqueeze(-2))).mean()

    p, d = pred[..., 2], target[..., 2]
    return hinge(p, d) + hinge(p.transpose(1, 2), d.transpose(1, 2))


def crashes(pred, target):
    raise RuntimeError("no such luck\nsecond line")


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (forgets_ties, "wrong: gradient at B = 2, T = 27, J = 17 with ties"),
        (lambda pred, target: 1.001 * providers.algorithm12(pred, target), "wrong: loss at"),
        (lambda pred, target: pred.sum() * float("nan"), "wrong: loss at"),
    ],
    ids=["ties", "off by a thousandth", "nan"],
)
def test_a_wrong_provider_is_caught_and_not_timed(extra_provider, capsys, tmp_path, loss, found):
    extra_provider(loss)
    path = tmp_path / "rows.csv"
    assert run.main([*QUICK, "--providers", "algorithm12", "extra", "--csv", str(path)]) == 1
    out, err = capsys.readouterr()
    assert err == "run.py: error: wrong and therefore not timed: extra.\n"
    assert found in out
    with path.open(newline="") as file:
        rows = {row["provider"]: row for row in csv.DictReader(file)}
    assert rows["algorithm12"]["p50"] and not rows["extra"]["p50"] and rows["extra"]["note"].startswith(found)


def test_a_failing_provider_is_skipped_with_its_reason(extra_provider, capsys):
    extra_provider(crashes)
    assert run.main([*QUICK, "--providers", "torch", "extra"]) == 0
    assert (
        "`extra`, forward + backward: skipped: it failed with RuntimeError: no such luck\n" in capsys.readouterr().out
    )


def test_what_exceeds_the_memory_limit_is_skipped(capsys):
    assert run.main([*QUICK, "--providers", "algorithm12", "torch", "--memory-limit", "0.0001"]) == 0
    out = capsys.readouterr().out
    assert "skipped: needs up to 0.00162 GB, the limit is 0.0001 GB" in out and '| structloss, backend="torch"' in out
    # 10 tensors of 8 * 243 * 17 * (243 + 17) floats
    need = providers.PROVIDERS["algorithm12"].memory_estimate(providers.Shape(8, 243, 17), "forward+backward", 4)
    assert need == 10 * 4 * 8 * 243 * 17 * 260


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "8,243"], "argument --shapes: '8,243' is not a shape, expected B,T,J such as 8,243,17"),
        (["--shapes", "0,1,1"], "argument --shapes: '0,1,1' is not a shape, expected B,T,J such as 8,243,17"),
        (["--rounds", "0"], "argument --rounds: '0' is not a positive integer"),
        (["--budget", "nan"], "argument --budget: 'nan' is not a positive number"),
        (["--providers", "cpu"], "unknown provider 'cpu', expected some of algorithm12, broadcast"),
        (["--crossover", "--sweep"], "--crossover has its own shapes"),
        (["--csv", "no/such/directory/x.csv"], "--csv: the directory no/such/directory doesn't exist"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_arguments_give_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.startswith(f"run.py: error: {message}") and err.count("\n") == 1


def test_turns_interleave_and_slow_ones_sit_out():
    log, clock = [], [0.0]

    def call(name, seconds):
        def tick():
            log.append(name)
            clock[0] += seconds

        return tick

    calls = {"slow": call("slow", 1.0), "fast": call("fast", 0.01)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure.time, "perf_counter", lambda: clock[0])
        times, failures = measure.interleave(calls, 16, 5.0, "cpu")
    assert not failures
    assert list(times["fast"]) == list(range(16)) and list(times["slow"]) == [0, 4, 8, 12]
    assert measure.median_ratio(times["slow"], times["fast"]) == pytest.approx(100)
    assert measure.percentiles({0: 1.0, 1: 2.0, 2: 3.0}) == pytest.approx((1.4, 2.0, 2.6))


def test_peak_memory_of_a_fresh_process_sees_the_quadratic_tensors():
    shape = providers.Shape(2, 243, 17)
    request = {"provider": "algorithm12", "mode": "forward", "shape": shape, "dtype": "float32", "threads": 1}
    tensor = 4 * 2 * 17 * 243 * 243 / measure.MEGABYTE
    assert 2 * tensor < measure.peak_in_fresh_process(request) < 6 * tensor
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        measure.peak_in_fresh_process(request | {"provider": "nobody"})


def test_plot_and_crossover(tmp_path, monkeypatch, capsys):
    files = [tmp_path / name for name in ("a.png", "a.json")]
    shapes = ["--shapes", "1,9,5", "1,27,5"]
    arguments = ["--quick", "--no-tests", *shapes, "--providers", "algorithm12", "torch"]
    assert run.main([*arguments, "--plot", str(files[0]), "--json", str(files[1])]) == 0
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(files[1].read_text())["rows"]) == 4

    monkeypatch.setattr(run, "CROSSOVER_LENGTHS", (16, 64))
    monkeypatch.setattr(run, "CROSSOVER_ELEMENTS", 256)
    assert run.main(["--crossover", "--quick", "--no-tests", "--providers", "torch", "keops"]) == 0
    out = capsys.readouterr().out
    assert "| 64 |" in out and "`keops`: skipped: it isn't a backend" in out


def test_training_step(tmp_path, capsys):
    pytest.importorskip("structloss.backbones")
    path = tmp_path / "rows.csv"
    arguments = ["--backbone", "simplebaseline-16j", "--batch", "2", "--frames", "9", "--rounds", "2", "--no-memory"]
    code = step.main([*arguments, "--csv", str(path)])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "B = 2, T = 9, J = 17" in out and all(loss.summary in out for loss in step.LOSSES.values())
    with path.open(newline="") as file:
        rows = {(row["provider"], row["mode"], row["metric"]): float(row["p50"] or 0) for row in csv.DictReader(file)}
    for name in step.LOSSES:
        if not step.LOSSES[name].problem("cpu"):
            assert rows[name, "step", "throughput"] == pytest.approx(2e3 / rows[name, "step", "time"], rel=1e-4)

    assert step.main(["--backbone", "nobody"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("step.py: error: unknown backbone 'nobody'") and err.count("\n") == 1

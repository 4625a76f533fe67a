"""The benchmark: what it times is right, what is wrong isn't timed, and its output holds everything."""

import csv
import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import structloss
from bench import (
    backbones,
    definition,
    inputs,
    losses,
    lossnet,
    measure,
    overhead,
    providers,
    refine,
    run,
    scaling,
    step,
    stream,
    tables,
)
from bench.plain import poseformer
from structloss.refine import LSTMRefiner, TPNet

ROOT = Path(__file__).resolve().parents[1]
SMALL = inputs.Shape(2, 27, 17)
QUICK = ("--quick", "--no-tests", "--shapes", "2,27,17")


def eager_providers(op=None):
    """Without those that compile first, for ten seconds or more."""
    names = providers.OPS[op].providers if op else providers.PROVIDERS
    return [name for name in names if not name.endswith("compiled") and name != "keops"]


def script(*arguments, folder=ROOT):
    command = [sys.executable, "-m", "bench.run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def checked(name, shape, dtype):
    provider = providers.PROVIDERS[name]
    if problem := provider.why_not("cpu", shape.joints):
        pytest.skip(problem)
    return definition.check(provider.build("cpu", shape.joints), provider.terms, shape, dtype, "cpu", provider.ties)


@pytest.mark.parametrize("name", eager_providers())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_providers_agree_with_the_definition(name, dtype):
    errors = checked(name, SMALL, dtype)
    largest = definition.TOLERANCE[dtype]
    assert 0 <= errors["forward"] <= errors["forward+backward"] <= largest
    assert errors["forward+backward"] > 0  # a right answer is rounded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_distinct_depths_are_those_of_the_input_moved_by_a_few_roundings(dtype):
    shape = inputs.Shape(8, 243, 17)
    pose, _ = inputs.make_input(shape, dtype)
    z, found = pose[..., 2].flatten(), inputs.distinct(pose)
    assert dtype == torch.float64 or len(z.unique()) < len(z), "rounding makes ties"
    assert len(found[..., 2].unique()) == len(z)
    moved = (found[..., 2].flatten() - z).abs().max()
    assert moved <= 100 * torch.finfo(dtype).eps * z.max() and torch.equal(found[..., :2], pose[..., :2])
    assert torch.equal(pose, inputs.make_input(shape, dtype)[0]), "the input is left alone"


def test_what_ignores_ties_is_compared_without_them():
    """Elsewhere it is wrong, and nothing else of the table may be."""
    assert [name for name, provider in providers.PROVIDERS.items() if not provider.ties] == ["argsort"]
    provider = providers.PROVIDERS["argsort"]
    loss = provider.build("cpu", SMALL.joints)
    with pytest.raises(definition.WrongError, match="with ties is off by a relative"):
        definition.check(loss, provider.terms, SMALL, torch.float64, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keops"])
def test_keops_agrees_with_the_definition(name):
    checked(name, SMALL, torch.float32)


@pytest.mark.parametrize("joints", [5, 133])
def test_providers_agree_on_other_bodies(joints):
    shape = inputs.Shape(1, 9, joints)
    checked("repose-eager", shape, torch.float32)
    checked("repose-fused", shape, torch.float32)
    if joints == 133:
        checked("objective-eager", shape, torch.float64)
        checked("objective-torch", shape, torch.float64)
    else:
        problem = providers.PROVIDERS["objective-torch"].why_not("cpu", joints)
        assert problem == "no skeleton that it is benchmarked on has 5 joints."


def test_the_definition_is_the_same_by_rows_by_blocks_and_at_once(monkeypatch):
    pred, target = inputs.make_input(inputs.Shape(2, 40, 5), torch.float64, ties=True)
    for term in providers.RANKING:
        whole = definition.term(term, pred, target)
        for at_once in (40 * 40, 30):  # a row of frames at once; frames by blocks
            monkeypatch.setattr(definition, "PAIRS_AT_ONCE", at_once)
            torch.testing.assert_close(definition.term(term, pred, target), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("joints", [17, 133])
def test_input_is_human(joints):
    pred, target = inputs.make_input(inputs.Shape(4, 243, joints), torch.float64)
    assert 2 < target[..., 2].mean() < 6 and 0.04 < (pred - target).std() < 0.06
    assert (target[:, 1:] - target[:, :-1]).abs().max() < 0.3  # smooth
    skeleton = inputs.skeleton_of(joints)
    bones = torch.tensor(skeleton.tree_bones).T
    lengths = (target[:, :, bones[0]] - target[:, :, bones[1]]).norm(dim=-1)  # [B, T, bones]
    assert lengths.std(1).max() < 1e-9 and lengths.min() > 0.02 and lengths.max() < 1
    for hinge in skeleton.hinges:  # elbows and knees mostly bend the way they can
        c, s, e, w = (target[:, :, joint] for joint in hinge.joints)
        bend = hinge.legal_sign * (torch.linalg.cross(s - c, e - s) * (w - e)).sum(-1)
        assert (bend > 0).double().mean() > 0.7


def test_ties_are_ties():
    _, target = inputs.make_input(SMALL, torch.float32, ties=True)
    z = target[..., 2]
    assert ((z.unsqueeze(-1) == z.unsqueeze(-2)).double().mean()) > 0.15


def test_a_joint_beyond_a_kink_is_left_out_but_no_nan():
    expected = torch.ones(20_000, 3, dtype=torch.float64)
    got = expected.float()
    got[7], got[8] = 5, 6
    assert definition.compare("gradient", "here", got, expected, left_out=2) == 0
    with pytest.raises(definition.WrongError, match="gradient at here is off by a relative"):
        definition.compare("gradient", "here", got, expected, left_out=1)
    got[8] = float("nan")
    with pytest.raises(definition.WrongError):
        definition.compare("gradient", "here", got, expected, left_out=2)


@pytest.mark.parametrize("op", providers.OPS)
def test_quick_run_writes_every_provider_to_table_and_csv(op, tmp_path):
    path, names, baseline = tmp_path / "rows.csv", eager_providers(op), providers.OPS[op].baseline
    done = script(*QUICK, "--op", op, "--providers", *names, "--csv", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no terminal, no progress
    rows = read(path)
    assert tuple(rows[0]) == tables.COLUMNS
    times, errors = ([row for row in rows if row["metric"] == metric] for metric in ("time", "error"))
    assert [row["provider"] for row in times] == names and len(rows) == len(times) + len(errors)
    for row in times:
        assert f"(`{row['provider']}`)" in done.stdout
        assert (row["B"], row["T"], row["J"], row["dtype"], row["unit"]) == ("2", "27", "17", "float32", "ms")
        if row["p50"]:
            assert 0 < float(row["p20"]) <= float(row["p50"]) <= float(row["p80"]) and float(row["ratio"]) > 0
        else:
            assert row["note"].startswith("skipped: ") and row["note"] in done.stdout
        if row["provider"] == baseline:
            assert float(row["ratio"]) == 1
    timed = [row["provider"] for row in times if row["p50"]]
    assert [row["provider"] for row in errors] == timed and {baseline, "mpjpe-eager"} <= set(timed)
    assert all(0 < float(row["p50"]) < 2e-5 and row["unit"] == "relative" for row in errors)
    assert f"torch {torch.__version__}" in done.stdout and "interleaved rounds" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_without_the_tests_only_the_definition_is_checked(tmp_path):
    """As the source distribution has it: the package with the definitions, and no other tests."""
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copytree(ROOT / "tests" / "reference", tmp_path / "tests" / "reference")
    done = script("--quick", "--shapes", "1,9,17", "--providers", "torch", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ("bench.run: the tests are not here: only the check against the float64 definition runs.\n")
    assert "(`torch`)" in done.stdout


def test_without_a_definition_nothing_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(definition, "REFERENCE", tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing is timed that wasn't compared"):
        definition.reference.__wrapped__("pairwise")


def test_failing_tests_stop_the_benchmark(tmp_path, monkeypatch, capsys):
    (tmp_path / "test_objective.py").write_text("def test_wrong():\n    assert 1 == 2\n")
    monkeypatch.setattr(run, "TESTS", tmp_path)
    assert run.main(["--quick", "--shapes", "1,9,17", "--providers", "torch"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "assert 1 == 2" in err
    assert err.endswith("bench.run: error: tests/test_objective.py: tests fail, so nothing was timed.\n")


@pytest.fixture
def extra_provider(monkeypatch):
    def add(loss, **changes):
        provider = dataclasses.replace(
            providers.PROVIDERS["algorithm12"], name="extra", build=lambda device, joints: loss, **changes
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
    assert err == "bench.run: error: wrong and therefore not timed: extra.\n"
    assert found in out
    rows = {row["provider"]: row for row in read(path) if row["metric"] == "time"}
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
    need = providers.PROVIDERS["algorithm12"].memory_estimate(inputs.Shape(8, 243, 17), "forward+backward", 4)
    assert need == 10 * 4 * 8 * 243 * 17 * 260


def test_what_exceeds_the_time_limit_is_skipped(extra_provider, monkeypatch, capsys):
    extra_provider(providers.algorithm12)
    monkeypatch.setattr(losses, "QUICK_PAIRS", 1000)
    monkeypatch.setattr(measure, "seconds_of", lambda call, repeats, device: 0.02)
    assert run.main(["--quick", "--no-tests", "--shapes", "1,64,1", "--providers", "extra"]) == 0
    assert "skipped: " not in capsys.readouterr().out
    # From 16 frames with 16 * 17 pairs to 2048 * 2049.
    assert run.main(["--quick", "--no-tests", "--shapes", "1,2048,1", "--providers", "extra"]) == 0
    assert "skipped: a call takes about 309 s, the limit is 10 s" in capsys.readouterr().out


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
    assert err.startswith(f"bench.run: error: {message}") and err.count("\n") == 1


def test_a_gpu_has_defaults_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for op in providers.OPS:
        args = run.parse_arguments(["--op", op, "--device", "cuda"])
        assert args.shapes == (providers.GPU_SHAPE,) and [path.name for path in args.tests] == ["test_gpu.py"]
        args = run.parse_arguments(["--op", op])
        assert args.shapes == (providers.OPS[op].default_shape,)
        assert [path.name for path in args.tests] == list(providers.OPS[op].tests)


def test_a_check_on_a_gpu_takes_fewer_clips_before_shorter_ones():
    assert definition.checked_shape(inputs.Shape(8, 243, 17), "cuda") == inputs.Shape(8, 243, 17)
    few = definition.checked_shape(inputs.Shape(2048, 4096, 17), "cuda")
    assert few.frames == 4096 and 1 <= few.batch < 10 and few.pairs <= definition.MAX_GPU_PAIRS
    longest = definition.checked_shape(inputs.Shape(4, 65536, 17), "cuda")
    assert longest.batch == 1 and 1000 < longest.frames < 65536
    assert definition.checked_shape(inputs.Shape(2048, 243, 17), "cpu").batch == 2048


def test_bfloat16_is_compared_with_its_own_rounding():
    for name in ("repose-torch", "objective-torch"):
        provider = providers.PROVIDERS[name]
        loss = provider.build("cpu", 17)
        errors = definition.check(loss, provider.terms, SMALL, torch.bfloat16, "cpu")
        assert errors["forward"] < 1e-5 < errors["forward+backward"] < definition.TOLERANCE[torch.bfloat16]
        with pytest.raises(definition.WrongError, match="gradient at"):
            definition.check(
                lambda p, d, loss=loss: loss(p, d) + 0.01 * (p - p.detach()).sum(), provider.terms, SMALL,
                torch.bfloat16, "cpu",
            )  # fmt: skip


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


@pytest.mark.slow(seconds=4)
def test_peak_memory_of_a_fresh_process_sees_the_quadratic_tensors():
    shape = inputs.Shape(2, 243, 17)
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
    assert len(json.loads(files[1].read_text())["rows"]) == 8

    monkeypatch.setattr("bench.crossover.LENGTHS", (16, 64))
    monkeypatch.setattr("bench.crossover.ELEMENTS", 256)
    assert run.main(["--crossover", "--quick", "--no-tests", "--providers", "torch", "keops"]) == 0
    out = capsys.readouterr().out
    assert "| 64 |" in out and "`keops`: skipped: it isn't a backend" in out


def test_time_per_frame(tmp_path, capsys):
    table, image = tmp_path / "rows.csv", tmp_path / "a.svg"
    arguments = ["--per-frame", "--op", "objective", "--quick", "--no-tests", "--shapes", "6,9,17", "2,27,17"]
    arguments += ["--providers", "mpjpe-eager", "objective-torch"]
    assert run.main([*arguments, "--csv", str(table), "--plot", str(image)]) == 0
    out = capsys.readouterr().out
    assert "ns per frame (p20–p80) | × that at T = 9 |" in out and "| `objective-torch` | 27 | 2 | 17 |" in out
    rows = {(row["provider"], row["T"], row["metric"]): row for row in read(table)}
    for name in ("mpjpe-eager", "objective-torch"):
        first, second = (rows[name, frames, "time_per_frame"] for frames in ("9", "27"))
        assert float(first["ratio"]) == 1 and float(second["ratio"]) > 0 and float(second["p50"]) > 0
        assert float(rows[name, "27", "error"]["p50"]) < 2e-5
    text = image.read_text()
    assert "frames T of a clip" in text or "<path" in text


def test_training_step(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    arguments = ["--backbone", "simplebaseline-16j", "--batch", "2", "--frames", "9", "--rounds", "2"]
    code = step.main([*arguments, "--no-memory", "--csv", str(path)])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "B = 2, T = 9, J = 17" in out and all(f"(`{name}`)" in out for name in step.LOSSES)
    rows = {(row["provider"], row["mode"], row["metric"]): float(row["p50"] or 0) for row in read(path)}
    for name in step.LOSSES:
        if not providers.PROVIDERS[name].problem("cpu"):
            assert rows[name, "step", "throughput"] == pytest.approx(2e3 / rows[name, "step", "time"], rel=1e-4)
            assert rows[name, "loss", "share_of_step"] > 0
    if not providers.PROVIDERS[step.FUSED].problem("cpu"):
        assert "MPJPE + L_S + L_T fused: " in out and " times the clips per second.\n" in out

    assert step.main(["--backbone", "nobody"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bench.step: error: unknown backbone 'nobody'") and err.count("\n") == 1


def test_loss_net_in_a_training_step(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    small = ["--backbones", "simplebaseline-16j", "--batch", "1", "--frames", "4", "--rounds", "2"]
    assert lossnet.main([*small, "--nets", "linear-small@2", "graph-small", "--csv", str(path)]) == 0
    out = capsys.readouterr().out
    assert "| linear-small@2 | 1 x 4 |" in out and "| mpjpe | 1 x 4 |" in out
    rows = {(row["provider"], row["metric"]): float(row["p50"]) for row in read(path)}
    assert rows["mpjpe", "step"] > 0
    for name in ("linear-small@2", "graph-small"):
        parts = rows[name, "update"] + rows[name, "energy"]
        assert rows[name, "share_of_step"] > 0 and parts < 3 * rows[name, "step"]
    assert lossnet.main([*small, "--nets", "grahp"]) == 2
    assert "unknown loss network 'grahp'" in capsys.readouterr().err


def test_the_expected_cost_of_many_gpus_is_the_formula():
    cluster = scaling.Cluster(tflops=100, inside=300, between=50, latency=0)
    # 10 million parameters, 40 MB; 600 million operations of 1000 clips: 6 ms
    assert scaling.reckon(10_000_000, 1e8, 1000, 1, cluster) == (pytest.approx(6e-3), 0, 1, 1)
    computing, sending, without, overlapped = scaling.reckon(10_000_000, 1e8, 1000, 4, cluster)
    assert computing == pytest.approx(6e-3) and sending == pytest.approx(2 * 3 / 4 * 40e6 / 300e9)
    assert without == pytest.approx(6 / 6.2) and overlapped == pytest.approx(6 / (6 + 1.5 * 25 * 2**20 / 300e6))
    *_, sending, without, overlapped = scaling.reckon(10_000_000, 1e8, 1000, 16, cluster)
    assert sending == pytest.approx(2 * 15 / 16 * 40e6 / 50e9) and without < overlapped < 1
    slow = scaling.Cluster(tflops=100, inside=300, between=1, latency=0)  # longer than the backward pass
    *_, sending, without, overlapped = scaling.reckon(10_000_000, 1e8, 1000, 16, slow)
    assert overlapped == pytest.approx(6e-3 / (6e-3 + sending - 4e-3))
    late = scaling.Cluster(tflops=100, inside=300, between=50, latency=10)
    assert scaling.reckon(10_000_000, 1e8, 1000, 16, late)[1] == pytest.approx(2 * 15 / 16 * 40e6 / 50e9 + 300e-6)


def test_the_page_has_the_expected_cost_that_the_command_writes(tmp_path, capsys):
    assert scaling.main(["expect", "--out", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == text == (ROOT / "bench/results/scaling_expected.md").read_text()
    assert text in (ROOT / "docs/scaling.md").read_text()
    with pytest.raises(SystemExit):
        scaling.main(["expect", "--between", "0"])


def test_what_a_streamed_pose_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "LAGS", {"lift-27": (2, 13)})
    monkeypatch.setattr(stream.samples, "names", lambda: ("walk",))
    path = tmp_path / "stream.csv"
    assert stream.main(["--rounds", "1", "--threads", "1", "--csv", str(path)]) == 0
    rows = read(path)
    assert [row["provider"] for row in rows[::5]] == ["lift-27, 2 late", "lift-27, 13 late"]
    assert all(float(row["p50"]) > 0 for row in rows)
    steps = [float(row["p50"]) for row in rows if row["metric"] == "mpjve"]
    assert steps[0] > steps[1]  # waiting makes motion smoother
    monkeypatch.setattr(stream, "LAGS", {"lift-27": (13,)})
    monkeypatch.setattr(stream, "predict", lambda *_: SimpleNamespace(positions=np.zeros((185, 17, 3))))
    assert stream.main(["--rounds", "1"]) == 1  # what is wrong isn't timed


def test_what_a_refined_pose_costs(tmp_path, capsys, monkeypatch):
    small = {"tp-net": lambda: TPNet(hidden=16, future=2), "lstm": lambda: LSTMRefiner(hidden=16)}
    monkeypatch.setattr(refine, "NETWORKS", small)
    path = tmp_path / "rows.csv"
    assert refine.main(["--rounds", "9", "--threads", "1", "--csv", str(path)]) == 0
    out, rows = capsys.readouterr().out, read(path)
    assert {(row["provider"], row["mode"], row["metric"]) for row in rows} == {
        (name, mode, metric)
        for name in small
        for mode, metric in (
            ("stream", "time"), ("stream", "mean_time"), ("stream", "busy_time"), ("clip", "time_per_frame")
        )
    }  # fmt: skip
    assert all(0 < float(row["p50"]) < 1000 and row["unit"] == "ms" for row in rows)
    assert all(f"| {name} | " in out for name in small)
    monkeypatch.setattr(TPNet, "step", lambda self, window, state: (window[:, 0], None))
    assert refine.main(["--rounds", "3"]) == 1
    assert "the stream of tp-net is" in capsys.readouterr().err


def test_what_a_call_costs_against_an_addition(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    assert overhead.main(["--rounds", "3", "--threads", "1", "--csv", str(path)]) == 0
    out = capsys.readouterr().out
    assert "B = 1, T = 9, J = 17" in out and "| × torch.add |" in out
    rows = {(row["provider"], row["mode"]): row for row in read(path)}
    names = ["torch.add", *(call.name for call in overhead.CALLS)]
    assert [*rows] == [("torch.add", mode) for mode in overhead.MODES] + [
        (name, mode) for name in names[1:] for mode in overhead.MODES
    ]
    for mode in overhead.MODES:
        assert float(rows["torch.add", mode]["ratio"]) == 1
        for name in names:
            assert f"| {name} | " in out and rows[name, mode]["unit"] == "us"
            assert 0 < float(rows[name, mode]["p20"]) <= float(rows[name, mode]["p80"])
    pattern = re.compile(r"^\| mpjpe \| ([\d.]+) \([\d.]+–[\d.]+\) \| ([\d.]+) \|", re.MULTILINE)
    time, ratio = map(float, pattern.search(out).groups())
    row = rows["mpjpe", "forward"]
    assert (time, ratio) == (pytest.approx(float(row["p50"]), 0.01), pytest.approx(float(row["ratio"]), 0.01))


def test_a_wrong_call_is_not_timed(monkeypatch, capsys):
    right = structloss.mpjpe
    monkeypatch.setattr(structloss, "mpjpe", lambda pred, target: 1.01 * right(pred, target))
    assert overhead.main(["--rounds", "3"]) == 1
    assert "bench.overhead: error: wrong and therefore not timed" in capsys.readouterr().err


@pytest.mark.slow(seconds=4)
def test_memory_of_a_training_step_is_measured_in_a_fresh_process(capsys):
    arguments = ["--backbone", "simplebaseline-16j", "--batch", "1", "--frames", "9", "--rounds", "1"]
    assert step.main([*arguments, "--losses", "repose-eager"]) == 0
    out = capsys.readouterr().out
    assert "memory not measured" not in out and "peak memory of a step, MB" in out


def test_micro_benchmarks_check_before_they_time():
    """The benchmarks themselves are run by hand, `make bench-micro`."""
    micro = importlib.import_module("bench.test_micro")
    pred, target = inputs.make_input(SMALL, torch.float32)

    def right(pred, target, backend):
        return structloss.mpjpe(pred, target, backend=backend)

    def wrong(pred, target, backend):
        return right(pred, target, backend) * (1.001 if pred.dtype == torch.float32 else 1)

    value, gradient = micro.checked(right, pred, target, "torch")()
    assert value > 0 and gradient.shape == pred.shape
    with pytest.raises(definition.WrongError, match="value at torch is off"):
        micro.checked(wrong, pred, target, "torch")


def test_backbones_against_their_plain_form(tmp_path, capsys):
    path = tmp_path / "backbones.csv"
    arguments = ["--backbones", "poseformer-27", "simplebaseline-16j", "--modes", *backbones.MODES, "--rounds", "3"]
    assert backbones.main([*arguments, "--no-memory", "--csv", str(path)]) == 0
    out = capsys.readouterr().out
    assert "### Forward, B = 1, float32" in out and "### Forward + backward" in out
    rows = read(path)
    assert [(r["op"], r["mode"], r["provider"]) for r in rows] == [
        (f"backbone {name}", mode, provider)
        for name in ("poseformer-27", "simplebaseline-16j")
        for mode in backbones.MODES
        for provider in ("plain", "structloss")
    ]
    assert all(
        float(r["p50"]) > 0 and r["unit"] == "ms" and r["T"] == ("27" if "pose" in r["op"] else "1") for r in rows
    )
    assert [float(r["ratio"]) == 1 for r in rows[::2]] == [True] * 4


@pytest.mark.slow(seconds=5)
def test_memory_of_a_backbone(tmp_path):
    path = tmp_path / "backbones.csv"
    assert backbones.main(["--backbones", "poseformer-81", "--rounds", "3", "--csv", str(path)]) == 0
    memory = {r["provider"]: float(r["p50"]) for r in read(path) if r["metric"] == "peak_extra_memory"}
    assert 5 < memory["structloss"] < 1.1 * memory["plain"]


def test_a_wrong_backbone_is_not_timed(monkeypatch, capsys):
    case = backbones.Case("poseformer-27", 1, "cpu")
    case.check(("plain", "structloss"), torch.float32)
    right = poseformer.forward
    monkeypatch.setattr(poseformer, "forward", lambda *args, **kwargs: right(*args, **kwargs) * 1.001)
    assert backbones.main(["--backbones", "poseformer-27"]) == 1
    err = capsys.readouterr().err
    assert "wrong and therefore not timed: structloss of poseformer-27 differs from the plain form" in err
    assert backbones.main(["--backbones", "nobody"]) == 2
    assert "unknown backbone 'nobody'" in capsys.readouterr().err

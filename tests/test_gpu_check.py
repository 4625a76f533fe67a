"""bench/gpu_check.sh, as far as it goes without a GPU: its steps, what makes it fail, and its tables."""

import argparse
import csv
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import structloss
from bench import gpu_check, gpu_sanitize, gpu_speed, inputs, measure, providers, tables

BENCH = Path(__file__).resolve().parents[1] / "bench"
needs_cpp = pytest.mark.skipif(not structloss.backends()["cpp"], reason="no compiled module")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def script(tmp_path, code, name="python"):
    """An executable that runs `code`, with its arguments in sys.argv."""
    path = tmp_path / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def process(tmp_path):
    """What a process with this output and exit code is judged to be."""

    def start(code, seconds=30.0):
        command = [sys.executable, "-c", code]
        return gpu_check.Process(command, tmp_path / f"{time.monotonic_ns()}.log", seconds)

    return start


# ---- the whole script --------------------------------------------------------------------------------------------


@needs_cpp
@pytest.mark.slow
def test_dry_run(tmp_path):
    rows = tmp_path / "rows.csv"
    command = ["bash", str(BENCH / "gpu_check.sh"), "--dry-run", "--logs", str(tmp_path / "logs"), "--csv", str(rows)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("|---|") == 2  # a table of losses, one of parts
    for name in ("repose", "objective"):
        for backend in ("torch", "cpp"):
            assert f"| `{name}-{backend}` | " in done.stdout
    assert "| skipped |" not in done.stdout and "| wrong |" not in done.stdout
    for step in (
        "machine",
        "backends",
        "tests of torch",
        "tests of cpp",
        "memcheck's program",
        "benchmark",
        "benchmark of parts",
    ):
        assert f"  ok       {step}" in done.stdout, step
    assert "  left out build" in done.stdout
    found = read(rows)
    assert tuple(found[0]) == tables.COLUMNS
    times = {(row["provider"], row["dtype"]) for row in found if row["metric"] == "time" and row["p50"]}
    assert {("repose-cpp", "float32"), ("repose-cpp", "bfloat16"), ("objective-cpp", "float32")} <= times
    parts = {row["provider"] for row in read(tmp_path / "rows_parts.csv") if row["metric"] == "time" and row["p50"]}
    assert parts == {"grid-sample", "torch", "cpp"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "logs",
        "rows.csv",
        "rows_parts.csv",
    ]  # whole files only


@pytest.mark.slow(seconds=6)
@needs_cpp
def test_a_backend_whose_tests_fail_is_not_timed(tmp_path, monkeypatch, capsys):
    def processes(python, backends, logs, args):
        codes = {"torch": "print('3 passed in 1s')", "cpp": "print('1 failed, 2 passed in 1s'); raise SystemExit(1)"}
        return {
            f"tests of {name}": gpu_check.Process([python, "-c", codes[name]], logs / f"{name}.log", 60)
            for name in backends
        }

    monkeypatch.setattr(gpu_check, "test_processes", processes)
    rows = tmp_path / "rows.csv"
    arguments = ["--dry-run", "--no-sanitizer", "--logs", str(tmp_path), "--csv", str(rows)]
    assert gpu_check.main(arguments) == 1
    out = capsys.readouterr().out
    assert out.rstrip().endswith("FAILED: tests of cpp.")
    assert "| `repose-cpp` | not timed | –" in out and "`repose-torch` | not timed" not in out
    assert "not timed: its tests failed" in out and "1 failed, 2 passed in 1s (exit code 1)" in out
    assert {row["provider"] for row in read(tmp_path / "rows_parts.csv")} == {"grid-sample", "torch"}
    for row in read(rows):
        if row["provider"].endswith("-cpp"):
            assert row["p50"] == "" and row["note"] == "not timed: its tests failed"


@pytest.mark.slow(seconds=4)
def test_the_rest_goes_on_without_the_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "test_processes", lambda *a: {})
    assert gpu_check.main(["--dry-run", "--no-sanitizer", "--no-benchmark", "--logs", str(tmp_path)]) == (
        0 if structloss.backends()["cpp"] else 1
    )
    assert "left out benchmark" in capsys.readouterr().out


# ---- its steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "code", "outcome"),
    [
        ("=== 12 passed in 3.1s ===", 0, "ok"),
        ("12 passed, 3 skipped in 3.1s", 0, "ok"),
        ("15 skipped in 3.1s", 0, "FAILED"),  # nothing was tested
        ("no tests ran in 0.1s", 5, "FAILED"),
        ("1 failed, 11 passed in 3.1s", 1, "FAILED"),
        ("12 passed in 3.1s", 139, "FAILED"),  # crashed at its end
        ("", -11, "FAILED"),
    ],
)
def test_verdict_of_tests(process, capsys, output, code, outcome):
    step = gpu_check.tests_step("tests of cuda", process(f"import os; print({output!r}, flush=True); os._exit({code})"))
    assert step.outcome == outcome
    assert output.strip("= ") in step.detail


def test_tests_that_hang_are_ended_with_what_they_started(process, tmp_path, capsys):
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    hanging = process(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])", seconds=3)
    step = gpu_check.tests_step("tests of cuda", hanging)
    assert step.outcome == "FAILED" and "no end after 3 s" in step.detail and step.seconds < 30
    for _ in range(50):
        status = Path(f"/proc/{pid.read_text()}/status")
        if not status.exists() or "\nState:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    pytest.fail("a process is left")


@pytest.mark.parametrize(
    ("output", "code", "outcome"),
    [
        ("36 of 36 calls of cuda\n========= ERROR SUMMARY: 0 errors", 0, "ok"),
        ("36 of 36 calls of cuda\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, "ok"),
        ("36 of 36 calls of cuda\n========= ERROR SUMMARY: 2 errors", gpu_check.SANITIZER_ERROR, "FAILED"),
        ("========= Error: Device not supported. Please refer to ...", 1, "left out"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", 1, "FAILED"),
        ("36 of 36 calls of cuda", 0, "FAILED"),  # the sanitizer said nothing
        ("========= ERROR SUMMARY: 0 errors", 0, "FAILED"),  # nothing was called
    ],
)
def test_verdict_of_a_sanitizer(process, capsys, output, code, outcome):
    step = gpu_check.sanitizer_step("memcheck", process(f"print({output!r}); raise SystemExit({code})"))
    assert step.outcome == outcome


def test_without_a_sanitizer_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: None)
    started = gpu_check.sanitizer_processes("python3", tmp_path, argparse.Namespace(dry_run=False))
    for tool in ("memcheck", "racecheck"):
        step = gpu_check.sanitizer_step(tool, started[tool])
        assert (step.outcome, step.detail) == ("left out", "compute-sanitizer is not on the PATH")


def test_sanitizer_commands(tmp_path, monkeypatch):
    """What is started, seen by a compute-sanitizer that reports its arguments."""
    code = "import os; print(' '.join(sys.argv[1:]), '| caching off:', 'PYTORCH_NO_CUDA_MEMORY_CACHING' in os.environ)"
    found = script(tmp_path, code, "compute-sanitizer")
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: found)
    started = gpu_check.sanitizer_processes("python3", tmp_path, argparse.Namespace(dry_run=False))
    for tool, process in started.items():
        assert process.wait() == 0
        text = process.text()
        assert f"--tool {tool} " in text and f"--error-exitcode {gpu_check.SANITIZER_ERROR}" in text
        assert "python3 -m bench.gpu_sanitize" in text and f"caching off: {tool == 'memcheck'}" in text


@pytest.mark.parametrize(
    ("refusal", "flag"),
    [("error: externally-managed-environment", "--break-system-packages"), ("[Errno 13] Permission denied", "--user")],
)
def test_build_tries_what_a_refusing_pip_needs(tmp_path, refusal, flag):
    code = f"print(sys.argv)\nif {flag!r} not in sys.argv:\n    print({refusal!r})\n    sys.exit(1)"
    step = gpu_check.build(script(tmp_path, code), tmp_path)
    assert (step.outcome, step.detail) == ("ok", f"pip install {flag} -e .")
    arguments = (tmp_path / "build_1.log").read_text()
    assert all(x in arguments for x in ("--no-build-isolation", "--no-deps", "--no-index", "'-e', '.'", flag))


def test_a_build_that_fails_shows_why(tmp_path, capsys):
    step = gpu_check.build(script(tmp_path, "print('no such luck')\nsys.exit(3)"), tmp_path)
    assert (step.outcome, step.detail) == ("FAILED", "pip's exit code 3")
    assert "no such luck" in capsys.readouterr().out
    assert not (tmp_path / "build_1.log").exists()


def test_a_backend_that_was_not_built_is_told_with_the_compilers_errors(tmp_path, capsys):
    (tmp_path / "build_0.log").write_text("fine\nobjective.cu(7): error: no such function\nfine\n")
    step = gpu_check.available(sys.executable, ["torch", "cuda"], tmp_path)
    if structloss.backends()["cuda"]:
        assert step.outcome == "ok"
        return
    assert step.outcome == "FAILED"
    out = capsys.readouterr().out
    assert "cuda: " in out and "objective.cu(7): error: no such function" in out and "fine" not in out


def test_names_of_files():
    assert gpu_check.slug("NVIDIA H200") == "nvidia-h200"
    assert gpu_check.slug("NVIDIA GeForce RTX 4090 (24 GB)") == "nvidia-geforce-rtx-4090-24-gb"


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=needs_cpp)])
def test_what_the_sanitizer_watches(backend, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_sanitize.py", "--backend", backend, "--device", "cpu", "--seconds", "3"])
    assert gpu_sanitize.main() == 0
    assert f"calls of {backend}" in capsys.readouterr().out


def test_the_sanitized_program_fails_on_what_is_not_finite(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_sanitize.py", "--device", "cpu"])
    monkeypatch.setattr(gpu_sanitize, "cases", lambda *a: [("one", lambda: torch.tensor(float("nan")))])
    assert gpu_sanitize.main() == 1
    assert capsys.readouterr().out == "not finite: one\n"


# ---- its benchmark -----------------------------------------------------------------------------------------------


def operators_of(call):
    """How many operators of PyTorch a call runs."""
    with _Operators() as counted:
        call()
    return counted.operators


class _Operators(TorchDispatchMode):
    operators = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operators += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_a_pretended_gpu(monkeypatch):
    """Runs the GPU's branches on the CPU: "triton" and "cuda" are the PyTorch backend, a graph makes its calls.

    Every operator of PyTorch takes a millisecond, so that the figures do not depend on what else the machine does.
    """

    class Device(str):
        def __eq__(self, other):
            return other in ("cpu", "cuda")

        __hash__ = str.__hash__

    memory = {"free": 10**10}
    monkeypatch.setattr(measure, "seconds_of", lambda call, repeats, device: 1e-3 * operators_of(call))
    monkeypatch.setattr(measure, "available_memory", lambda device: memory["free"])
    monkeypatch.setattr(measure, "peak_of_call", lambda call, device: 5_000_000)
    monkeypatch.setattr(measure, "replayed", lambda calls: lambda: [call() for call in calls])
    monkeypatch.setattr(gpu_speed, "clear_cache", lambda device: None)
    monkeypatch.setattr(gpu_speed, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(tables, "device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(gpu_speed.definition, "checked_shape", lambda shape, device: shape._replace(batch=1))
    monkeypatch.setitem(
        providers.PROVIDERS,
        "repose-compiled",
        dataclasses.replace(providers.PROVIDERS["repose-compiled"], build=providers.PROVIDERS["repose-eager"].build),
    )
    for name in ("triton", "cuda"):
        for op in ("repose", "objective"):
            same = dataclasses.replace(providers.PROVIDERS[f"{op}-torch"], name=f"{op}-{name}")
            monkeypatch.setitem(providers.PROVIDERS, same.name, same)
    case = gpu_speed.Case("repose", inputs.Shape(8, 9, 17), compiled=True)
    monkeypatch.setattr(gpu_speed, "PLAN", (case, case._replace(dtype="bfloat16", compiled=False)))
    parse = gpu_speed.parse_arguments

    def parse_arguments(argv):
        args = parse(["--dry-run", *argv])
        args.dry_run, args.device, args.cache_bytes = False, Device("cpu"), 10_000
        args.backends = ("torch", "triton", "cuda")
        return args

    monkeypatch.setattr(gpu_speed, "parse_arguments", parse_arguments)
    return memory


def test_table_of_a_gpu(on_a_pretended_gpu, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    assert gpu_speed.main(["--csv", str(path)]) == 0
    out = capsys.readouterr().out
    rows = {(row["provider"], row["dtype"], row["metric"]): row for row in read(path)}
    for name in ("repose-triton", "repose-cuda"):
        for dtype in ("float32", "bfloat16"):
            once, replayed, copied = (
                float(rows[key, dtype, metric]["p50"])
                for key, metric in ((name, "time"), (name, "time_replayed"), ("copy", "time"))
            )
            assert replayed == pytest.approx(once)  # of one call, however many the graph has
            share = float(rows[name, dtype, "share_of_copy"]["p50"])
            assert 0 < share < 1 and copied < once
            assert float(rows[name, dtype, "time"]["ratio"]) > 0
        assert float(rows[name, "float32", "faster_than_compiled"]["p50"]) > 0
        assert float(rows[name, "float32", "peak_extra_memory"]["p50"]) == 5
    assert float(rows["repose-compiled", "float32", "error"]["p50"]) < 2e-5
    assert ("repose-torch", "float32", "time_replayed") not in rows and float(
        rows["large copy", "float32", "bandwidth"]["p50"]
    )
    assert out.count("|---|") == 1 and "L2 cache" in out and "NVIDIA H200" in out
    size = 3 * 3 * 8 * 9 * 17 * 4  # pred, target and gradient of three floats each
    assert gpu_speed.PLAN[0].bytes == size
    rate = size / 1e6 / float(rows["copy", "float32", "time"]["p50"])
    assert float(rows["copy", "float32", "bandwidth"]["p50"]) == pytest.approx(rate, rel=1e-4)


def test_what_does_not_fit_is_measured_with_fewer_clips(on_a_pretended_gpu, capsys):
    # 10 and 3 tensors of 8 * 9 * 17 * 26 pairs: 1.27 and 0.38 MB; of a quarter of the clips 0.32 MB
    on_a_pretended_gpu["free"] = 600_000
    assert gpu_speed.main([]) == 0
    out = capsys.readouterr().out
    assert "| repose, float32, 8, 9 | `repose-eager` | skipped" in out
    assert "`repose-eager`, repose, float32, 8, 9: skipped: needs up to 0.00127 GB, the limit is 0.00036 GB" in out
    assert (
        "| repose, float32, 2, 9 | `repose-eager` | skipped" not in out
        and "| repose, float32, 2, 9 | `repose-cuda`" in out
    )


def test_slow_quadratic_providers_are_left_out(on_a_pretended_gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu_speed, "CALL_SECONDS", 1e-9)
    monkeypatch.setattr(gpu_speed, "BUSY_PAIRS", 1000)
    assert gpu_speed.main([]) == 0
    out = capsys.readouterr().out
    assert "skipped: a call takes about" in out and "| `repose-eager` | skipped" in out
    assert "| `repose-cuda` | skipped" not in out


def test_after_the_budget_shapes_are_skipped(on_a_pretended_gpu, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    assert gpu_speed.main(["--budget", "1e-9", "--csv", str(path)]) == 0
    assert "seconds" not in capsys.readouterr().err
    rows = [row for row in read(path) if row["provider"] != "large copy"]
    assert len(rows) == 13 and all("for the benchmark were over" in row["note"] for row in rows)


def test_a_wrong_backend_is_not_timed(on_a_pretended_gpu, monkeypatch, capsys):
    def off(device, joints):
        right = providers.PROVIDERS["repose-torch"].build(device, joints)
        return lambda pred, target: 1.001 * right(pred, target)

    wrong = dataclasses.replace(providers.PROVIDERS["repose-cuda"], build=off)
    monkeypatch.setitem(providers.PROVIDERS, "repose-cuda", wrong)
    assert gpu_speed.main([]) == 1
    out, err = capsys.readouterr()
    assert "| `repose-cuda` | wrong | –" in out and "wrong and therefore not timed: repose-cuda." in err


def test_a_backend_that_differs_on_the_whole_batch_alone_is_not_timed(on_a_pretended_gpu, monkeypatch, capsys):
    """The definition looks at some of the clips; the rest is compared with the PyTorch backend."""

    def off(device, joints):
        right = providers.PROVIDERS["repose-torch"].build(device, joints)
        return lambda pred, target: right(pred, target) * (1.001 if len(pred) == 8 else 1)

    for name in ("repose-cuda", "repose-compiled"):
        wrong = dataclasses.replace(providers.PROVIDERS[name], build=off)
        monkeypatch.setitem(providers.PROVIDERS, name, wrong)
    assert gpu_speed.main([]) == 1
    out = capsys.readouterr().out
    assert "| `repose-cuda` | wrong | –" in out and "| `repose-compiled` | wrong | –" in out
    assert "compared with the PyTorch backend" in out


def test_a_failing_capture_leaves_the_other_figures(on_a_pretended_gpu, monkeypatch, capsys):
    def refuse(calls):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(measure, "replayed", refuse)
    assert gpu_speed.main([]) == 0
    out = capsys.readouterr().out
    assert "`repose-cuda`, repose, float32, 8, 9: not captured in a CUDA graph: RuntimeError" in out
    assert "| `repose-cuda` | not" not in out


def test_many_clips_repeat_few_and_differ():
    pred, target = inputs.make_many(inputs.Shape(5, 9, 17), torch.float32, "cpu", joints_at_most=2 * 9 * 17)
    assert pred.shape == target.shape == (5, 9, 17, 3)
    for x in (pred, target):
        off = (x[0] - x[2]).std()
        assert 0.5 * inputs.JITTER < off < 2 * inputs.JITTER
    assert (target[0] - target[1]).std() > 10 * inputs.JITTER
    same = inputs.make_many(inputs.Shape(2, 9, 17), torch.float32, "cpu")
    torch.testing.assert_close(same[0], inputs.make_input(inputs.Shape(2, 9, 17), torch.float32)[0])


def test_calls_take_turns():
    log = []
    call = measure.in_turn([lambda k=k: log.append(k) for k in range(3)])
    for _ in range(5):
        call()
    assert log == [0, 1, 2, 0, 1]

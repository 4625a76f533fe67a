"""Everything that a machine with an NVIDIA GPU tells about structloss, in one command and without network.

Build; GPU tests, one process per backend; compute-sanitizer's memcheck and racecheck of the CUDA kernels, beside the
tests; the benchmarks, without the backends whose tests failed. A step that fails doesn't stop the others; the summary
at the end says what failed, and makes the exit code 1. Run it as bench/gpu_check.sh.

Nothing but the standard library is imported here: this runs before structloss is built.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD_SECONDS, TEST_SECONDS, SANITIZER_SECONDS = 240, 170, 120
LEAST_BENCHMARK_SECONDS = 45
# For what follows the benchmark's last shape: it doesn't break off in the middle of one.
TAIL_SECONDS = 25
WORKERS = 4  # test processes a backend: Triton's compiler takes most of the time
SANITIZER_ERROR = 86
TOOLS = ("memcheck", "racecheck")
# Of the benchmark of parts, whose providers may take a tenth in each of its two modes.
PARTS_SECONDS = 120
# A dry run's choice of tests: a second or two each on a CPU.
DRY_TESTS = "test_nan_in_a_row or test_expanded_inputs or test_autocast or (test_every_term and velocity)"


@dataclass
class Step:
    """A line of the summary; `outcome` is "ok", "FAILED" or "left out"."""

    name: str
    outcome: str
    detail: str
    seconds: float = 0.0


class Process:
    """A command that runs in a process group of its own, with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, seconds: float, environment: Mapping[str, str] | None = None):
        self.log, self.begin, self.deadline = log, time.monotonic(), time.monotonic() + seconds
        self.limit = seconds
        with log.open("w") as out:
            out.write(f"$ {' '.join(part.strip().partition(chr(10))[0] for part in command)}\n")
            out.flush()
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.seconds = 0.0

    def wait(self) -> int | None:
        """The exit code, or None after the time limit, when it and what it started have been ended."""
        code: int | None
        try:
            code = self.process.wait(max(self.deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            code = None
            self.end()
        self.seconds = time.monotonic() - self.begin
        return code

    def end(self) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.text().splitlines()[-lines:])


def show(text: str = "") -> None:
    print(text, flush=True)


def show_log(process: Process, lines: int = 40) -> None:
    show(f"--- the end of {process.log}")
    show(process.tail(lines))
    show("---")


def first_line(command: Sequence[str], keep: str = "") -> str:
    """The first line that a command prints (that has `keep` in it), or why there is none."""
    if shutil.which(command[0]) is None:
        return "not on the PATH"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd=ROOT)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}"
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip() and keep in line]
    return lines[0] if lines else f"exit code {done.returncode}"


# ---- the steps ---------------------------------------------------------------------------------------------------

VERSIONS = """
import importlib.metadata, platform, torch
print("torch", torch.__version__, "| CUDA", torch.version.cuda, "| Python", platform.python_version())
for name in ("triton", "numpy", "pytest", "pytest-xdist", "scikit-build-core", "pybind11", "pykeops"):
    try:
        print(name, importlib.metadata.version(name), end="  ")
    except importlib.metadata.PackageNotFoundError:
        print(name, "not installed", end="  ")
print()
for k in range(torch.cuda.device_count()):
    p = torch.cuda.get_device_properties(k)
    print(f"GPU {k}: {p.name}, {p.total_memory / 2**30:.0f} GiB, capability {p.major}.{p.minor},",
          f"{p.multi_processor_count} multiprocessors, L2 {getattr(p, 'L2_cache_size', 0) / 1e6:.0f} MB")
"""


def machine(python: str) -> Step:
    begin = time.monotonic()
    show(f"Python: {python}, {os.cpu_count()} CPU cores, {os.uname().sysname} {os.uname().release}")
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader"]
    show(f"nvidia-smi: {first_line(query)}")
    show(f"nvcc: {first_line(['nvcc', '--version'], 'release')}")
    for tool in ("cmake", "ninja", "compute-sanitizer"):
        show(f"{tool}: {first_line([tool, '--version'], '.')}")
    try:
        done = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return Step("machine", "FAILED", "torch isn't imported within two minutes", time.monotonic() - begin)
    show((done.stdout + done.stderr).strip())
    if done.returncode:
        return Step("machine", "FAILED", "torch can't be imported", time.monotonic() - begin)
    return Step("machine", "ok", done.stdout.splitlines()[0], time.monotonic() - begin)


def build(python: str, logs: Path) -> Step:
    """Install this checkout; where the environment is another's, with the flag that allows it, or for the user."""
    begin = time.monotonic()
    plain = [python, "-m", "pip", "install", "--verbose", "--no-build-isolation", "--no-deps", "--no-index", "-e", "."]
    environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    extra: list[str] = []
    for attempt in range(3):
        process = Process([*plain, *extra], logs / f"build_{attempt}.log", BUILD_SECONDS, environment)
        code, text = process.wait(), process.text()
        if code == 0:
            break
        if "externally-managed-environment" in text and "--break-system-packages" not in extra:
            extra.append("--break-system-packages")
        elif ("Permission denied" in text or "not writeable" in text) and "--user" not in extra:
            extra.append("--user")
        else:
            break
    seconds = time.monotonic() - begin
    if code != 0:
        show_log(process)
        reason = f"no end after {BUILD_SECONDS} s" if code is None else f"pip's exit code {code}"
        return Step("build", "FAILED", reason, seconds)
    return Step("build", "ok", " ".join(["pip install", *extra, "-e ."]), seconds)


def available(python: str, backends: Sequence[str], logs: Path) -> Step:
    """Whether the backends can be used now that structloss is built; if not, what the build said."""
    code = f"""
import structloss
missing = 0
for name in {list(backends)!r}:
    status = structloss.backends()[name]
    print(f"{{name}}: {{status.reason}}")
    missing += not status
raise SystemExit(missing)
"""
    process = Process([python, "-c", code], logs / "backends.log", 120)
    done = process.wait()
    show("\n".join(process.text().splitlines()[1:] if done in (0, 1, 2) else [process.tail()]))
    if done == 0:
        return Step("backends", "ok", ", ".join(backends), process.seconds)
    for log in sorted(logs.glob("build_*.log")):  # a failing compiler doesn't fail the installation
        lines = [line for line in log.read_text(errors="replace").splitlines() if re.search(r"\berror\b|FAILED", line)]
        show("\n".join(line[:300] for line in lines[:40]))
    return Step("backends", "FAILED", f"not all of {', '.join(backends)} are available", process.seconds)


def test_processes(python: str, backends: Sequence[str], logs: Path, args: argparse.Namespace) -> dict[str, Process]:
    """Start the GPU tests: a process for each backend, and one for those in other files; by name of the step."""
    plain = [python, "-m", "pytest", "--tb=short", "--maxfail=25", "-ra", "--durations=5"]
    environment = {"OMP_NUM_THREADS": "2"}
    if importlib.util.find_spec("xdist") is not None and not args.dry_run:
        plain += ["-n", str(WORKERS)]
    choice = ["-k", DRY_TESTS] if args.dry_run else ["-m", "gpu"]
    device = "cpu" if args.dry_run else "cuda"
    started = {}
    for backend in backends:
        command = [*plain, *choice, "tests/test_gpu.py", *(["--maxfail=1"] if args.dry_run else [])]
        chosen = {**environment, "GPU_TESTS": f"{device}:{backend}"}
        started[f"tests of {backend}"] = Process(command, logs / f"tests_{backend}.log", args.test_seconds, chosen)
    tests = sorted((ROOT / "tests").glob("test_*.py"))
    others = [path for path in tests if path.name != "test_gpu.py" and "mark.gpu" in path.read_text()]
    others = [path for path in others if path.name != "test_gpu_check.py"]
    if others and not args.dry_run:
        command = [*plain, *choice, *(str(path.relative_to(ROOT)) for path in others)]
        started["other GPU tests"] = Process(command, logs / "tests_other.log", args.test_seconds, environment)
    return started


def tests_step(name: str, process: Process) -> Step:
    code = process.wait()
    summary = re.compile(r"\d+ (passed|failed|skipped|errors?|deselected)\b.* in [\d.]+|no tests ran")
    last = [line for line in process.text().splitlines() if summary.search(line)]
    detail = last[-1].strip("= ") if last else "no summary"
    if code is None:
        detail = f"no end after {process.limit:.0f} s"
    passed = re.search(r"(\d+) passed", detail)
    # Only skipped, or nothing found, is no success. Files that mark no test for GPUs may say so.
    if (code == 0 and passed) or (code == 5 and name == "other GPU tests"):
        return Step(name, "ok", detail, process.seconds)
    show_log(process, 60)
    return Step(name, "FAILED", f"{detail} (exit code {code})", process.seconds)


def sanitizer_processes(python: str, logs: Path, args: argparse.Namespace) -> dict[str, Process | Step]:
    """Start memcheck and racecheck of the CUDA kernels; in a dry run their program alone, on the CPU."""
    program = [python, "-m", "bench.gpu_sanitize"]
    if args.dry_run:
        command = [*program, "--backend", "cpp", "--device", "cpu", "--seconds", "5"]
        return {"memcheck's program": Process(command, logs / "sanitizer.log", 60)}
    found = shutil.which("compute-sanitizer")
    started: dict[str, Process | Step] = {}
    for tool in TOOLS:
        if found is None:
            started[tool] = Step(tool, "left out", "compute-sanitizer is not on the PATH")
            continue
        # API errors are torch's business: it asks for symbols that a driver may lack.
        command = [found, "--tool", tool, "--report-api-errors", "no", "--error-exitcode", str(SANITIZER_ERROR)]
        command += [
            "--launch-timeout",
            "120",
            "--print-limit",
            "20",
            *program,
            "--seconds",
            str(SANITIZER_SECONDS - 40),
        ]
        # Without the caching allocator every tensor ends where its allocation does.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {}
        started[tool] = Process(command, logs / f"{tool}.log", SANITIZER_SECONDS, environment)
    return started


def sanitizer_step(name: str, process: Process | Step) -> Step:
    if isinstance(process, Step):
        return process
    code, text = process.wait(), process.text()
    calls = re.findall(r"^\d+ of \d+ calls of \w+$", text, re.MULTILINE)
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", text)
    detail = "; ".join([*calls, *(line.strip() for line in summary[-1:])])
    if code == 0 and calls and (summary or "program" in name):
        return Step(name, "ok", detail, process.seconds)
    if re.search(r"Device not supported|not supported on this|Unable to (?:find|launch)|LibraryNotLoaded", text):
        reason = re.search(r".*(?:not supported|Unable to|LibraryNotLoaded).*", text)
        return Step(name, "left out", f"compute-sanitizer can't run here: {reason[0].strip('= ')}", process.seconds)
    if code is None:
        return Step(name, "left out", f"no end after {process.limit:.0f} s", process.seconds)
    show_log(process, 60)
    return Step(name, "FAILED", detail or f"exit code {code}", process.seconds)


def slug(name: str) -> str:
    """NVIDIA H200 -> nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def device_name(python: str) -> str:
    return first_line([python, "-c", "import torch; print(torch.cuda.get_device_name())"])


def benchmark(python: str, failed: Sequence[str], logs: Path, csv: Path, seconds: float, dry: bool) -> Step:
    command = [python, "-m", "bench.gpu_speed", "--budget", f"{seconds:.0f}", "--csv", str(csv)]
    command += ["--dry-run"] if dry else []
    command += ["--failed", *failed] if failed else []
    process = Process(command, logs / "benchmark.log", seconds + 90)
    code, text = process.wait(), process.text()
    table = text[text.index("| loss") :] if "| loss" in text else ""
    show(f"\n{table}" if table else "")
    if code == 0 and table:
        return Step("benchmark", "ok", f"rows in {csv}", process.seconds)
    if not table:
        show_log(process)
    last = text.strip().splitlines()[-1:]
    reason = f"no end after {seconds + 90:.0f} s" if code is None else f"exit code {code}: {' '.join(last)[:200]}"
    return Step("benchmark", "FAILED", reason, process.seconds)


def parts_benchmark(python: str, backends: Sequence[str], logs: Path, csv: Path, dry: bool) -> Step:
    """Rendered parts against the published form, with the backends whose tests passed."""
    rivals = ["grid-sample"] if dry else ["grid-sample", "analytic-eager", "analytic-compiled"]
    command = [python, "-m", "bench.run", "--op", "parts", "--csv", str(csv)]
    command += ["--budget", f"{PARTS_SECONDS / 10:.0f}", "--providers", *rivals, *dict.fromkeys(("torch", *backends))]
    command += ["--batch", "1", "--size", "16", "--rounds", "2", "--no-memory"] if dry else ["--device", "cuda"]
    process = Process(command, logs / "benchmark_parts.log", PARTS_SECONDS)
    code, text = process.wait(), process.text()
    table = text[text.index("### render_parts") :] if "### render_parts" in text else ""
    if code == 0 and table:
        show(f"\n{table}")
        return Step("benchmark of parts", "ok", f"rows in {csv}", process.seconds)
    show_log(process)
    reason = f"no end after {process.limit:.0f} s" if code is None else f"exit code {code}"
    return Step("benchmark of parts", "FAILED", reason, process.seconds)


# ---- the command -------------------------------------------------------------------------------------------------


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_check.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", type=Path, help="default: bench/results/<device>.csv; in a dry run among the logs")
    parser.add_argument("--logs", type=Path, help="folder of the steps' output, default: a temporary one")
    parser.add_argument("--budget", type=float, default=240.0, metavar="S", help="for the benchmark, default 240")
    parser.add_argument("--total", type=float, default=475.0, metavar="S", help="for everything, default 475")
    parser.add_argument("--test-seconds", type=float, default=TEST_SECONDS, metavar="S", help=f"default {TEST_SECONDS}")
    parser.add_argument("--no-build", action="store_true", help="it is installed already")
    parser.add_argument("--no-sanitizer", action="store_true")
    parser.add_argument("--no-benchmark", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, nothing built")
    args = parser.parse_args(argv)
    if args.csv is not None and not args.csv.resolve().parent.is_dir():
        parser.error(f"--csv: the folder {args.csv.resolve().parent} doesn't exist")
    return args


def steps(args: argparse.Namespace, python: str, logs: Path) -> Iterator[Step]:
    begin = time.monotonic()
    backends = ("torch", "cpp") if args.dry_run else ("triton", "cuda")
    yield (found := machine(python))
    if found.outcome == "FAILED":
        return
    name = "dry run" if args.dry_run else device_name(python)
    if name.startswith(("exit code", "Traceback")):
        yield Step("GPU", "FAILED", "torch finds none; --dry-run does without")
        return
    csv = args.csv or (logs / "dry_run.csv" if args.dry_run else ROOT / "bench" / "results" / f"{slug(name)}.csv")
    csv.resolve().parent.mkdir(parents=True, exist_ok=True)
    if args.no_build or args.dry_run:
        yield Step("build", "left out", "as asked")
    else:
        yield build(python, logs)
    yield available(python, backends, logs)

    tests = test_processes(python, backends, logs, args)
    sanitizers: dict[str, Process | Step] = {}
    try:
        if not args.no_sanitizer:
            sanitizers = sanitizer_processes(python, logs, args)
        failed = []
        for name, process in tests.items():
            yield (found := tests_step(name, process))
            if found.outcome == "FAILED":
                # A failure in another file may be any backend's.
                failed += [backend for backend in backends if name in (f"tests of {backend}", "other GPU tests")]
        for name, process in sanitizers.items():
            yield sanitizer_step(name, process)
    finally:
        for process in (*tests.values(), *sanitizers.values()):
            if isinstance(process, Process):
                process.end()
    if args.no_benchmark:
        yield Step("benchmark", "left out", "as asked")
        return
    # Before the long one, which takes what time is left.
    parts = csv.resolve().with_name(f"{csv.stem}_parts.csv")
    yield parts_benchmark(python, [name for name in backends if name not in failed], logs, parts, args.dry_run)
    left = args.total - (time.monotonic() - begin) - TAIL_SECONDS
    seconds = max(min(args.budget, left), LEAST_BENCHMARK_SECONDS)
    yield benchmark(python, list(dict.fromkeys(failed)), logs, csv.resolve(), seconds, args.dry_run)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    logs = (args.logs or Path(tempfile.mkdtemp(prefix="gpu_check_"))).resolve()
    logs.mkdir(parents=True, exist_ok=True)
    begin, done = time.monotonic(), []
    for step in steps(args, sys.executable, logs):
        done.append(step)
        show(f"[{time.monotonic() - begin:4.0f} s] {step.name}: {step.outcome}, {step.detail}")
    show(f"\nSummary after {time.monotonic() - begin:.0f} s, logs in {logs}")
    for step in done:
        show(f"  {step.outcome:8} {step.name:18} {step.seconds:5.0f} s  {step.detail}")
    failed = [step.name for step in done if step.outcome == "FAILED"]
    show(f"FAILED: {', '.join(failed)}." if failed else "All steps passed or were left out for the reason given.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Two processes train like one with the same global batch, however they are started, on one machine or on two, and go
on after a kill."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes talk by gloo's Unix transport"),
]

#: 36 windows a view and epoch: whole batches for one process of 4 and two of 2
COMMAND = [
    "fit", "--config", "repose-tiny", "--data.frames", "54", "--data.num_subjects", "4", "--data.views", "2",
    "--data.clips_per_subject", "2", "--data.window", "9", "--data.stride", "9", "--data.progress", "false",
    "--model.backbone_args", "{dim_feat: 16, dim_rep: 16, depth: 1, num_heads: 2}", "--model.ema", "0.9",
    "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false",
    # No corruptions, which every process draws for itself. Margins leave energies a constant that rounding decides on.
    "--model.learned",
    "{net: linear-small, net_options: {width: 16}, negatives: [prediction], objective: regression, lr: 1.0e-3}",
]  # fmt: skip
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2", "--data.eval_batch_size", "5"]
ONE = ["--trainer.devices", "1", "--data.batch_size", "4", "--data.eval_batch_size", "5"]
LIGHTNING = [sys.executable, "-m", "structloss.cli"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
METRICS = Path("runs/repose-tiny/version_0/metrics.csv")


def start(
    folder: Path, launcher: list[str], *extra: str, environment: dict[str, str] | None = None, log: str = "log"
) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
    with open(folder / log, "a") as out:
        return subprocess.Popen(
            [*launcher, *COMMAND, *extra], cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )


def start_both(commands, folder: Path, *arguments: str, second: Path | None = None) -> list[int]:
    """Two processes with the environment that torchrun gives, but already imported, the other one in a folder of its
    own where it is given; their numbers."""
    folders = [folder, second or folder]
    for place in folders:
        place.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    return [
        commands.start(
            place, *arguments, out=place / "log", err=place / "log", environment={**shared, "RANK": n, "LOCAL_RANK": n}
        )
        for n, place in zip(("0", "1"), folders, strict=True)
    ]


def curves(folder: Path) -> dict[str, list[float]]:
    with open(folder / METRICS, newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0] if key != "epoch"}


@pytest.fixture(scope="module")
def one(tmp_path_factory, commands):
    folder = tmp_path_factory.mktemp("one")
    done = commands.run(folder, *COMMAND, *ONE)
    assert done.returncode == 0, done.stderr
    return folder


def assert_same(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys() and len(expected["train/loss"]) == 54 and len(expected["val/mpjpe"]) == 3
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=2e-4, abs=1e-6), key


@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_make_the_curve_of_one(one, tmp_path, launcher):
    program = LIGHTNING if launcher == "lightning" else [*TORCHRUN, "structloss.cli"]
    assert start(tmp_path, program, *TWO).wait() == 0, (tmp_path / "log").read_text()
    assert_same(curves(tmp_path), curves(one))


def test_two_processes_go_on_after_a_kill(one, tmp_path, commands):
    extra = [*TWO, "--restart.every_steps", "4"]
    both = start_both(commands, tmp_path, *COMMAND, *extra)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/checkpoints/resume-00001-*.ckpt")) and time.monotonic() < until:
        time.sleep(0.02)
    for process in both:
        os.kill(process, signal.SIGKILL)
    assert [commands.wait(process) for process in both] == [-signal.SIGKILL] * 2
    assert start(tmp_path, LIGHTNING, *extra).wait() == 0, (tmp_path / "log").read_text()
    assert "resuming" in (tmp_path / "log").read_text()
    assert_same(curves(tmp_path), curves(one))


class Machines:
    """Two network namespaces with a cable between them: to processes, two machines that share a disk. What runs in one
    of them finds no other network, not even its own host's."""

    NAMES = ("a", "b")
    CARD = "cluster0"

    def __init__(self) -> None:
        self.spaces = {name: f"structloss-{os.getpid()}-{name}" for name in self.NAMES}
        self.address = {name: f"10.77.0.{number}" for number, name in enumerate(self.NAMES, start=1)}

    def __enter__(self):
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self) -> None:
        for space in self.spaces.values():
            self._ip("netns", "add", space)
        a, b = self.spaces.values()
        self._ip("link", "add", self.CARD, "netns", a, "type", "veth", "peer", "name", self.CARD, "netns", b)
        for name, space in self.spaces.items():
            self._ip("-n", space, "addr", "add", f"{self.address[name]}/24", "dev", self.CARD)
            for device in ("lo", self.CARD):
                self._ip("-n", space, "link", "set", device, "up")

    def __exit__(self, *error):
        for space in self.spaces.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)

    def torchrun(self, name: str, folder: Path, *extra: str) -> subprocess.Popen:
        """Start the command on a machine, as docs/scaling.md has it, one process each."""
        first = self.NAMES[0]
        launcher = ["ip", "netns", "exec", self.spaces[name], sys.executable, "-m", "torch.distributed.run"]
        launcher += ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "2", "--rdzv-backend", "c10d"]
        launcher += ["--rdzv-endpoint", f"{self.address[first]}:29400", "--rdzv-id", "test"]
        # What a cluster's name service tells: who the first machine is, and by which name others find this one.
        launcher += ["--rdzv-conf", f"is_host={int(name == first)}", "--local-addr", self.address[name]]
        environment = {"GLOO_SOCKET_IFNAME": self.CARD}
        return start(folder, [*launcher, "-m", "structloss.cli"], *extra, environment=environment, log=f"log-{name}")


@pytest.fixture
def machines():
    if shutil.which("ip") is None:
        pytest.skip("no iproute2")
    try:
        with Machines() as found:
            yield found
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no network namespaces here: {error}")


def worker_of(agent: subprocess.Popen) -> int:
    """The process that torchrun has started; 0 where there is none yet."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    found = [int(number) for number in children.read_text().split()]
    return next((n for n in found if b"structloss.cli" in Path(f"/proc/{n}/cmdline").read_bytes()), 0)


@pytest.mark.slow(seconds=60)
def test_two_machines_make_the_curve_of_one_and_go_on_after_a_kill(one, tmp_path, commands, machines):
    """torchrun starts both again from the last checkpoint, and the run is bitwise the one that nothing happened to."""
    folder, whole = tmp_path / "shared", tmp_path / "whole"
    every, more = ["--restart.every_steps", "4"], ["--trainer.strategy", "ddp", *TWO[4:]]
    agents = {
        name: machines.torchrun(name, folder, *more, *every, "--trainer.num_nodes", "2", "--trainer.devices", "1")
        for name in machines.NAMES
    }
    logs = {name: folder / f"log-{name}" for name in machines.NAMES}
    both = start_both(commands, whole, *COMMAND, *TWO, *every)  # on one machine, and left alone
    try:
        until = time.monotonic() + 240
        while not list(folder.glob("runs/*/*/checkpoints/resume-00001-*.ckpt")) and time.monotonic() < until:
            assert all(agent.poll() is None for agent in agents.values()), [log.read_text() for log in logs.values()]
            time.sleep(0.02)
        os.kill(worker_of(agents["b"]), signal.SIGKILL)
        codes = [agent.wait(timeout=240) for agent in agents.values()]
    finally:
        for agent in agents.values():
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
                agent.wait()
    said = "\n".join(log.read_text() for log in logs.values())
    assert codes == [0, 0] and "resuming" in said, said
    assert [commands.wait(process) for process in both] == [0, 0], (whole / "log").read_text()
    assert_same(curves(folder), curves(one))
    assert (folder / METRICS).read_text() == (whole / METRICS).read_text()
    found, expected = (
        torch.load(place / METRICS.parent / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for place in (folder, whole)
    )
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_machines_without_a_common_folder_are_told(tmp_path, commands):
    """One finds the run to resume, the other does not: neither trains on."""
    short = [*COMMAND, *TWO, "--restart.every_steps", "4"]
    both = start_both(commands, tmp_path / "a", *short)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("a/runs/*/*/checkpoints/resume-*.ckpt")) and time.monotonic() < until:
        time.sleep(0.02)
    for process in both:
        os.kill(process, signal.SIGKILL)
    assert [commands.wait(process) for process in both] == [-signal.SIGKILL] * 2
    both = start_both(commands, tmp_path / "a", *short, second=tmp_path / "b")
    assert [commands.wait(process) for process in both] == [1, 1]
    for place, resumes in (("a", "resumes"), ("b", "begins")):
        last = (tmp_path / place / "log").read_text().splitlines()[-1]
        expected = "expected --trainer.default_root_dir in a folder that all machines share."
        assert last.startswith(f"structloss: error: process {'ab'.index(place)} {resumes}") and last.endswith(expected)
    assert not list((tmp_path / "b").glob("runs/*/*"))


def test_two_processes_score_like_one(one, tmp_path, commands):
    """No frame twice, and every breakdown the same."""
    command = ["test", *COMMAND[1 : COMMAND.index("--trainer.max_epochs")], *COMMAND[-4:]]
    shutil.copy(one / METRICS.parent / "checkpoints/last.ckpt", tmp_path)  # where it is the checkpoint of no run
    command += ["--ckpt_path", str(tmp_path / "last.ckpt")]
    two = start_both(commands, tmp_path / "two", *command, *TWO)
    (tmp_path / "one").mkdir()
    done = commands.run(tmp_path / "one", *command, *ONE)
    assert done.returncode == 0, done.stderr
    assert [commands.wait(process) for process in two] == [0, 0], (tmp_path / "two" / "log").read_text()
    found = {}
    for name in ("one", "two"):
        (file,) = (tmp_path / name).glob("runs/*/tests/*/test.json")
        found[name] = json.loads(file.read_text())
    assert found["one"].keys() == found["two"].keys() and len(found["one"]["per_joint"]) == 17
    for key in ("metrics", "per_action_mpjpe", "per_action_pa", "protocol", "structure", "truth"):
        assert found["two"][key] == pytest.approx(found["one"][key], rel=1e-5), key
    assert found["two"]["per_action"].keys() == found["one"]["per_action"].keys()
    for part in ("per_action", "per_subject"):
        assert found["one"][part]
        for name, numbers in found["one"][part].items():
            assert found["two"][part][name] == pytest.approx(numbers, rel=1e-5), name
    assert found["two"]["per_joint"] == pytest.approx(found["one"]["per_joint"], rel=1e-5)

"""Engines: a real Ray cluster of two nodes on this machine, one of which is killed; a cluster that the engine starts
itself; and the process pool, which comes to the same."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cluster_work
import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from test_ablation import TINY

from structloss import __version__
from structloss.cli import main
from structloss.data.formats import read_keypoints
from structloss.errors import ArgumentError, BackendError, DataError
from structloss.files import held
from structloss.harness import ray_engine
from structloss.harness.ablation import run_grid
from structloss.harness.engines import Local, Piece, paths_in, with_paths
from structloss.harness.ray_engine import RayCluster
from structloss.harness.ray_keeper import Keeper, Mirror, forget, forget_unused, local_copies, scratch

LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes with one CPU each, that hears this machine alone: (cluster, the second node)."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", "1")  # as all of these, read when Ray is imported
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    place = tempfile.mkdtemp(prefix="slt", dir="/tmp")  # a short name: sockets are in it
    before = {name: os.environ.get(name) for name in ("RAY_TMPDIR", "PYTHONPATH")}
    os.environ["RAY_TMPDIR"] = place
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before["PYTHONPATH"] or ""]).rstrip(
        os.pathsep
    )
    Path(place, "ray").mkdir()  # where Ray notes that it has begun
    common = {"node_ip_address": LOOPBACK, "num_cpus": 1, "object_store_memory": 80 << 20, "temp_dir": place}
    head = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
    try:
        cluster = Cluster(initialize_head=True, head_node_args=common | head)
        yield cluster, cluster.add_node(**common)
        cluster.shutdown()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of folders of keypoint files, one of them broken."""
    folder = tmp_path_factory.mktemp("many") / "clips"
    for number in range(6):
        track = read_keypoints(f"sample:{('dance', 'walk', 'roll')[number % 3]}")[0]
        place = folder / f"day{number % 2}" / f"{number}.npz"
        place.parent.mkdir(parents=True, exist_ok=True)
        part = slice(5 * number, 5 * number + 30)
        np.savez(
            place, keypoints=track.keypoints[part], confidence=track.confidence[part], fps=25.0, width=track.width,
            height=track.height,
        )  # fmt: skip
    (folder / "broken.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def predicted(clips):
    """What this process makes of the clips."""
    out = clips.parent / "local"
    assert main(["predict", str(clips), "--layout", "coco", "--out", str(out)]) == 1
    return files_in(out)


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".npz", ".bvh")
    }


# ---------------------------------------------------------------------------------------------------- process pool


def test_a_pool_outlives_what_kills_its_processes(tmp_path):
    pieces = [Piece("bad", cluster_work.killed, (0,)), Piece("good", cluster_work.doubled, ([1, 2],))]
    pieces += [Piece("more", cluster_work.doubled, ([3],))]
    lost, found = [], []
    for result in Local(2).run(pieces, tmp_path, lambda number, error: lost.append((number, str(error)))):
        found.append(result)
    assert sorted(found) == [(1, 2), (1, 4), (2, 6)]
    assert [number for number, _ in lost] == [0]
    assert lost[0][1].startswith("bad ended its process twice: it was killed") and lost[0][1].count(".") == 1


def test_predictions_of_many_inputs_do_not_depend_on_jobs(clips, predicted, tmp_path, capsys):
    arguments = ["predict", str(clips), "--layout", "coco", "--out", str(tmp_path / "out"), "--jobs", "2"]
    assert main(arguments) == 1
    assert len(predicted) == 12 and files_in(tmp_path / "out") == predicted
    told = capsys.readouterr()
    assert "1 of 7 inputs failed" in told.err and "frames per second" in told.out
    records = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [r["input"] for r in records] == ["broken.json", *(f"day{n % 2}/{n}.npz" for n in (0, 2, 4, 1, 3, 5))]
    assert [r["status"] for r in records] == ["failed"] + ["done"] * 6 and "not valid JSON" in records[0]["why"]


# --------------------------------------------------------------------------------------------------------- a cluster


@pytest.mark.cluster
@pytest.mark.slow(seconds=30)
def test_two_drivers_at_once_come_to_the_same(nodes, clips, predicted, tmp_path):
    address = nodes[0].address
    arguments = ["--layout", "coco", "--engine", "ray", "--address", address, "--out"]
    other = subprocess.Popen(
        [sys.executable, "-m", "structloss.cli", "predict", str(clips), *arguments, str(tmp_path / "other")],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert main(["predict", str(clips), *arguments, str(tmp_path / "one")]) == 1
    out, err = other.communicate(timeout=300)
    assert other.returncode == 1 and "Ray: 2 nodes, 2 CPUs" in out
    assert err.startswith("structloss: error: 1 of 7 inputs failed") and err.count("\n") == 1
    assert files_in(tmp_path / "one") == predicted == files_in(tmp_path / "other")
    assert main(["predict", str(clips), *arguments, str(tmp_path / "one")]) == 1  # nothing but the broken one
    assert files_in(tmp_path / "one") == predicted


def test_tasks_that_begin_leave_those_at_work_alone(tmp_path, monkeypatch):
    """Of this driver and of another, on one machine with other programs: what tasks do, without a cluster."""
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "get", lambda found: found)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    old = tmp_path / "tmp" / "of-another-program"
    old.mkdir(parents=True)
    os.utime(old, (time.time() - 30 * 86400,) * 2)

    class Driver:
        """What answers a task, as an actor does."""

        def __init__(self, folder):
            folder.mkdir()
            self.keeper = Keeper(str(folder), [])

        def __getattr__(self, method):
            return SimpleNamespace(remote=getattr(self.keeper, method))

    def task(driver, session):
        piece = Piece("two", cluster_work.doubled, ([1, 2],))
        return ray_engine._work(0, piece, {}, driver, (None, session), (__version__, torch.__version__), 1, 9)

    one, other = Driver(tmp_path / "one"), Driver(tmp_path / "other")
    tasks = [task(one, "structloss-1-a"), task(one, "structloss-1-a"), task(other, "structloss-2-b")]
    assert [next(work) for work in tasks] == [2, 2, 2]
    assert [[*work] for work in tasks] == [[4]] * 3, "each found what it had written before the others began"
    for driver in ("one", "other"):
        assert sorted(path.name for path in (tmp_path / driver).iterdir()) == ["1.txt", "2.txt"]
    assert old.is_dir()


@pytest.mark.cluster
@pytest.mark.slow(seconds=30)
def test_a_node_that_is_killed_costs_a_retry_from_the_checkpoint(nodes, tmp_path):
    cluster, second = nodes
    grid = replace(TINY, seeds=(0,), steps=240)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker with one CPU has; sums depend on how many there are
    alone = run_grid(grid, tmp_path / "alone")
    torch.set_num_threads(threads)
    told, killed = [], []

    def kill():
        until = time.monotonic() + 240
        while time.monotonic() < until and len(list((tmp_path / "cells").glob("*.ckpt"))) < 2:
            time.sleep(0.02)
        killed.extend(path.name for path in (tmp_path / "cells").glob("*.ckpt"))
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    with RayCluster(cluster.address, say=told.append) as engine:
        beside = run_grid(grid, tmp_path / "cells", engine=engine, checkpoint_seconds=0.1)
    thread.join()
    assert len(killed) == 2, "both cells had a checkpoint, one on each node"
    assert [(r.cell, r.metrics, r.structure, r.curves) for r in beside] == [
        (r.cell, r.metrics, r.structure, r.curves) for r in alone
    ]
    assert told[0] == f"connecting to {cluster.address}" and len(told) == 2
    assert "its worker was lost, it goes on from what it kept on node 127.0.0.1" in told[1]
    names = {path.name for path in (tmp_path / "cells").iterdir()}
    assert names == {cell.file for cell in grid.cells()}, "checkpoints are gone, results are there"


@pytest.mark.cluster
@pytest.mark.slow(seconds=20)
def test_what_goes_wrong_on_a_cluster_is_a_sentence(nodes, tmp_path, monkeypatch):
    cluster, _ = nodes
    with RayCluster(cluster.address, retries=1) as engine:
        pieces = [Piece("once", cluster_work.killed_once, (3,), resumes=("kept-*",))]
        pieces += [Piece("always", cluster_work.killed, (0,)), Piece("fine", cluster_work.doubled, ([5],))]
        lost = []
        found = list(engine.run(pieces, tmp_path / "a", lambda number, error: lost.append((number, str(error)))))
        assert sorted(found, key=str) == [(0, "3"), (0, "begun"), (2, 10)], lost
        assert (tmp_path / "a" / "5.txt").read_text() == "10"
        assert [number for number, _ in lost] == [1] and lost[0][1].startswith("always lost its worker again and again")
        with pytest.raises(DataError, match=r"^the data of this piece is wrong\.$"):
            list(engine.run([Piece("wrong", cluster_work.failing, ())], tmp_path / "b"))
        with pytest.raises(BackendError, match="uses Ray already"), RayCluster(cluster.address):
            pass
    with pytest.raises(ArgumentError, match=r"^gpus is 1, and no node of the cluster has more than 0"):
        RayCluster(cluster.address, gpus=1).__enter__()


@pytest.mark.cluster
@pytest.mark.slow(seconds=15)
def test_a_worker_without_memory_is_a_sentence(nodes, tmp_path, monkeypatch):
    """On a node on which whatever runs is too much: Ray's own monitor kills its workers."""
    cluster, _ = nodes
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "250")
    full = cluster.add_node(
        node_ip_address=LOOPBACK, num_cpus=2, object_store_memory=80 << 20, temp_dir=cluster.head_node.temp_dir
    )
    monkeypatch.undo()
    hungry = [Piece("hungry", cluster_work.slept, (60,))]
    with (
        RayCluster(cluster.address, cpus=2, retries=1) as engine,
        pytest.raises(BackendError, match=r"for want of memory|^hungry ran out of memory"),
    ):
        list(engine.run(hungry, tmp_path / "c"))
    cluster.remove_node(full, allow_graceful=False)


@pytest.mark.cluster
@pytest.mark.slow(seconds=15)
def test_a_cluster_of_ones_own_hears_this_machine_alone_and_leaves_nothing(tmp_path):
    """In a process of its own, since Ray reads what it may do when it is imported."""
    pytest.importorskip("ray")
    before = {path.name for path in Path("/tmp").iterdir()}
    code = (
        "import os, sys, pathlib, cluster_work\n"
        "from structloss.harness.engines import Piece\n"
        "from structloss.harness.ray_engine import RayCluster\n"
        "with RayCluster() as engine:\n"
        "    import ray\n"
        "    print(sorted(v for _, v in engine.run([Piece('a', cluster_work.doubled, ([1, 2],))],"
        " pathlib.Path(sys.argv[1]))))\n"
        "    own = {str(os.getpid())}\n"
        "    for _ in range(6):\n"
        "        for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):\n"
        "            try: text = stat.read_text()\n"
        "            except OSError: continue\n"
        "            if text.rpartition(')')[2].split()[1] in own: own.add(stat.parent.name)\n"
        "    sockets = set()\n"
        "    for pid in own:\n"
        "        for fd in pathlib.Path('/proc', pid, 'fd').glob('*'):\n"
        "            try: sockets.add(os.readlink(fd))\n"
        "            except OSError: pass\n"
        "    for name in ('tcp', 'tcp6'):\n"
        "        for line in open(f'/proc/net/{name}').read().splitlines()[1:]:\n"
        "            part = line.split()\n"
        "            if part[3] == '0A' and f'socket:[{part[9]}]' in sockets: print(part[1].partition(':')[0])\n"
        "print('pids', *own)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], cwd=Path(__file__).parent, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == "[2, 4]" and (tmp_path / "out" / "2.txt").read_text() == "4"
    heard = set(lines[1:-2])
    assert heard and heard <= {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
    pids = lines[-2].split()[1:]
    until = time.monotonic() + 20
    while (alive := [pid for pid in pids if Path("/proc", pid, "cmdline").exists()]) and time.monotonic() < until:
        time.sleep(0.1)
    assert len(pids) > 5 and not alive
    new = {path.name for path in Path("/tmp").iterdir()} - before
    assert not [name for name in new if "ray" in name]


# --------------------------------------------------------------------------------- without a cluster: what travels


class Far(Keeper):
    """A driver whose files are under paths that do not exist here."""

    def __init__(self, folder, place):
        super().__init__(str(folder), ["/far/data", "/far/one.txt"])
        self.place = place

    def _readable(self, path):
        return self.place / super()._readable(path).relative_to("/far")


def test_files_travel_without_a_shared_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("structloss.harness.ray_keeper._PART", 5)
    place, kept = tmp_path / "driver", tmp_path / "kept"
    (place / "data" / "inner").mkdir(parents=True)
    kept.mkdir()
    (place / "one.txt").write_text("of the driver")
    (place / "data" / "inner" / "a.bin").write_bytes(bytes(range(23)))
    (place / "data" / "empty").touch()
    keeper = Far(kept, place)
    asked = []

    def call(method, *arguments):
        asked.append(method)
        return getattr(keeper, method)(*arguments)

    found = local_copies(call, ["/far/data", "/far/one.txt"], tmp_path / "cache")
    data = Path(found["/far/data"])
    assert data.name == "data" and (data / "inner" / "a.bin").read_bytes() == bytes(range(23))
    assert (data / "empty").read_bytes() == b"" and Path(found["/far/one.txt"]).read_text() == "of the driver"
    asked.clear()
    assert local_copies(call, ["/far/data", "/far/one.txt"], tmp_path / "cache") == found
    assert set(asked) == {"listing"}, "what is there does not travel once more"
    with pytest.raises(DataError, match="not among the files"):
        keeper.listing("/etc/passwd")
    with pytest.raises(DataError, match="is not in"):
        keeper.read("/far/data", "../one.txt", 0)
    with pytest.raises(DataError, match="is no name of a file"):
        keeper.write("t", "../x", 0, b"", True)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (kept / "cell-1.ckpt").write_text("step 7, and more than a part")
    (kept / "other.ckpt").write_text("of another cell")
    mirror = Mirror(call, "task", keeper.begins(0, "here", ["cell-*"]), scratch)
    assert [path.name for path in scratch.iterdir()] == ["cell-1.ckpt"]
    (scratch / "deep").mkdir()
    (scratch / "deep" / "result.json").write_text("{}")
    (scratch / ".hidden.tmp").write_text("half")
    (scratch / "cell-1.ckpt").unlink()
    mirror.send()
    assert sorted(path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()) == [
        "deep/result.json", "other.ckpt",
    ]  # fmt: skip
    with held(scratch):
        for again in (False, True):  # all of it, by somebody who clears folders, is no wish of the task
            shutil.rmtree(scratch, ignore_errors=True)
            if again:
                scratch.mkdir()
            with pytest.raises(DataError, match="was removed while a task was at work in it"):
                mirror.send()
            assert (kept / "deep" / "result.json").is_file()
    keeper.write("dead", "late.bin", 0, b"half of i", False)
    keeper.write("next", "late.bin", 0, b"whole", True)
    assert (kept / "late.bin").read_bytes() == b"whole"


def test_what_sessions_left_goes_and_nothing_else(tmp_path):
    sessions, week = tmp_path / "structloss-ray-0", 7 * 86400
    for name in ("of-another-program", "structloss-ray-0/left", "structloss-ray-0/other"):
        (tmp_path / name / "files").mkdir(parents=True)
    with scratch(sessions / "long") as long, scratch(sessions / "here") as here:
        assert long.parent == sessions / "long"
        for path in (tmp_path / "of-another-program", *sessions.iterdir()):
            os.utime(path, (time.time() - week - 60,) * 2)
        os.utime(sessions / "other", (time.time() - week + 60,) * 2)
        forget_unused(sessions, week)
        assert long.is_dir() and here.is_dir(), "they are at work, however long ago they began"
        assert {path.name for path in sessions.iterdir()} == {"here", "long", "other"}
        assert {path.name for path in tmp_path.iterdir()} == {"of-another-program", "structloss-ray-0"}
        forget(sessions / "here")
        assert long.is_dir()
    (tmp_path / "link").symlink_to(sessions)
    with pytest.raises(DataError, match="is a link or another user's"), scratch(tmp_path / "link" / "mine"):
        pass
    assert not (sessions / "mine").exists()
    with scratch(tmp_path / "new" / "mine"):
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_paths_are_those_of_settings_that_have_some(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("camera", "motion.npz", "w.ckpt"):
        Path(name).touch()
    settings = ({"data": "motion.npz", "target": "camera", "keypoints": "motion.npz"}, {"init_from": {"a": "w.ckpt"}})
    assert paths_in(settings) == ("motion.npz", "w.ckpt")
    moved = with_paths(settings, {"motion.npz": "/here/motion.npz", "w.ckpt": "/x", "camera": "/y"})
    assert moved[0] == {"data": "/here/motion.npz", "target": "camera", "keypoints": "motion.npz"}
    assert moved[1] == {"init_from": {"a": "/x"}}


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "ray", "--address", "127.0.0.1:1"],
         "--address is '127.0.0.1:1', where no cluster answers (connection refused), expected that of ray start"),
        (["--engine", "ray", "--address", "ray://10.0.0.1:1"], "--address is 'ray://10.0.0.1:1', expected HOST:PORT"),
        (["--engine", "ray", "--address", "nonsense"], "--address is 'nonsense', expected HOST:PORT or auto."),
        (["--engine", "ray", "--gpus", "1.5"], "--gpus is 1.5, expected a share of one below 1, or a whole number."),
        (["--engine", "ray", "--gpus", "-1"], "--gpus is -1, expected a share of one below 1, or a whole number."),
        (["--engine", "ray", "--gpus", "nan"], "--gpus is nan, expected a share of one below 1, or a whole number."),
        (["--engine", "ray", "--gpus", "inf"], "--gpus is inf, expected a share of one below 1, or a whole number."),
        (["--address", "auto"], "--address is 'auto', expected it with --engine ray."),
        (["--gpus", "1"], "--gpus is 1.0, expected it with --engine ray."),
    ],
)  # fmt: skip
def test_flags_of_a_cluster(flags, message, tmp_path, capsys):
    pytest.importorskip("ray")
    assert main(["ablate", "--out", str(tmp_path / "out"), *flags]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_ray(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["ablate", "--out", str(tmp_path), "--engine", "ray"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("structloss: error: ray is not installed, expected the cluster extra: pip install")
    assert error.count("\n") == 1

"""`structloss data convert --jobs`: the same bits for any number of processes and of restarts."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import fake_data
import numpy as np
import pytest

from structloss.cli import main
from structloss.data import generate_clips, load_archive, observe, open_store, save_archive, save_store
from structloss.data.conversion import convert_data
from structloss.data.formats import write_bvh
from structloss.data.parallel import in_parallel
from structloss.errors import ArgumentError, DataError


def run(capsys, *arguments):
    code = main(["data", "convert", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def refused(capsys, *arguments):
    assert main(["data", "convert", *map(str, arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("structloss: error: ")
    return err


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def folder(tmp_path):
    """Twenty recordings of three people, one of them too long for the cameras to stand where they do."""
    (tmp_path / "in").mkdir()
    for number in range(20):
        pose = fake_data.world(20 + number, f"take {number}")
        if number == 7:
            pose = pose + np.linspace(0, 16, len(pose))[:, None, None] * np.array([0, 1.0, 0])
        write_bvh(tmp_path / "in" / f"P{number % 3}_{number:02d}.bvh", pose, 50)
    return tmp_path / "in"


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr("structloss.data.resumable._FRAMES", 150)
    monkeypatch.setattr("structloss.data.resumable._FILES", 3)


def test_any_number_of_processes_gives_the_same_bits(folder, tmp_path, capsys, monkeypatch):
    out, _ = run(capsys, folder, tmp_path / "plain.poses", "--views", 2)
    for jobs in (1, 2):
        said, _ = run(capsys, folder, tmp_path / f"{jobs}.poses", "--views", 2, "--jobs", jobs)
        assert contents(tmp_path / f"{jobs}.poses") == contents(tmp_path / "plain.poses")
        assert said.replace(f"{jobs}.poses", "plain.poses") == out and "cameras moved back" in said
    monkeypatch.setattr("structloss.data.resumable._FRAMES", 150)
    monkeypatch.setattr("structloss.data.resumable._FILES", 3)
    run(capsys, folder, tmp_path / "3.poses", "--views", 2, "--jobs", 1)
    assert contents(tmp_path / "3.poses") == contents(tmp_path / "plain.poses"), "and of pieces"
    run(capsys, folder, tmp_path / "a.poses", "--views", 2, "--shard-frames", 400)
    run(capsys, folder, tmp_path / "b.poses", "--views", 2, "--shard-frames", 400, "--jobs", 1)
    assert (
        contents(tmp_path / "b.poses") == contents(tmp_path / "a.poses") and (tmp_path / "a.poses/shard-00003").is_dir()
    )
    run(capsys, folder, tmp_path / "a.npz")
    run(capsys, folder, tmp_path / "b.npz", "--jobs", 1)
    for here, there in zip(load_archive(tmp_path / "a.npz")[0], load_archive(tmp_path / "b.npz")[0], strict=True):
        assert here.key == there.key and np.array_equal(here.positions, there.positions)
    assert load_archive(tmp_path / "a.npz")[1] == load_archive(tmp_path / "b.npz")[1]
    assert not [name for name in os.listdir(tmp_path) if "partial" in name or name.startswith(".")]


def test_other_data_sets(tmp_path, capsys, small_pieces):
    """A store in other shards by processes; what is read as a whole; an archive."""
    store = observe(generate_clips(2, 2, 50, seed=2), views=2)
    save_store(store, tmp_path / "in.poses")
    one, two = (tmp_path / f"{name}.poses" for name in "ab")
    run(capsys, tmp_path / "in.poses", one, "--jobs", 2, "--shard-frames", 120)
    run(capsys, one, two, "--jobs", 1)
    assert contents(two) == contents(tmp_path / "in.poses") and len(list(one.glob("shard-*"))) == 4
    (tmp_path / "h36m").mkdir()
    fake_data.write_h36m_npz(tmp_path / "h36m", frames=30)
    for name, jobs in (("c", ()), ("d", ("--jobs", 2))):
        run(capsys, tmp_path / "h36m", tmp_path / f"{name}.poses", *jobs)
    assert contents(tmp_path / "c.poses") == contents(tmp_path / "d.poses")
    save_archive(tmp_path / "a.npz", generate_clips(2, 1, 40, seed=3), {"source": "made"})
    for name, jobs in (("e", ()), ("f", ("--jobs", 1))):
        run(capsys, tmp_path / "a.npz", tmp_path / f"{name}.poses", "--fps", 25, "--detections", "exact", *jobs)
    assert contents(tmp_path / "e.poses") == contents(tmp_path / "f.poses")


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_killed_conversion_goes_on_where_it_was(folder, tmp_path, capsys, monkeypatch, small_pieces):
    """Killed at every piece that it can be killed at; each time the pieces before are not done again."""
    from structloss.data import resumable, store

    run(capsys, folder, tmp_path / "plain.poses", "--shard-frames", 900)
    target = tmp_path / "a.poses"
    steps = []
    work = {name: getattr(resumable.Partial, name) for name in ("finish",)}
    written, put = store.StoreFiles.write, resumable.put_folder

    def finish(self, step, made_of, result):
        if step not in steps:
            steps.append(step)
            work["finish"](self, step, made_of, result)
            raise Killed
        raise AssertionError(f"{step} is done again")

    def half(self, view, arrays):
        if ("half", view) not in steps:
            steps.append(("half", view))
            written(self, view, {name: array[: len(array) // 2] for name, array in arrays.items()})
            raise Killed
        return written(self, view, arrays)

    def last(ready, path):
        if "put" not in steps:
            steps.append("put")
            raise Killed
        put(ready, path)

    monkeypatch.setattr(resumable.Partial, "finish", finish)
    monkeypatch.setattr(store.StoreFiles, "write", half)
    monkeypatch.setattr(resumable, "put_folder", last)
    kills = 0
    while True:
        try:
            if "put" in steps:  # the note that all is done comes again
                monkeypatch.setattr(resumable.Partial, "finish", work["finish"])
            convert_data(folder, target, jobs=1, shard_frames=900)
            break
        except Killed:
            kills += 1
            assert not target.exists() and (tmp_path / "a.poses.partial").is_dir()
            if "finished" in steps:
                monkeypatch.setattr(resumable.Partial, "finish", work["finish"])
    assert kills > 25 and contents(target) == contents(tmp_path / "plain.poses")
    assert sorted(os.listdir(tmp_path)) == ["a.poses", "in", "plain.poses"]


def test_a_process_that_is_killed(folder, tmp_path):
    """By the system, in earnest: a command that is killed, then one whose worker is."""
    plain = convert_data(folder, tmp_path / "plain.poses").path
    code = (
        "import os, signal, sys\nfrom structloss.cli import main\nfrom structloss.data import resumable\n"
        "resumable._FILES, resumable._FRAMES = 3, 150\n"
        "finish = resumable.Partial.finish\n"
        "def last(self, step, *rest):\n"
        "    if step == sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return finish(self, step, *rest)\n"
        "resumable.Partial.finish = last\n"
        "if __name__ == '__main__': sys.exit(main(sys.argv[2:]))\n"
    )
    script = tmp_path / "convert.py"
    script.write_text(code)
    target = tmp_path / "a.poses"

    def convert(step, jobs):
        command = [sys.executable, script, step, "data", "convert", folder, target, "--jobs", str(jobs)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert convert("store-000004", 1).returncode == -signal.SIGKILL
    done = sorted(os.listdir(tmp_path / "a.poses.partial" / "done"))
    assert "store-000003.json" in done and "store-000004.json" not in done and not target.exists()
    killed = convert("store-000004", 2)  # the script is imported by its processes, too
    assert killed.returncode == 1 and killed.stderr.count("\n") == 1, killed.stderr
    assert "one of 2 processes was killed" in killed.stderr and "start again with fewer" in killed.stderr
    assert not target.exists() and set(done) <= set(os.listdir(tmp_path / "a.poses.partial" / "done"))
    assert convert("", 1).returncode == 0 and contents(target) == contents(plain)


def no_memory(_):
    raise MemoryError


def test_a_process_without_memory():
    with pytest.raises(DataError, match="there is not enough memory for 2 processes, expected enough; start again"):
        list(in_parallel(no_memory, [1, 2, 3], 2, "nothing"))


def test_a_full_disk_keeps_what_is_done(folder, tmp_path, capsys, small_pieces):
    """Files of 700 kB at most: the store's arrays end midway."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        error = refused(capsys, folder, tmp_path / "a.poses", "--jobs", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "a.poses can't be written: File too large; what is done is kept, the same command goes on with it." in error
    assert len(os.listdir(tmp_path / "a.poses.partial" / "done")) > 8 and not (tmp_path / "a.poses").exists()
    run(capsys, folder, tmp_path / "a.poses", "--jobs", 1)
    run(capsys, folder, tmp_path / "b.poses")
    assert contents(tmp_path / "a.poses") == contents(tmp_path / "b.poses")


def test_files_that_can_not_be_read(folder, tmp_path, capsys, small_pieces):
    """The messages are those of one process, and what was read is kept."""
    (folder / "P1_99.bvh").write_text("HIERARCHY\nROOT")
    plain = refused(capsys, folder, tmp_path / "a.poses")
    assert refused(capsys, folder, tmp_path / "a.poses", "--jobs", 1) == plain and "P1_99.bvh" in plain
    out, _ = run(capsys, folder, tmp_path / "a.poses", "--jobs", 1, "--skip-bad")
    assert "note: 1 of 21 files are left out" in out and open_store(tmp_path / "a.poses").frames == 4 * sum(
        range(20, 40)
    )


def test_what_is_there_is_of_the_same_conversion(folder, tmp_path, capsys, monkeypatch, small_pieces):
    from structloss.data import resumable

    def stop(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(resumable, "put_folder", stop)
        refused(capsys, folder, tmp_path / "a.poses", "--jobs", 1)
    error = refused(capsys, folder, tmp_path / "a.poses", "--jobs", 1, "--views", 2)
    assert "a.poses.partial is of a conversion with another views, expected the same" in error
    assert "set --overwrite to start anew" in error
    # a recording that changed is read again, and all that depends on it
    write_bvh(folder / "P0_00.bvh", fake_data.world(33, "longer"), 50)
    run(capsys, folder, tmp_path / "a.poses", "--jobs", 1)
    run(capsys, folder, tmp_path / "b.poses")
    assert contents(tmp_path / "a.poses") == contents(tmp_path / "b.poses")
    with monkeypatch.context() as patch:
        patch.setattr(resumable, "put_folder", stop)
        refused(capsys, folder, tmp_path / "c.poses", "--jobs", 1)
    run(capsys, folder, tmp_path / "c.poses", "--jobs", 1, "--views", 1, "--overwrite")
    assert len(open_store(tmp_path / "c.poses").views) == 20
    (tmp_path / "d.poses.partial").mkdir()
    with resumable.held(tmp_path / "d.poses.partial"):
        error = refused(capsys, folder, tmp_path / "d.poses", "--jobs", 1)
    assert "d.poses.partial is at work in another process" in error


def test_a_folder_of_that_name_that_is_somebody_elses_stays(folder, tmp_path, capsys):
    other = tmp_path / "a.poses.partial"
    other.mkdir()
    (other / "notes.txt").write_text("precious")
    error = refused(capsys, folder, tmp_path / "a.poses", "--jobs", 1)
    assert error.endswith("a.poses.partial exists and is of no conversion, expected another name of the output.\n")
    assert (other / "notes.txt").read_text() == "precious" and not (tmp_path / "a.poses").exists()
    other = tmp_path / "b.poses.partial"
    other.write_text("a file")
    said = "b.poses.partial exists and is of no conversion"
    assert said in refused(capsys, folder, tmp_path / "b.poses", "--jobs", 1)
    other.unlink()
    (other / "thesis").mkdir(parents=True)
    for name, text in (("thesis/t.txt", "all of it"), ("settings.json", '{"data": "x", "format": "bvh"}')):
        (other / name).write_text(text)
        assert said in refused(capsys, folder, tmp_path / "b.poses", "--jobs", 1, "--overwrite")
    assert (other / "thesis" / "t.txt").read_text() == "all of it"


def test_what_came_while_a_conversion_was_at_work_stays(folder, tmp_path, capsys, monkeypatch):
    from structloss.data import resumable

    out, real = tmp_path / "a.poses", resumable.write_description

    def meanwhile(*arguments):
        real(*arguments)
        (out / "mine").mkdir(parents=True)
        (out / "mine" / "notes.txt").write_text("mine")

    monkeypatch.setattr(resumable, "write_description", meanwhile)
    for more in ((), ("--overwrite",)):
        assert "a.poses exists already and is something else" in refused(capsys, folder, out, "--jobs", 1, *more)
        assert (out / "mine" / "notes.txt").read_text() == "mine"
        shutil.rmtree(out)
    monkeypatch.undo()
    run(capsys, folder, out, "--jobs", 1)
    (out / "notes.txt").write_text("mine")
    for jobs in ((), ("--jobs", 1)):
        assert "a.poses holds 'notes.txt', which is no part of a pose store" in refused(
            capsys, folder, out, "--overwrite", *jobs
        )
    (out / "notes.txt").unlink()
    (tmp_path / "link.poses").symlink_to(out)
    for jobs in ((), ("--jobs", 1)):
        run(capsys, folder, tmp_path / "link.poses", "--overwrite", "--views", 1, *jobs)
        assert (tmp_path / "link.poses").is_symlink() and len(open_store(out).views) == 20
        run(capsys, folder, out, "--overwrite", "--views", 2, *jobs)
    assert sorted(os.listdir(tmp_path)) == ["a.poses", "in", "link.poses"]


def test_what_a_conversion_left_at_its_very_end_answers_for_it_alone(folder, tmp_path, capsys, monkeypatch):
    from structloss.data import resumable

    out, left = tmp_path / "a.poses", tmp_path / "a.poses.partial"
    real = shutil.rmtree

    def killed(path, *rest, **more):
        if path == left / "clips":
            raise KeyboardInterrupt
        real(path, *rest, **more)

    def interrupted(*arguments):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(resumable.shutil, "rmtree", killed)
            convert_data(folder, out, jobs=1, **dict(arguments))

    interrupted(("views", 2))
    assert len(open_store(out).views) == 40 and (left / "done" / "finished.json").exists()
    assert "exists already" in refused(capsys, folder, out, "--jobs", 1, "--views", 1)
    run(capsys, folder, out, "--jobs", 1, "--views", 1, "--overwrite")
    assert len(open_store(out).views) == 20 and not left.exists()
    interrupted(("views", 2), ("overwrite", True))
    run(capsys, folder, out, "--jobs", 1, "--views", 2)  # done, but for what it left
    assert len(open_store(out).views) == 40 and not left.exists()


def test_bad_arguments(folder, tmp_path, capsys):
    for flag in ("--jobs", "--shard-frames"):
        for value in ("0", "-1", "x", "1.5"):
            with pytest.raises(SystemExit) as stopped:
                main(["data", "convert", str(folder), str(tmp_path / "a.poses"), flag, value])
            assert stopped.value.code == 2 and flag in capsys.readouterr().err
    for name in ("jobs", "shard_frames"):
        with pytest.raises(ArgumentError, match=f"{name} is 0, expected at least 1"):
            convert_data(folder, tmp_path / "a.poses", **{name: 0})
    assert "views is given, expected it with an output that ends in .poses" in refused(
        capsys, folder, tmp_path / "a.npz", "--jobs", 1, "--views", 1
    ).replace("--", "")
    assert "shard_frames is 900, expected it with an output that ends in .poses" in refused(
        capsys, folder, tmp_path / "a.npz", "--shard-frames", 900
    ).replace("--shard-frames", "shard_frames")
    (folder / "broken.bvh").write_text("nothing")
    assert "seed is given, expected it with an output that ends in .poses" in refused(
        capsys, folder / "broken.bvh", tmp_path / "a.npz", "--seed", 1
    ).replace("--", ""), "before anything is read"
    assert "reference is given for" in refused(
        capsys, folder, tmp_path / "a.poses", "--jobs", 1, "--reference", "x"
    ).replace("--", "")
    assert "--scale is 0.0" in refused(capsys, folder, tmp_path / "a.poses", "--jobs", 1, "--scale", 0)
    assert os.listdir(tmp_path) == ["in"], json.dumps(os.listdir(tmp_path))

"""Writing files whole or not at all, also where a process is killed, and reading what somebody else wrote."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from structloss import errors, files, reading
from structloss.commands._refusals import bounded_memory_and_disk
from structloss.errors import ArgumentError, DataError, MissingFileError, StructlossError
from structloss.files import new_file, new_folder, replacing, write_bytes, write_json, write_text
from structloss.reading import parse_json, parse_yaml, read_json, read_text, read_yaml, regular

# Writing --------------------------------------------------------------------------------------------------------------


def killed(code):
    """Run a program that kills itself by SIGKILL while it writes."""
    done = subprocess.run([sys.executable, "-c", f"import os, signal\n{code}"], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").touch()
    die = "os.kill(os.getpid(), signal.SIGKILL)"
    killed(
        "from structloss.files import new_file, new_folder\n"
        f"with new_folder({str(tmp_path / 'store')!r}) as folder, new_file({str(tmp_path / 'file')!r}) as file:\n"
        f"    (folder / 'half').touch()\n    file.write(b'half')\n    {die}\n"
    )
    left = sorted(name for name in os.listdir(tmp_path) if name.endswith(".tmp"))
    assert [name.split(".")[1] for name in left] == ["file", "store"] and not (tmp_path / "file").exists()
    write_text(tmp_path / "another", "text")
    assert sorted(os.listdir(tmp_path)) == ["another", "store"] and os.listdir(tmp_path / "store") == ["old"]


def test_a_folder_that_was_being_replaced_comes_back(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "kept").touch()
    killed(
        "from structloss import files\n"
        "replace, calls = os.replace, []\n"
        "def once(a, b):\n"
        "    if calls: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    calls.append(replace(a, b))\n"
        "files.os.replace = once\n"
        f"with files.new_folder({str(tmp_path / 'store')!r}) as folder:\n    pass\n"
    )
    assert not (tmp_path / "store").exists() and len(os.listdir(tmp_path)) == 2
    files.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["store"] and os.listdir(tmp_path / "store") == ["kept"]


def test_what_another_process_is_writing_stays(tmp_path):
    code = (
        "import sys\nfrom structloss.files import new_file, new_folder\n"
        f"with new_folder({str(tmp_path / 'folder')!r}) as folder, new_file({str(tmp_path / 'file')!r}) as file:\n"
        "    print(flush=True)\n    sys.stdin.read()\n    file.write(b'whole')\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    writer.stdout.readline()
    mine = tmp_path / ".mine.tmp"  # of somebody else
    mine.touch()
    files.sweep(tmp_path)
    assert len(os.listdir(tmp_path)) == 3 and mine.exists()
    writer.communicate()
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", "file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"whole" and writer.returncode == 0


def test_threads_write_and_sweep_at_once(tmp_path):
    """A file is never taken for an orphan between its making and its lock."""
    failed = []

    def work(name):
        try:
            for i in range(40):
                write_bytes(tmp_path / f"{name}{i % 3}", b"x" * i)
                files.sweep(tmp_path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and sorted(os.listdir(tmp_path)) == sorted(f"{name}{i}" for name in "abcd" for i in range(3))


def test_a_failed_block_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a", "old")
    (tmp_path / "b").mkdir()
    write_text(tmp_path / "b" / "c", "old")
    for writing, name in ((replacing, "a"), (new_file, "a"), (new_folder, "b")):
        with pytest.raises(RuntimeError), writing(tmp_path / name):
            raise RuntimeError
    with pytest.raises(ArgumentError, match="a', which is no folder, expected the name of a folder"):
        new_folder(tmp_path / "a").__enter__()
    assert (tmp_path / "a").read_text() == "old" == (tmp_path / "b" / "c").read_text()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("after", [False, True])
def test_a_folder_is_there_whenever_replacing_it_is_interrupted(call, after, tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").touch()
    calls, replace = [], os.replace

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == call + 1 and not after:
            raise KeyboardInterrupt
        replace(*arguments)
        if len(calls) == call + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "store") as folder:
        (folder / "new").touch()
    monkeypatch.undo()
    there = os.listdir(tmp_path / "store")
    assert there == (["new"] if (call, after) == (1, True) else ["old"])
    files.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["store"] and os.listdir(tmp_path / "store") == there


def test_a_folder_that_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("there", "new"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "there").mkdir()
    for name in ("there", "new"):
        with new_folder(tmp_path / name) as folder:
            (folder / "x").touch()
        assert (tmp_path / name).is_symlink() and os.listdir(tmp_path / "disk" / name) == ["x"]
    assert sorted(os.listdir(tmp_path / "disk")) == ["new", "there"]


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"bad\xff.npz")
    assert write_text(tmp_path / "a.txt", name).read_bytes() == b"bad\xff.npz"
    assert read_json(write_json(tmp_path / "a.json", {name: "\U0001f600 é"}), "it") == {name: "\U0001f600 é"}


def test_rights_of_new_files(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "")
        with new_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640 and (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "null"):
        with pytest.raises(ArgumentError, match="not a regular file"):
            write_json(path, {})
    assert (tmp_path / "null").is_symlink() and Path("/dev/null").is_char_device()


# Reading --------------------------------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "real").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert read_text(tmp_path / "link", "a text") == "text"
    for name in ("pipe", "zero"):
        with pytest.raises(DataError, match=f"{name} is not a regular file, expected a text."):
            read_text(tmp_path / name, "a text")
    with pytest.raises(DataError, match=r"loop can't be read: Too many levels of symbolic links\."):
        regular(tmp_path / "loop", "a text")
    with pytest.raises(DataError, match="can't be read"):
        regular("a\0b", "a text")
    for path, found in ((tmp_path / "none", "does not exist"), (tmp_path / "real" / "x", "does not exist")):
        with pytest.raises(MissingFileError, match=found):
            read_text(path, "a text")


def test_a_file_without_permission(tmp_path, monkeypatch):
    """Whoever runs the tests may be allowed to read everything."""
    (tmp_path / "a").touch()

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(DataError, match=r"a can't be read: Permission denied\."):
        read_text(tmp_path / "a", "a text")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_byte_order_marks(encoding, tmp_path):
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    (tmp_path / "a").write_bytes(mark + '{"Hüfte": 1}'.encode(encoding))
    assert read_json(tmp_path / "a", "JSON") == {"Hüfte": 1} == read_yaml(tmp_path / "a", "YAML")
    assert reading.decoded(b"H\xfcfte") == "H\ufffdfte"


def test_json_that_nobody_can_hold():
    for text, expected in (("[" * 100_000, "nested too deeply"), ("9" * 5000, "digits"), ("{", "not valid JSON")):
        with pytest.raises(DataError, match=expected) as caught:
            parse_json(text, "a.json")
        assert str(caught.value).startswith("a.json ") and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="own"):
        parse_json("{}", "a.json", object_hook=lambda _: (_ for _ in ()).throw(DataError("own.")))


def bomb(levels=12, width=10):
    """A YAML text of a kilobyte that stands for width ** levels values."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb(), "values with its aliases, expected at most 100000"),
        (
            "a: &a {k: v}\n"
            + "\n".join(f"b{i}: &b{i} {{<<: [{', '.join(['*a' if not i else f'*b{i - 1}'] * 9)}]}}" for i in range(9)),
            "values with its aliases",
        ),
        ("a: &a [*a]", "refers to itself"),
        ("[" * 20_000, "nested too deeply"),
        ("a: b\n" * 100_000, "characters, expected at most"),
        ("a: [", "not valid YAML"),
        ("a: 2001-99-99", "not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("? [a, b]\n: c", "unhashable key"),
    ],
    ids=range(9),
)
def test_yaml_that_nobody_can_hold(text, expected):
    start = time.thread_time()  # the process has other threads
    with pytest.raises(DataError, match=expected) as caught:
        parse_yaml(text, "a.yaml")
    assert str(caught.value).startswith("a.yaml ") and "\n" not in str(caught.value)
    assert time.thread_time() - start < 10  # a second alone, two beside other work; unbounded ones take minutes


def test_plain_yaml():
    assert parse_yaml("a: &a [1, 2.5, x]\nb: *a\nc: null", "") == {"a": [1, 2.5, "x"], "b": [1, 2.5, "x"], "c": None}
    assert parse_yaml("", "") is None


# Messages -------------------------------------------------------------------------------------------------------------


def test_values_in_messages_are_short():
    """Also those whose repr would fill the memory, since they hold each other."""
    laughs = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    circle = []
    circle.append(circle)
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for value, expected in (
        (laughs, "a list"),
        (tuple(laughs), "a tuple"),
        ({"a": laughs}, "a dict"),
        (nested, "a list"),
        ("x" * 10**6, "a str"),
        (10**5000, "a int"),
        ([1, "a", None], "[1, 'a', None]"),
        ({"a": 2.5}, "{'a': 2.5}"),
        (circle, "a list"),
    ):
        assert errors.shown(value) == expected
    while nested:  # not all at once, which would recurse
        nested = nested.pop()


def test_every_message_is_one_line():
    assert "\n" not in str(StructlossError("a\nb\x1b[2J"))
    assert json.loads(json.dumps(str(StructlossError("\x1b")))) == "\\x1b"


@pytest.mark.parametrize("load", ["recipe_path", "load_grid", "read_run"])
def test_yaml_of_the_harness_is_bounded(load, tmp_path):
    """A recipe, a grid of ablations and the configuration of a run may come from anywhere."""
    from structloss.harness import ablation, recipe_files, run_folder

    function = {module.__name__: getattr(module, load, None) for module in (ablation, recipe_files, run_folder)}
    (function,) = filter(None, function.values())
    path = tmp_path / "config.yaml"
    path.write_text(bomb())
    asked = tmp_path if load == "read_run" else str(path)
    with pytest.raises(DataError, match="values with its aliases"):
        function(asked)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StructlossError, match="is not a regular file" if load != "read_run" else "has no config"):
        function(asked)


def test_a_scratch_folder_goes_with_all_that_it_holds(tmp_path):
    with files.scratch_folder(tmp_path / "new" / "demo") as scratch:
        (scratch / "half").touch()
        os.replace(scratch / "half", tmp_path / "whole")
        (scratch / "other").touch()
    assert sorted(os.listdir(tmp_path)) == ["new", "whole"] and os.listdir(tmp_path / "new") == []
    with pytest.raises(RuntimeError), files.scratch_folder(tmp_path / "demo"):
        raise RuntimeError
    assert sorted(os.listdir(tmp_path)) == ["new", "whole"]


@pytest.mark.parametrize("kind", ["published", "safetensors"])
def test_a_full_disk_has_the_name_that_was_asked_for(kind, tmp_path):
    """torch's writer reports it in exceptions of its own."""
    resource = pytest.importorskip("resource")
    torch = pytest.importorskip("torch")
    from structloss.backbones import save_checkpoint

    path = tmp_path / "weights.safetensors"
    path.write_text("as it was")
    before, previous = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError) as raised:
            if kind == "safetensors":
                save_checkpoint(torch.nn.Linear(100, 100), path)
            else:
                with new_file(path) as file:
                    torch.save(torch.zeros(10000), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
    number, why = (errno.EFBIG, "File too large") if kind == "safetensors" else (errno.ENOSPC, "the disk may be full")
    assert (raised.value.filename, raised.value.errno) == (str(path), number)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_text() == "as it was"
    sentence = rf"^{re.escape(str(path))} can't be written or read: {why}\.$"
    with pytest.raises(DataError, match=sentence), bounded_memory_and_disk():
        raise raised.value


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
@pytest.mark.parametrize("make", [new_file, new_folder, replacing])
def test_a_folder_that_takes_no_files(make):
    sentence = r"^/proc/weights can't be written or read: nothing can be made in its folder\.$"
    with pytest.raises(DataError, match=sentence), bounded_memory_and_disk(), make("/proc/weights"):
        pass


def test_what_can_not_be_made_has_the_name_that_was_asked_for(tmp_path):
    path = tmp_path / ("n" * 250)  # with what a temporary name adds it is too long for any file system
    with pytest.raises(OSError, match="too long") as raised, new_file(path):
        pass
    assert raised.value.filename == str(path)

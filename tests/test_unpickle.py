"""Pickled data sets: everything that they hold is read, and nothing that they ask for is run."""

import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from structloss.data.formats._pickle_scan import check_pickle
from structloss.data.formats.unpickle import load_npz_objects, load_pickle, npz_members
from structloss.data.opening import open_data
from structloss.errors import DataError, MissingFileError, StructlossError

CONTENT = {
    "float64": np.linspace(0, 1, 12).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)),
    "swapped": np.arange(4, dtype=">i4"),
    "text": np.array(["s_01_act_02", "ä"]),
    "bytes": np.array([b"ab", b"c"]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float32(2.5),
    "word": np.str_("S1"),
    "nothing": np.array(7, dtype=np.int16),
    "flag": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "objects": np.array([{"inner": np.eye(2)}, None, [np.ones(3)]], dtype=object),
    "plain": [1, -(2**70), 2.5, "ü", b"\x00\xff", bytearray(b"q"), None, True, (1, (np.arange(2),)), 3j],
    "sets": [{1, 2}, frozenset("ab")],
    "ordered": collections.OrderedDict(b=1, a=[np.int64(3)]),
}


def same(a, b):
    """Equal in type, dtype, shape and value, all the way down; an OrderedDict counts as a dict."""
    if isinstance(a, np.ndarray):
        assert type(b) is np.ndarray and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=") and a.shape == b.shape
        if a.dtype.kind == "O":
            for x, y in zip(a.ravel(), b.ravel(), strict=True):
                same(x, y)
        else:
            np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert type(b) is dict and list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert type(a) is type(b) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert type(a) is type(b) and a == b


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_everything_that_data_sets_hold(protocol, tmp_path):
    same(CONTENT, load_pickle(put(tmp_path / "a.pkl", pickle.dumps(CONTENT, protocol))))


@pytest.mark.parametrize("protocol", range(4))
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_both_names_of_numpys_core(protocol, core, tmp_path):
    here = np._core.__name__.encode() if hasattr(np, "_core") else b"numpy.core"
    data = pickle.dumps(CONTENT, protocol)
    assert here in data
    same(CONTENT, load_pickle(put(tmp_path / "a.pkl", data.replace(here, core))))


def test_what_python_2_wrote(tmp_path):
    """An array and an action's name as Python 2's NumPy pickles them: all strings are byte strings."""
    values = np.array([1.5, -2.25, 1e300])
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85cnumpy\ndtype\n"
        b"U\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x18"
        + values.tobytes()
        + b"tb"
    )
    path = put(tmp_path / "old.pkl", b"\x80\x02}(U\x04poseq\x01" + array + b"U\x06actionU\x07Walkingu.")
    back = load_pickle(path)
    assert back["action"] == "Walking"
    same(values, back["pose"])


def test_shared_and_circular_contents(tmp_path):
    array = np.arange(3.0)
    content = {"a": array, "b": (array, [array])}
    content["self"] = [content]
    back = load_pickle(put(tmp_path / "a.pkl", pickle.dumps(content)))
    assert back["self"][0] is back and back["b"][0] is back["a"] and back["b"][1][0] is back["a"]
    same(array, back["a"])


@given(
    array=hnp.arrays(
        st.sampled_from(["f2", "<f4", ">f8", "i1", "u2", "<i8", "?", "c8", "U3", "S2"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    order=st.sampled_from("CF"),
    protocol=st.integers(0, 5),
)
def test_any_array(array, order, protocol, tmp_path_factory):
    array = np.asarray(array, order=order)
    folder = tmp_path_factory.mktemp("arrays", numbered=True)
    same(array, load_pickle(put(folder / "a.pkl", pickle.dumps(array, protocol))))
    np.savez_compressed(folder / "a.npz", x=array, y=np.array([array, None], dtype=object), z={"k": array})
    back = load_npz_objects(folder / "a.npz")
    with np.load(folder / "a.npz", allow_pickle=True) as trusted:
        same(trusted["x"], back["x"])
        same(trusted["y"], back["y"])
        same(trusted["z"].item(), back["z"])


def test_contents_of_an_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, positions=CONTENT, plain=np.arange(3), word=np.array("x"))
    assert npz_members(path) == ["positions", "plain", "word"]
    back = load_npz_objects(path)
    same(CONTENT, back["positions"])
    assert back["word"] == np.array("x")


# Files that mean harm -------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def traps(canary):
    """Objects whose loading would create the file `canary`, or build what no data set holds."""
    code = f"open({str(canary)!r}, 'w')"
    return {
        "os.system": Call(os.system, f"touch {canary}"),
        "os.mkdir": Call(os.mkdir, str(canary)),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "builtins.open": Call(open, str(canary), "w"),
        "builtins.getattr": Call(getattr, Call(__import__, "os"), "system"),
        "builtins.__import__": Call(__import__, "os"),
        "numpy.load": Call(np.load, str(canary)),
        "numpy.fromfile": Call(np.fromfile, "/etc/hostname", "u1"),
        "torch": Call(torch.zeros, 3),
        "copyreg._reconstructor": Call(__import__("copyreg")._reconstructor, object, object, None),
        "functools.partial": Call(__import__("functools").partial, os.system, f"touch {canary}"),
        "operator.attrgetter": Call(__import__("operator").attrgetter, "system"),
        "codecs.decode": Call(__import__("codecs").decode, b"00", "hex"),
        "numpy.memmap": Call(np.memmap, "/etc/hostname"),
        "numpy.random": np.random.default_rng(0),
        "pathlib": PurePosixPath("/etc"),
    }


@pytest.mark.parametrize("name", list(traps("x")))
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_is_run(name, protocol, tmp_path):
    canary = tmp_path / "canary"
    data = pickle.dumps({"data": [traps(canary)[name]]}, protocol)
    array = np.empty((), object)
    array[()] = [traps(canary)[name]]
    np.savez(tmp_path / "trap.npz", data=array)
    for call in (load_pickle, load_npz_objects):
        path = put(tmp_path / "trap.pkl", data) if call is load_pickle else tmp_path / "trap.npz"
        with pytest.raises(DataError, match=r"refers to .*unsafe") as caught:
            call(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["os.system", "os.mkdir", "builtins.eval", "builtins.exec", "builtins.open"])
def test_the_traps_are_real(name, tmp_path):
    pickle.loads(pickle.dumps(traps(tmp_path / "canary")[name]))
    assert (tmp_path / "canary").exists()


def test_the_message_says_what_was_asked_for(tmp_path):
    path = put(tmp_path / "trap.pkl", pickle.dumps(Call(os.system, "true")))
    with pytest.raises(DataError, match=r"refers to posix\.system, expected numpy arrays and plain containers only"):
        load_pickle(path)


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"
FLOAT = DTYPE + b"X\x02\x00\x00\x00f8\x89\x88\x87R"
HUGE = b"\x8a\x06" + (10**13).to_bytes(6, "little")
WORD = b"cnumpy.core.multiarray\nscalar\n" + DTYPE + b"X\x0a\x00\x00\x00"
ODD = {
    "object of bytes": WORD[:-5] + b"X\x01\x00\x00\x00O\x89\x88\x87RC\x08abcdefgh\x86R.",
    "subclass": RECONSTRUCT + b"cnumpy\nmatrix\nK\x00\x85C\x01b\x87R.",
    "array of another type": RECONSTRUCT + DTYPE + b"K\x00\x85C\x01b\x87R.",
    "array of ten terabytes": RECONSTRUCT + b"cnumpy\nndarray\n" + HUGE + b"\x85C\x01b\x87R.",
    "called ndarray": b"cnumpy\nndarray\n" + HUGE + b"\x85R.",
    "made ndarray": b"cnumpy\nndarray\n" + HUGE + b"\x85\x81.",
    "buffer": b"cnumpy.core.numeric\n_frombuffer\n(C\x08" + bytes(8) + FLOAT + HUGE + b"\x85X\x01\x00\x00\x00CtR.",
    "buffer of text": b"cnumpy.core.numeric\n_frombuffer\n(X\x01\x00\x00\x00aN)X\x01\x00\x00\x00CtR.",
    "structured dtype": DTYPE + b"X\x05\x00\x00\x00f8,f8\x89\x88\x87R.",
    "dtype of a list": DTYPE + b"]\x89\x88\x87R.",
    "dtype with fields": FLOAT + b"(K\x03X\x01\x00\x00\x00<NX\x01\x00\x00\x00a}K\x08K\x08K\x00tb.",
    "huge text dtype": WORD + b"U999999999\x89\x88\x87RC\x01a\x86R.",
    "bytes of a number": b"c__builtin__\nbytes\n" + HUGE + b"\x85R.",
    "bytearray of a number": b"cbuiltins\nbytearray\n" + HUGE + b"\x85R.",
    "set of text": b"cbuiltins\nset\nX\x01\x00\x00\x00a\x85R.",
    "dictionary of a number": b"ccollections\nOrderedDict\nK\x01\x85R.",
    "complex of text": b"cbuiltins\ncomplex\nX\x01\x00\x00\x00a\x85R.",
    "encode to code": b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00punycod\x86R.",
    "encode with another codec": b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
    "a bare name": b"cnumpy\ndtype\n.",
    "a bare dtype": FLOAT + b".",
    "changed name": b"cnumpy\ndtype\n}X\x09\x00\x00\x00_functionK\x01sb.",
    "changed slot": b"cbuiltins\nset\nN}X\x09\x00\x00\x00_functionc_codecs\nencode\ns\x86b.",
    "persistent id": b"Pabc\n.",
    "persistent object": b"K\x01Q.",
    "extension": b"\x80\x02\x82\x01.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "instance": b"(ios\nsystem\n.",
    "object": b"(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "stack name": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
    "protocol": b"\x80\x7f.",
    "bomb of text": b"\x80\x04\x8d" + struct.pack("<Q", 10**13) + b"abc.",
    "bomb of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "empty": b"",
    "text": b"hello world\n",
    "two pickles": pickle.dumps(1) + pickle.dumps(2),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_arguments_and_malformed_streams(name, tmp_path):
    path = put(tmp_path / "odd.pkl", ODD[name])
    with pytest.raises(DataError) as caught:
        load_pickle(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and len(text) < 500


def test_allowed_names_cannot_be_changed(tmp_path):
    """What one file does to an allowed name must not reach the next."""
    for attack in ("changed name", "changed slot"):
        with pytest.raises(DataError):
            load_pickle(put(tmp_path / "odd.pkl", ODD[attack]))
    same(CONTENT, load_pickle(put(tmp_path / "a.pkl", pickle.dumps(CONTENT, 2))))


def test_deep_nesting(tmp_path):
    with pytest.raises(DataError, match="nested too deeply"):
        load_pickle(put(tmp_path / "deep.pkl", b"]" * 100_000 + b"a" * 99_999 + b"."))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_truncated_and_damaged_pickles(protocol, tmp_path):
    data = pickle.dumps({"pose": np.arange(100.0), "action": ["Walking"] * 5}, protocol)
    path = tmp_path / "cut.pkl"
    for share in np.linspace(0, 0.999, 25):
        with pytest.raises(DataError, match="damaged"):
            load_pickle(put(path, data[: int(len(data) * share)]))
    rng = np.random.default_rng(protocol)
    for at in rng.integers(0, len(data), 200):
        damaged = data[:at] + bytes([data[at] ^ (1 << rng.integers(8))]) + data[at + 1 :]
        try:
            load_pickle(put(path, damaged))
        except StructlossError as error:
            assert "\n" not in str(error)


# More than a file holds -----------------------------------------------------------------------------------------------


def nested_tuples(depth=60):
    """A tuple of a tuple twice, many levels deep: its hash would take for ever."""
    return b"\x80\x02K\x01\x85" + b"q\x000" + b"".join(b"h\x00h\x00\x86q\x000" for _ in range(depth))


def nested_lists(depth=40):
    return b"\x80\x02]q\x000" + b"".join(b"](" + b"h\x00" * 10 + b"eq\x000" for _ in range(depth))


EXCESSIVE = {
    "memo": (b"\x80\x02]r" + struct.pack("<I", 1 << 26) + b".", "a memo of 67108864 entries, of 3 values"),
    "memo as text": (b"]p999999999\n.", "a memo of 999999999 entries"),
    "two memos": (b"\x80\x04]q\x00]\x94.", "a memo of two kinds"),
    "key": (b"\x80\x02}" + nested_tuples()[2:] + b"h\x00Ns.", "tuples that hold each other"),
    "keys": (b"\x80\x02}(" + nested_tuples()[2:] + b"h\x00Nu.", "tuples that hold each other"),
    "dictionary": (b"\x80\x02(" + nested_tuples()[2:] + b"h\x00Nd.", "tuples that hold each other"),
    "set": (b"\x80\x04\x8f(" + nested_tuples()[2:] + b"h\x00\x90.", "tuples that hold each other"),
    "frozen set": (b"\x80\x04(" + nested_tuples()[2:] + b"h\x00\x91.", "tuples that hold each other"),
    "the same key often": (
        b"\x80\x02}(" + nested_tuples(14)[2:] + b"h\x00N" * 50_000 + b"u.", "tuples that hold each other"
    ),
    "keys of one hash": (
        b"\x80\x02}(" + b"".join(b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N" for i in range(1, 9999))
        + b"u.",
        "numbers of any length",
    ),
    "a million sets": (b"\x80\x04(" + b"\x8f" * 1_000_000 + b"t.", "values that take"),
    "a million dictionaries": (b"\x80\x02(" + b"}" * 1_000_000 + b"t.", "values that take"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXCESSIVE)
def test_what_asks_for_more_than_it_holds(name, tmp_path):
    content, expected = EXCESSIVE[name]
    path = put(tmp_path / "much.pkl", content)
    start = time.process_time()
    with pytest.raises(DataError, match=expected) as caught:
        load_pickle(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and time.process_time() - start < 2
    with pytest.raises(DataError, match=expected):
        load_npz_objects(npz(tmp_path / "much.npz", header((), "|O"), content))


def test_calls_do_not_hash_what_the_opcodes_may_not(tmp_path):
    """Also where the stand-ins of OrderedDict and set do it."""
    tuples = b"\x80\x02" + nested_tuples()[2:]
    for call in (b"ccollections\nOrderedDict\n(h\x00N\x86l\x85R.", b"cbuiltins\nset\n(h\x00l\x85R."):
        with pytest.raises(DataError, match="refers to a key"):
            load_pickle(put(tmp_path / "much.pkl", tuples + call))


def test_shared_values_are_read_and_shown_in_no_time(tmp_path):
    """Ten laughs, each of them ten laughs, forty levels deep."""
    path = put(tmp_path / "laughs.pkl", nested_lists() + b"h\x00.")
    start = time.process_time()
    assert len(load_pickle(path)) == 10
    with pytest.raises(DataError, match="is a list, expected a dictionary") as caught:
        open_data(path)
    assert len(str(caught.value)) < 200 + len(str(path))
    keyed = put(tmp_path / "keyed.pkl", b"\x80\x02}X\x05\x00\x00\x00train" + nested_lists()[2:] + b"h\x00s.")
    with pytest.raises(DataError, match="is a list"):
        open_data(keyed)
    assert time.process_time() - start < 1


def test_memory_of_a_refusal(tmp_path):
    """The address space is bound, as a cluster's scheduler does: nothing is taken that the file does not hold."""
    put(tmp_path / "memo.pkl", EXCESSIVE["memo"][0])
    put(tmp_path / "laughs.pkl", nested_lists() + b"h\x00.")
    np.savez_compressed(tmp_path / "zeros.npz", meta=np.zeros(10**9, np.uint8))
    assert (tmp_path / "zeros.npz").stat().st_size < 2e6
    code = (
        "import resource, sys, time\n"
        "from structloss.data import load_archive\n"
        "from structloss.data.opening import open_data\n"
        "from structloss.errors import DataError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    start = time.process_time()\n"
        "    for read in (open_data, load_archive) if path.endswith('npz') else (open_data,):\n"
        "        try: read(path)\n"
        "        except DataError as error: print(error)\n"
        "        else: raise SystemExit('read')\n"
        "    assert time.process_time() - start < 1\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000\n"
    )
    paths = [str(tmp_path / name) for name in ("memo.pkl", "laughs.pkl", "zeros.npz")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "describes 1000000000 bytes, the file holds 9" in done.stdout and len(done.stdout.splitlines()) == 4


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner)
    | st.frozensets(st.integers()) | st.dictionaries(st.tuples(st.integers(), st.text(max_size=2)), inner),
    max_leaves=30,
), st.integers(0, 5))  # fmt: skip
def test_honest_contents_are_never_refused(content, protocol):
    data = pickle.dumps([content, content], protocol)
    for text in (data, pickletools.optimize(data)):
        file = io.BytesIO(text + b"rest")
        check_pickle(file, len(text))
        assert file.read() == b"rest"


def test_long_honest_contents():
    """A word, a number and a flag of every frame, as lists, and many small dictionaries."""
    words = [f"s_{i % 7:02d}_act_{i:06d}" for i in range(20_000)]
    content = {"source": words, "again": tuple(words), "number": list(range(20_000)), "flag": [True] * 20_000,
               "points": [{"x": i / 3, "y": 0.5} for i in range(20_000)]}  # fmt: skip
    for protocol in range(6):
        data = pickle.dumps(content, protocol)
        check_pickle(io.BytesIO(data), len(data))


# npz ------------------------------------------------------------------------------------------------------------------


def npz(path, header, content=b"", *, version=(1, 0), compression=zipfile.ZIP_STORED):
    """An npz file with one member of a hand-made header."""
    text = repr(header).encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.npy", b"\x93NUMPY" + bytes(version) + length + text + content)
    return path


def header(shape, descr="<f8", fortran=False):
    return {"descr": descr, "fortran_order": fortran, "shape": shape}


BAD_NPZ = {
    "ten terabytes": (header((1250, 1000, 1000, 1000)), bytes(80), "describes 10000000000000 bytes"),
    "overflow": (header((2**40, 2**40)), bytes(80), "bytes"),
    "too short": (header((10,)), bytes(72), "describes 80 bytes, the file holds 72"),
    "too long": (header((10,)), bytes(88), "describes 80 bytes"),
    "negative": (header((-1,)), b"", "cannot be read"),
    "code": (b"__import__('os').system('true')", b"", "cannot be read"),
    "dtype": (header((1,), "zz"), b"", "cannot be read"),
    "fields with objects": (header((1,), [("a", "O"), ("b", "f8")]), bytes(16), "expected plain numbers"),
    "objects that are none": (header((1,), "|O"), bytes(8), "cannot be read|damaged"),
    "objects of another shape": (header((2,), "|O"), pickle.dumps(np.array([1, None, 2], object)), "header describes"),
    "numbers for objects": (header((2,), "|O"), pickle.dumps(np.arange(2.0)), "header describes"),
    "list for an array": (header((2,), "|O"), pickle.dumps([1, 2]), "header describes"),
    "trap": (header((), "|O"), pickle.dumps(Call(os.system, "true")), r"refers to posix\.system"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_members(name, tmp_path):
    head, content, expected = BAD_NPZ[name]
    path = npz(tmp_path / "bad.npz", head, content)
    with pytest.raises(DataError, match=expected) as caught:
        load_npz_objects(path)
    assert "'a'" in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_zip_bomb_takes_no_memory(tmp_path):
    """Header and directory claim the same four billion bytes; so few compressed ones can't hold them."""
    claimed = 4_000_000_000
    start = 10 + len(repr(header((claimed,), "|u1"))) + 1
    path = npz(tmp_path / "bomb.npz", header((claimed - start,), "|u1"), bytes(4096), compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, claimed)
    with pytest.raises(DataError, match=f"describes {claimed - start} bytes, the file holds [0-9]{{2}}\\."):
        load_npz_objects(put(path, bytes(data)))


def test_versions_of_the_header(tmp_path):
    for version in ((1, 0), (2, 0)):
        values = np.arange(3.0)
        back = load_npz_objects(npz(tmp_path / "a.npz", header((3,)), values.tobytes(), version=version))
        same(values, back["a"])
    with pytest.raises(DataError, match=r"format version is \(3, 0\)"):
        load_npz_objects(npz(tmp_path / "a.npz", header((3,)), bytes(24), version=(3, 0)))


def test_truncated_and_damaged_npz(tmp_path):
    path = tmp_path / "a.npz"
    buffer = io.BytesIO()
    original = {"positions": {"S1": np.arange(500.0)}}
    np.savez_compressed(buffer, data=original, plain=np.arange(50))
    data = buffer.getvalue()
    for share in np.linspace(0, 0.999, 15):
        with pytest.raises(DataError):
            load_npz_objects(put(path, data[: int(len(data) * share)]))
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 60):
        put(path, data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            back = load_npz_objects(path)
        except StructlossError as error:
            assert "\n" not in str(error)
        else:  # a byte that does not matter, such as a time stamp, or a member's name
            for name, value in back.items():
                if name in ("data", "plain"):
                    same(original if name == "data" else np.arange(50), value)


@pytest.mark.parametrize("call", [load_pickle, load_npz_objects, npz_members])
def test_missing_files(call, tmp_path):
    with pytest.raises(MissingFileError, match="does not exist"):
        call(tmp_path / "nothing")
    with pytest.raises(MissingFileError, match="is a directory"):
        call(tmp_path)

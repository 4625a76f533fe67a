"""What is printed of a file's text: no control character reaches a terminal."""

import os
import sys
import warnings

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from structloss import errors
from structloss.cli import main
from structloss.data._words import some
from structloss.text import visible, visible_lines, visible_warnings

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


@given(st.text())
def test_visible_text(text):
    once = visible(text)
    assert visible(once) == once and "\n" not in once
    assert all(c.isprintable() or c.isspace() for c in once)
    if text.isprintable():
        assert once == text


def test_what_is_escaped_and_what_is_kept():
    assert visible("Hüfte 関節\u3000左") == "Hüfte 関節\u3000左"
    assert visible("a\x1b[31m\r\n\x7f\x9b\u202eb\udc80") == r"a\x1b[31m\r\n\x7f\x9b\u202eb\udc80"
    assert visible(3) == "3"


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_errors_show_no_control_characters(name):
    error = getattr(errors, name)(f"{ESCAPE} is\nunknown")
    assert str(error) == r"\x1b]0;owned\x07\x1b[2J is\nunknown"
    assert errors.shown(ESCAPE) == repr(ESCAPE) and some([ESCAPE]) == r"\x1b]0;owned\x07\x1b[2J"


def test_a_file_name_with_an_escape_sequence(tmp_path, capsys):
    path = tmp_path / f"a{ESCAPE}.json"
    for command in (["predict", str(path), "--ckpt", "a.ckpt", "--out", "o"], ["data", "inspect", str(path)]):
        assert main(command) == 1
        assert "\x1b" not in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_lines_and_warnings():
    assert visible_lines(f"a{ESCAPE}\nb") == "a\\x1b]0;owned\\x07\\x1b[2J\nb"
    before = warnings.showwarning
    with pytest.warns(UserWarning) as said, visible_warnings():
        warnings.warn_explicit(f"{ESCAPE} is odd", UserWarning, f"a{ESCAPE}.py", 3)
    assert str(said[0].message) == r"\x1b]0;owned\x07\x1b[2J is odd" and "\x1b" not in said[0].filename
    assert warnings.showwarning is before


def test_a_warning_is_one_plain_line(capsys, monkeypatch):
    """Without source and code, whatever format a library has set meanwhile, which stays."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # as Python shows them where pytest does not collect them
        warnings.showwarning = lambda *of, file=None, line=None: sys.stderr.write(warnings.formatwarning(*of[:4]))
        with visible_warnings():
            format = lambda *of: "another"  # noqa: E731
            monkeypatch.setattr(warnings, "formatwarning", format)
            warnings.warn("2 of 3 images can't be used.", UserWarning, stacklevel=1)
            assert warnings.formatwarning is format
    assert capsys.readouterr().err == "structloss: warning: 2 of 3 images can't be used.\n"


@pytest.mark.slow(seconds=9)
def test_a_folder_with_an_escape_sequence(tmp_path, commands):
    """Trained and reported in folders whose names would move the cursor: nothing of it is sent."""
    from structloss.data import generate_clips, save_archive

    folder = tmp_path / "a\x1b[2Jb"
    folder.mkdir()
    save_archive(folder / "m\x1b[31m.npz", generate_clips(4, 1, 30))
    recipe = {
        "model": {"backbone_args": {"dim_feat": 8, "dim_rep": 8, "depth": 1, "num_heads": 1}},
        "data": {"data": str(folder / "m\x1b[31m.npz"), "window": 9, "batch_size": 4, "eval_batch_size": 8},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "default_root_dir": str(folder)},
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    run = None
    for arguments in (
        ["fit", "--config", folder / "r.yaml"],
        ["report", None, "--clips", 1, "--frames", 9, "--json", folder / "n.json"],
    ):
        done = commands.run(tmp_path, *(run if part is None else part for part in arguments))
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr, arguments[0]
        assert r"a\x1b[2Jb" in done.stdout, arguments[0]
        run = run or next(path.parent for path in folder.rglob("config.yaml"))

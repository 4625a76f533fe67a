"""What is printed of a file's text: no control character reaches a terminal."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structloss import errors
from structloss.cli import main
from structloss.data._words import some
from structloss.text import visible

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

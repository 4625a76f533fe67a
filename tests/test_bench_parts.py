"""`structloss bench --op parts`: images of a template's parts, beside other ways to compute them."""

import csv

import pytest
import torch

from bench import parts, run

SHORT = ["--batch", "2", "--size", "32", "--threads", "1", "--rounds", "3", "--budget", "1"]
PROVIDERS = ["grid-sample", "analytic-eager", "torch", "cuda"]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_rows_and_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parts, "weigh", lambda *given: 1.5)
    path = tmp_path / "rows.csv"
    assert run.main(["--op", "parts", *SHORT, "--providers", *PROVIDERS, "--csv", str(path)]) == 0
    assert "### render_parts: B = 2, P = 18, 32 px" in capsys.readouterr().out
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert (row["op"], row["B"], row["T"], row["J"]) == ("render_parts", "2", "32", "18")
        if row["provider"] == "cuda" and not torch.cuda.is_available():
            assert row["note"].startswith("skipped: backend 'cuda' can't serve this call") and row["p50"] == ""
        elif row["metric"] == "time":
            assert 0 < float(row["p20"]) <= float(row["p50"]) <= float(row["p80"])
            assert (float(row["ratio"]) == 1) == (row["provider"] == "grid-sample")
        else:
            assert float(row["p50"]) == 1.5
    assert {row["provider"] for row in rows} == set(PROVIDERS) and {row["mode"] for row in rows} == set(parts.MODES)


def test_memory_is_that_of_the_call():
    request = {"provider": "torch", "mode": "forward", "batch": 6, "size": 256, "threads": 1}
    images = 6 * 18 * 256**2 * 4
    assert images * 0.9 <= parts.answer(request) <= images + 12e6


def test_a_wrong_way_is_not_timed(monkeypatch, capsys):
    right = parts.PROVIDERS["torch"]
    wrong = parts.Provider("wrong", lambda *given: lambda m: right.build(*given)(m) * (1 + 2e-4))
    monkeypatch.setitem(parts.PROVIDERS, "torch", wrong)
    assert parts.main([*SHORT, "--providers", "torch"]) == 1
    assert "wrong and therefore not timed: images of torch differ" in capsys.readouterr().err

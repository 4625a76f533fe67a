"""`structloss bench images`: from an image to a refined pose, beside the plain form."""

import csv

import pytest
import torch

from bench import images

SHORT = ["--network", "sapnet-tiny", "--threads", "1", "--batch", "1", "2", "--rounds", "3"]


def test_image_to_refined_pose(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    threads = torch.get_num_threads()
    try:
        code = images.main([*SHORT, "--providers", "structloss", "structloss-channels-last", "--csv", str(path)])
    finally:
        torch.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "### sapnet-tiny with TP-Net" in out and "1 thread, structloss" in out
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    providers = ["plain", "structloss", "structloss-channels-last"]
    assert [(r["B"], r["provider"], r["mode"]) for r in rows] == [
        (batch, provider, mode) for batch in ("1", "2") for provider in providers for mode in images.MODES
    ]
    for row in rows:
        assert (row["op"], row["metric"], row["unit"]) == ("images sapnet-tiny", "time_per_image", "ms")
        assert 0 < float(row["p20"]) <= float(row["p50"]) <= float(row["p80"]) and row["note"] == ""
        assert (float(row["ratio"]) == 1) == (row["provider"] == "plain")
    whole = {(r["provider"], r["B"]): float(r["p50"]) for r in rows if r["mode"] == "whole"}
    decode = {(r["provider"], r["B"]): float(r["p50"]) for r in rows if r["mode"] == "decode"}
    assert all(decode[key] < whole[key] for key in whole)


@pytest.mark.parametrize("step", ["network", "decode", "refine"])
def test_a_wrong_step_is_not_timed(step, monkeypatch, capsys):
    right = images.Case.steps

    def wrong(self, provider):
        steps = right(self, provider)
        if provider == "structloss":
            function = getattr(steps, step)
            scaled = (lambda x: [1.01 * y for y in function(x)]) if step == "network" else None
            setattr(steps, step, scaled or (lambda *x: 1.01 * function(*x)))
        return steps

    monkeypatch.setattr(images.Case, "steps", wrong)
    assert images.main([*SHORT, "--providers", "structloss"]) == 1
    assert f"wrong and therefore not timed: {step} of structloss for sapnet-tiny" in capsys.readouterr().err


def test_bad_arguments_give_one_line(capsys):
    assert images.main([*SHORT, "--network", "sapnet-smal"]) == 2
    assert "unknown image network 'sapnet-smal'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        images.main(["--batch", "0"])
    assert "argument --batch: '0' is not a positive integer" in capsys.readouterr().err

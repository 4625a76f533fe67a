"""Keypoints as they come: the poses of the whole clip frame by frame, whatever else stands in the lines."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from backbone_cases import filled

from structloss import backbones
from structloss.backbones import BackboneStream, full_lag, predict_video
from structloss.cli import main
from structloss.commands._predict_settings import PredictSettings
from structloss.commands._predict_stream import run_predict_stream
from structloss.data.formats import read_keypoints
from structloss.data.formats.keypoint_lines import LONGEST_LINE, bounded_lines
from structloss.errors import ArgumentError, DataError, StructlossError
from structloss.harness.predict import Lifter, load_lifter, predict
from structloss.harness.streaming import KeypointStream


@pytest.fixture(scope="module")
def lifter():
    return load_lifter(backbone="lift-27")


@pytest.fixture(scope="module")
def walk():
    return read_keypoints("sample:walk")[0]


def rows_of(keypoints, first=0, end=None):
    """`[T, J, 3]`: x, y, confidence."""
    return np.concatenate([keypoints.keypoints, keypoints.confidence[..., None]], axis=-1)[first:end]


def part(keypoints, first, end):
    return replace(keypoints, keypoints=keypoints.keypoints[first:end], confidence=keypoints.confidence[first:end])


def stream_of(lifter, keypoints, **options):
    size = (keypoints.width, keypoints.height)
    return KeypointStream(lifter, **{"layout": keypoints.skeleton, "image_size": size, "fps": keypoints.fps} | options)


def poses_of(answers):
    return np.stack([answer.positions for answer in answers])


# ---------------------------------------------------------------------------------------------------------- networks


#: network -> its arguments, the frames from one to the next that it looks at, and how late it is
NETWORKS = {
    "lift-s": ({}, 1, 0),
    "lift-27": ({}, 1, 13),
    "videopose3d-27": ({"channels": 16}, 2, 26),
    "videopose3d-27-causal": ({"channels": 16}, 1, 0),
    "repose-tiny": ({"maxlen": 9, "dim_feat": 16, "dim_rep": 16, "depth": 1, "num_heads": 2}, 1, 4),
}


def network(name):
    model = filled(name, **NETWORKS[name][0])
    model.frame_step = NETWORKS[name][1]
    return model


def assert_near(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stream_answers_as_the_whole_video(name):
    model, lag = network(name), NETWORKS[name][2]
    stream, frames = BackboneStream(model), torch.rand(45, 17, 3) - 0.5
    assert stream.lag == full_lag(model) == lag
    answers = [stream(frame) for frame in frames]
    assert [answer is None for answer in answers] == [number < lag for number in range(45)]
    found = torch.cat([torch.stack(answers[lag:]), stream.flush()])
    expected = predict_video(model, frames, keep="centre" if model.kind == "sequence" else None)
    assert_near(found, expected)
    again = [stream(frame) for frame in frames[: lag + 3]]  # after flush it begins anew
    assert_near(torch.stack(again[lag:]), expected[:3])
    assert len(stream.flush()) == lag


def test_fewer_frames_of_lag_see_the_newest_in_place_of_those_that_have_not_come():
    model = network("videopose3d-27")
    frames = torch.rand(40, 17, 2) - 0.5
    stream = BackboneStream(model, lag=4)
    found = [stream(frame) for frame in frames][4:]
    for number in (0, 20, 35):  # as at the end of a video that ends there
        assert_near(found[number], predict_video(model, frames[: number + 5])[number])


def test_a_network_of_sequences_sees_its_whole_clip_with_less_lag():
    """Nothing is repeated: it answers for a frame nearer to the end of the 9."""
    model = network("repose-tiny")
    frames = torch.rand(40, 17, 2) - 0.5
    stream = BackboneStream(model, lag=3, flip=False)
    found = [stream(frame) for frame in frames]
    with torch.no_grad():
        assert_near(found[-1], model(frames[None, 40 - 9 :])[0, 5])


def test_streams_that_can_not_be():
    causal = network("videopose3d-27-causal")
    with pytest.raises(ArgumentError, match="lag is 1, expected 0, since the network looks at no later frame"):
        BackboneStream(causal, lag=1)
    with pytest.raises(ArgumentError, match="lag is 14, expected 0 to 13 frames"):
        BackboneStream(backbones.create("lift-27"), lag=14)
    with pytest.raises(ArgumentError, match="kind 'refine'"):
        BackboneStream(backbones.create("jointformer-h36m-refine"))
    stream = BackboneStream(causal)
    stream(torch.zeros(17, 2))
    with pytest.raises(ArgumentError, match=r"shape \[17, 3\], expected \[17, 2\]"):
        stream(torch.zeros(17, 3))


# ------------------------------------------------------------------------------------------------------------ people


def test_poses_are_those_of_the_whole_clip(lifter, walk):
    clip = part(walk, 0, 60)
    stream = stream_of(lifter, clip)
    answers = [answer for number, row in enumerate(rows_of(clip)) for answer in stream.push(row, tag=number)]
    assert [answer.lag for answer in answers] == [13] * 47
    answers += stream.flush()
    assert [answer.tag for answer in answers] == [answer.frame for answer in answers] == [*range(60)]
    assert [answer.lag for answer in answers[47:]] == [*range(12, -1, -1)]
    np.testing.assert_allclose(poses_of(answers), predict(lifter, clip).positions, atol=2e-6)


def test_a_gap_is_what_it_is_in_a_file(lifter):
    """Frames in which nobody was seen, left out or told, are lines to where somebody is seen again."""
    whole = read_keypoints("sample:kick")[0]
    (gap,) = whole.gaps
    expected = predict(lifter, whole).positions
    left_out, told = stream_of(lifter, whole), stream_of(lifter, whole)
    answers, others, nobody = [], [], []
    for number, row in enumerate(rows_of(whole)):
        if gap[0] <= number < gap[1]:
            nobody += told.push(None if number % 2 else row)
            continue
        answers += left_out.push(row, frame=number)
        others += told.push(row)
    assert [(one.frame, one.positions) for one in nobody] == [(number, None) for number in range(*gap)]
    answers += left_out.flush()
    others += told.flush()
    assert [other.frame for other in others] == [answer.frame for answer in answers]
    np.testing.assert_array_equal(poses_of(others), poses_of(answers))
    assert [answer.frame for answer in answers] == [n for n in range(len(whole)) if not gap[0] <= n < gap[1]]
    np.testing.assert_allclose(poses_of(answers), expected[[answer.frame for answer in answers]], atol=2e-6)


def test_after_a_second_away_somebody_begins_anew(lifter, walk):
    stream = stream_of(lifter, walk)
    rows = rows_of(walk)
    answers = [a for n, row in enumerate(rows[:20]) for a in stream.push(row, frame=n)]
    answers += [a for n, row in enumerate(rows[60:80]) for a in stream.push(row, frame=60 + n)] + stream.flush()
    assert [answer.frame for answer in answers] == [*range(20), *range(60, 80)]
    for first, found in ((0, answers[:20]), (60, answers[20:])):
        expected = predict(lifter, part(walk, first, first + 20)).positions
        np.testing.assert_allclose(poses_of(found), expected, atol=2e-6)


def test_several_people_do_not_disturb_each_other(lifter, walk):
    dance = read_keypoints("sample:dance")[0]
    sizes = {"w": (walk.width, walk.height), 7: (dance.width, dance.height)}
    clips = {"w": part(walk, 0, 40), 7: part(dance, 0, 30)}
    stream = KeypointStream(lifter, layout="coco")
    answers = []
    for number in range(40):
        for person, clip in clips.items():
            if number < len(clip):
                answers += stream.push(rows_of(clip)[number], person=person, image_size=sizes[person])
        if number == 34:
            answers += stream.flush(7)  # who has left
    answers += stream.flush()
    for person, clip in clips.items():
        found = [answer for answer in answers if answer.person == person]
        assert [answer.frame for answer in found] == [*range(len(clip))]
        np.testing.assert_allclose(poses_of(found), predict(lifter, clip).positions, atol=2e-6)


def test_a_refiner_adds_its_own_lag(lifter, walk):
    """Trained on every second frame: two clips side by side."""
    from structloss.harness.refined import refined
    from structloss.harness.refining import LoadedRefiner
    from structloss.refine import LSTMRefiner, TPNet

    refiner = LoadedRefiner(TPNet(past=3, future=2, hidden=16, root=0).eval(), "tpnet", "h36m", walk.fps / 2, "nowhere")
    clip = part(walk, 0, 33)
    stream = stream_of(lifter, clip, refiner=refiner)
    assert stream.lag == 13 + 2 * 2
    answers = [answer for row in rows_of(clip) for answer in stream.push(row)] + stream.flush()
    assert [answer.frame for answer in answers] == [*range(33)] and answers[0].lag == 17
    expected = refined(predict(lifter, clip), refiner).positions
    np.testing.assert_allclose(poses_of(answers), expected, atol=2e-6)
    whole = LoadedRefiner(LSTMRefiner(hidden=8, bidirectional=True, future=None).eval(), "lstm", "h36m", 50, "nowhere")
    with pytest.raises(ArgumentError, match="must see a clip's end can't stream"):
        stream_of(lifter, clip, refiner=whole)


def test_sizes_of_networks_in_image_space_are_those_of_the_last_second(walk):
    model = filled("simplebaseline")
    stream = stream_of(Lifter(model, "made-up", "global", "h36m", False, "nowhere"), walk)
    answers = [answer for row in rows_of(walk, 0, 60) for answer in stream.push(row)]
    body = stream.body
    for answer in answers:
        assert answer.scale > 0 and answer.lag == 0
    lengths = [
        sum(np.linalg.norm(a.positions[i] - a.positions[j]) for _, group in body.bone_groups for i, j in group)
        for a in answers
    ]
    canonical = sum(map(sum, body.bone_group_lengths)) / 1000
    raw = [length / answer.scale for length, answer in zip(lengths, answers, strict=True)]
    assert answers[-1].scale == pytest.approx(canonical / np.median(raw[-50:]), rel=0.01)


def test_frames_are_numbered_by_their_times(lifter, walk):
    stream = stream_of(lifter, walk, lag=0, fps=50)
    rows = rows_of(walk)
    found = [stream.push(row, time=t)[0].frame for row, t in zip(rows, (0.0, 0.021, 0.059, 0.1), strict=False)]
    assert found == [0, 1, 3, 5]
    with pytest.raises(ArgumentError, match=r"time is 0\.1, expected more than 0\.1"):
        stream.push(rows[9], time=0.1)
    with pytest.raises(ArgumentError, match="frame is 5, expected more than 5"):
        stream.push(rows[9], frame=5)
    assert stream.push(rows[9], time=0.12)[0].frame == 6  # as if those had not come


# ----------------------------------------------------------------------------------------------------------- command


def line(row, **more):
    return json.dumps({"keypoints": np.asarray(row, float).round(3).tolist(), **more}).encode()


def answered(lines, **settings):
    """What the command answers to some lines, and the error that it ends with."""
    out, error = io.StringIO(), None
    settings = {"input": "-", "stream": True, "layout": "coco", "image_size": (1080, 1920), "lag": 0} | settings
    try:
        run_predict_stream(PredictSettings(**settings), {"layout": "--layout", "image_size": "--image-size"},
                           io.BytesIO(b"\n".join(lines)), out)  # fmt: skip
    except StructlossError as raised:
        error = raised
    return [json.loads(text) for text in out.getvalue().splitlines()], error


BROKEN = {
    b"{": "line 2 is not valid JSON",
    b"[" * 100_000: "line 2 is not valid JSON: it is nested too deeply",
    b'"text"': "line 2 is a str of 4, expected an object",
    b"\xff\xfe\x00": "line 2 is not valid JSON",
    b'{"frame": 3}': "line 2 is an object with frame, expected keypoints in it",
    b'{"keypoints": [[1, 2, 3, 4, 5]]}': "keypoints in line 2 has shape [1, 5]",
    b'{"keypoints": "x"}': "keypoints in line 2 is a str of 1, expected numbers",
    b'{"keypoints": [[500, 600, 1], [400, 500, 1]]}': "there are 2 keypoints, expected 17 for the layout 'coco'",
    b'{"keypoints": [[NaN, 1, 1]]}': "there are 1 keypoints, expected 17 for the layout 'coco'",
    b'{"keypoints": [], "frame": 1.5}': "frame of line 2 is 1.5, expected a whole number",
    b'{"keypoints": [], "frame": true}': "frame of line 2 is True",
    b'{"keypoints": [], "time": NaN}': "time of line 2 is nan, expected a number of seconds",
    b'{"keypoints": [], "person": [1]}': "person of line 2 is [1], expected a number or a text",
    b'{"keypoints": [], "person": "' + b"x" * 300 + b'"}': "person of line 2 is a str, expected a number or a text",
    b'{"keypoints": [], "image_size": [0, 5]}': "width of line 2 is 0, expected a number of pixels",
    b'{"keypoints": [], "image_size": [5]}': "the size of the image in line 2 is [5], expected [width, height]",
    b'{"keypoints": [], "image_size": "x"}': "the size of the image in line 2 is 'x', expected [width, height]",
    b'{"keypoints": [], "frame": ' + b"9" * 5000 + b"}": "line 2 is not valid JSON",
    b'{"keypoints": [], "end": 1}': "end of line 2 is 1, expected true or false",
    b"x" * (LONGEST_LINE + 5): f"line 2 is longer than {LONGEST_LINE} bytes",
}


def test_a_broken_line_loses_nothing_else(walk):
    rows = rows_of(walk)
    (alone, _), error = answered([line(rows[0], frame=0), line(rows[1], frame=1)])
    assert error is None and alone["line"] == 1 and alone["frame"] == 0 and alone["lag"] == 0 and alone["ms"] >= 0
    first, last = line(rows[0], frame=0, time=0.5, person="a"), line(rows[1], frame=5)
    off = [line(rows[0] + [0, 5000, 0]), line(rows[0] / [1000, 1000, 1]), line(rows[0], frame=0, person="a")]
    off_reasons = [
        "all keypoints lie outside of the image",
        "keypoints lie within -2 to 2",
        "frame is 0, expected more",
    ]
    unseen = line(rows[0] * np.nan, frame=4)
    lines = [first, *BROKEN, *off, b"", b'{"keypoints": null}', unseen, last]
    found, error = answered(lines)
    broken = len(BROKEN) + len(off)
    assert isinstance(error, DataError) and str(error).startswith(
        f"{broken} of {broken + 4} lines could not be taken, the first of them: line 2 is not valid JSON"
    )
    reasons = [one["error"] for one in found if "error" in one]
    assert [one["line"] for one in found if "error" in one] == [*range(2, 2 + broken)]
    for number, (reason, expected) in enumerate(zip(reasons, [*BROKEN.values(), *off_reasons], strict=True), start=2):
        assert reason.replace(f"line {number}", "line 2").startswith(expected), (reason, expected)
        assert len(reason) < 400 and reason.isprintable()
    good = [one for one in found if "error" not in one]
    assert [one["positions"] is None for one in good] == [False, True, True, False]
    assert good[0]["positions"] == alone["positions"] and (good[0]["person"], good[0]["time"]) == ("a", 0.5)
    assert good[-1]["line"] == len(lines) and np.isfinite(good[-1]["positions"]).all()
    assert set(good[-1]) == {"line", "frame", "positions", "lag", "ms"}


def test_lines_are_answered_for_who_has_left_and_at_the_end(walk):
    rows = rows_of(walk, 0, 6)
    lines = [text for row in rows for text in (line(row, person=1), line(row, person=2))]
    lines.insert(10, b'{"person": 1, "end": true}')
    found, error = answered(lines, backbone="lift-27", lag=None)
    assert error is None
    assert sorted(one["line"] for one in found) == [n for n in range(1, 14) if n != 11]
    assert [one["line"] for one in found[:5]] == [1, 3, 5, 7, 9]
    assert [one["lag"] for one in found[:5]] == [4, 3, 2, 1, 0]


def test_an_endless_line_takes_no_memory():
    class Endless(io.RawIOBase):
        given = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            if self.given > 1 << 25:
                return 0
            self.given += len(buffer)
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    source = Endless()
    lines = bounded_lines(io.BufferedReader(source))
    assert next(lines) == (1, None) and source.given < 2 * LONGEST_LINE  # told as soon as it is known
    assert list(lines) == []
    assert list(bounded_lines(io.BytesIO(b"a" * 10 + b"\n\n \nb\nc"), 10)) == [
        (1, b"a" * 10 + b"\n"),
        (4, b"b\n"),
        (5, b"c"),
    ]


def test_answers_come_at_once_and_wait_for_a_slow_reader(walk):
    """Nothing is lost, however long nobody reads, and nobody needs to close the input to get an answer."""
    rows = rows_of(walk, 0, 160)
    command = [sys.executable, "-m", "structloss.cli", "predict", "-", "--stream", "--layout", "coco"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, "--image-size", "1080", "1920"], env=environment, **pipes)
    try:
        for number in (0, 1):
            process.stdin.write(line(rows[number]) + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["frame"] == number  # while the input is open

        def feed():
            for row in rows[2:]:
                process.stdin.write(line(row) + b"\n")
            process.stdin.close()

        writer = threading.Thread(target=feed)
        writer.start()
        time.sleep(0.5)  # answers are more than a pipe holds
        found = [json.loads(text) for text in process.stdout]
        writer.join()
        assert [one["frame"] for one in found] == [*range(2, 160)] and [one["line"] for one in found] == [
            *range(3, 161)
        ]
        assert process.wait() == 0
        told = process.stderr.read().decode()
        assert "160 lines read, 160 frames answered, 0 not taken" in told and "ms a frame" in told
    finally:
        process.kill()
        process.wait()


def test_a_closed_pipe_ends_it_without_an_error(walk, monkeypatch):
    reads, writes = os.pipe()
    os.close(reads)
    monkeypatch.setattr("sys.stdout", open(writes, "w"))  # noqa: SIM115
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    said.close = lambda: None
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(line(row) for row in rows_of(walk, 0, 5)))))
    assert main(["predict", "-", "--stream", "--layout", "coco", "--image-size", "1080", "1920"]) == 1
    assert "Traceback" not in said.getvalue() and "error" not in said.getvalue()


def test_a_closed_standard_output(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr("sys.stdout", None)
    assert main(["predict", "-", "--stream", "--layout", "coco", "--image-size", "1080", "1920"]) == 1
    assert "standard output is closed, expected somewhere to write poses" in capsys.readouterr().err


REFUSED = {
    ("-",): "the input is '-', standard input, expected it with --stream",
    ("--stream",): "--stream is given without an input, expected - for standard input",
    ("a.npz", "--stream"): "--stream is given with the input 'a.npz', expected - for standard input",
    ("-", "--stream", "--npz", "a.npz"): "--npz is given with --stream, expected it with the keypoints of a file",
    ("-", "--stream", "--person", "all"): "--person is given with --stream",
    ("-", "--stream", "--fit-skeleton"): "which can't wait for the median of the prediction",
    ("-", "--stream", "--layout", "coca"): "unknown layout 'coca': did you mean 'coco'?",
    ("-", "--stream", "--lag", "1"): "--lag is 1, expected 0, since the network looks at no later frame",
    ("-", "--stream", "--fps", "nan"): "--fps is nan, expected a positive number of frames per second",
    ("-", "--stream", "--backbone", "mixste-243"): "--backbone is 'mixste-243' without --weights",
    ("a.npz", "--lag", "1"): "--lag is 1, expected it with --stream",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_can_not_be_streamed(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["predict", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("structloss: error: ") and REFUSED[arguments] in err

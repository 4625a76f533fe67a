"""Units of poses: thresholds in them, warnings where the numbers plainly have another, and NumPy arrays for tensors."""

import warnings

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import structloss
from structloss import backbones, learned, metrics, skeletons, units
from structloss.data.synthetic import generate_clips
from structloss.errors import ArgumentError, DtypeError
from structloss.units import check_unit, extent


@pytest.fixture(scope="module")
def body():
    """A person in metres, `[2, 12, 17, 3]`, and a prediction 0.103 m off in half of the joints, 0.203 m else."""
    clip = generate_clips(num_subjects=1, clips_per_subject=1, frames=24, seed=3)[0]
    target = torch.from_numpy(clip.positions).reshape(2, 12, 17, 3)
    pred = target.clone()
    pred[..., 0] += torch.tensor([0.103, 0.203]).repeat(9)[:17]
    return pred, target


@pytest.fixture(autouse=True)
def looked_at(monkeypatch):
    """Every call looks at its poses, however many came before."""
    monkeypatch.setattr(units, "is_due", lambda where: True)


@pytest.fixture
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize(("unit", "size"), [("mm", 1e3), ("cm", 1e2), ("m", 1.0), (1e-3, 1e3), (0.0254, 1 / 0.0254)])
def test_default_thresholds_are_those_of_the_unit(body, unit, size, silent):
    """9 of 17 joints are 103 mm off, the others 203: the same in every unit."""
    pred, target = (size * x for x in body)
    assert metrics.pck(pred, target, unit=unit).item() == pytest.approx(100 * 9 / 17)
    assert metrics.auc(pred, target, unit=unit).item() == pytest.approx(100 * 9 / 17 * 10 / 31)
    for kind, function in ((metrics.PCK, metrics.pck), (metrics.AUC, metrics.auc)):
        metric = kind(unit=unit)
        metric.update(pred, target)
        assert metric.compute() == function(pred, target, unit=unit)


def test_thresholds_of_a_unit_are_its_decimals():
    """An error of exactly 0.15 m is not below 150 mm, as 150 mm is not."""
    assert metrics.PCK(unit="m").thresholds == (0.15,) and metrics.PCK().thresholds == (150.0,)
    assert metrics.AUC(unit="m").thresholds == tuple(round(0.005 * i, 3) for i in range(31))


def test_poses_of_another_unit_are_warned_of(body):
    pred, target = body
    for call in (metrics.pck, metrics.auc, lambda p, t: metrics.PCK().update(p, t), lambda p, t: metrics.AUC()(p, t)):
        with pytest.warns(UserWarning, match="look like metres: say unit="):
            call(pred, target)
    with pytest.warns(UserWarning, match="look like millimetres"):
        metrics.pck(1000 * pred, 1000 * target, unit="m")
    score = metrics.MPIINF3DHPScore()
    with pytest.warns(UserWarning, match="look like metres"):
        score.update(pred, target, sequence=torch.tensor([0, 1]))


def test_given_thresholds_need_no_unit(body, silent):
    pred, target = body
    assert metrics.pck(pred, target, threshold=0.15).item() == pytest.approx(100 * 9 / 17)
    assert metrics.pck(1000 * pred, 1000 * target, threshold=150).item() == pytest.approx(100 * 9 / 17)
    assert metrics.auc(pred, target, thresholds=[0.05, 0.15, 0.25]).item() == pytest.approx(100 * (9 * 2 + 8) / 51)
    with pytest.warns(UserWarning, match="a threshold of 150 says nothing"):
        metrics.pck(pred, target, threshold=150)


@pytest.mark.parametrize("unit", ["metres", "", 0, -1.0, float("nan"), True, None])
def test_bad_units(unit):
    with pytest.raises(ArgumentError, match=r"unit is .*, expected one of 'mm', 'cm', 'm'"):
        check_unit(unit)


def test_extent_of_what_is_seen(body):
    _, target = body
    seen = torch.ones(2, 12, 17)
    wrong = target.clone()
    wrong[:, 0, 3], wrong[0, 1, 2], seen[:, 0, 3] = 1e9, torch.nan, 0
    assert extent(wrong, seen > 0) == pytest.approx(extent(target), rel=0.1) and 0.5 < extent(target) < 2.5
    assert np.isnan(extent(torch.zeros(2, 3, 17, 3))) and np.isnan(extent(torch.zeros(0, 3, 17, 3)))


def _terms(pose, **options):
    yield structloss.illegal_angle(pose, **options)
    yield structloss.nn.IllegalAngle(**options)(pose)
    yield structloss.objective(pose, None, {"illegal_angle": 1.0}, options={"illegal_angle": options}).total


def test_terms_that_assume_metres_warn_of_millimetres(body, silent):
    """The value is huge, which is what the formula says; the warning says what to do, and that is right."""
    pose = body[1] * torch.tensor([-1.0, 1.0, 1.0])  # mirrored, so that every limb bends to the wrong side
    metres = [float(value) for value in _terms(pose)]
    for options in ({"scale": 1e-3}, {"normalize_bones": True}):
        for value, one in zip(_terms(1000 * pose, **options), metres, strict=True):
            assert "scale" not in options or float(value) == pytest.approx(one, rel=1e-4)
    with pytest.warns(UserWarning, match=r"pred has bodies of .* look like millimetres: pass scale=1e-3") as said:
        assert all(value > 1e6 for value in _terms(1000 * pose))
    assert len(said) == 3
    structloss.bone_ratio(1000 * pose, form="paper")
    with pytest.warns(UserWarning, match="look like metres: pass millimetres, or form='code'"):
        structloss.bone_ratio(pose, form="paper")
    metrics.illegal_angle_rate(1000 * pose)
    with pytest.warns(UserWarning, match="look like millimetres"):
        metrics.illegal_angle_rate(1000 * pose, normalize_bones=False, tolerance=0.01)


def test_a_training_is_looked_at_ever_more_seldom(body, monkeypatch):
    monkeypatch.undo()
    looked = [n for n in range(1, 1001) if units.is_due("a loss of this test")]
    assert looked == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    seen = []
    monkeypatch.setattr(units, "_calls", {})
    monkeypatch.setattr(units, "glance", lambda pose: seen.append(pose) or float("nan"))
    for _ in range(20):
        structloss.illegal_angle(body[1])
    assert len(seen) == 5


def test_loss_networks_warn_of_millimetres(body, silent):
    h36m = skeletons.get("h36m")
    net, x, pose = learned.LossNet(), body[1][..., :2], body[1]
    expected = net(x, pose)
    torch.testing.assert_close(net(x, 1000 * pose, 1e-3), expected, rtol=1e-4, atol=1e-4)
    for call in (lambda: net(x, 1000 * pose), lambda: learned.corrupt("noise", 1000 * pose, h36m)):
        with pytest.warns(UserWarning, match="look like millimetres"):
            call()


def test_what_has_no_values_is_not_looked_at(body, silent):
    pose = 1000 * body[1] * torch.tensor([-1.0, 1.0, 1.0])
    assert structloss.illegal_angle(pose.to("meta")).shape == ()
    with torch.no_grad():
        found = torch.compile(structloss.illegal_angle, backend="eager", fullgraph=True)(pose)
    assert found > 1e6


# One convention of `structloss.mpjpe` and `structloss.metrics.mpjpe`


@pytest.mark.parametrize("name", ["mpjpe", "n_mpjpe"])
def test_loss_and_metric_take_and_mean_the_same(name):
    loss, metric = getattr(structloss, name), getattr(metrics, name)
    pred, target = (torch.randn(2, 5, 17, 3, dtype=torch.float64) for _ in range(2))
    weight = torch.rand(2, 5, 17, dtype=torch.float64)
    weight[0, 1, 4] = weight[1, 2, 0] = 0
    for keywords in ({}, {"weight": weight}, {"root": 4}, {"weight": weight, "root": 4}, {"weight": weight > 0.5}):
        for reduction in ("mean", "sum"):
            found = loss(pred, target, reduction=reduction, **keywords)
            torch.testing.assert_close(found, metric(pred, target, reduction=reduction, **keywords))
            assert found.dtype == torch.float64
    module = getattr(structloss.nn, name.upper().replace("_", ""))(root=4)
    assert module(pred, target, weight) == loss(pred, target, weight=weight, root=4)


def test_gradient_relative_to_a_root():
    pred = torch.randn(2, 5, 17, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 17, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: structloss.mpjpe(p, target, root=7), pred)


POSE = torch.zeros(2, 5, 17, 3)
BAD = {
    "a NumPy target": (DtypeError, {"target": POSE.numpy()}),
    "a list": (DtypeError, {"target": POSE.tolist()}),
    "integers": (DtypeError, {"pred": POSE.long()}),
    "another shape": (ArgumentError, {"target": POSE[:, :4]}),
    "no pose": (ArgumentError, {"pred": POSE[0, 0], "target": POSE[0, 0]}),
    "another device": (ArgumentError, {"target": POSE.to("meta")}),
    "a NumPy weight": (DtypeError, {"weight": np.ones((2, 5, 17))}),
    "a complex weight": (DtypeError, {"weight": torch.ones(17, dtype=torch.complex64)}),
    "a weight elsewhere": (ArgumentError, {"weight": torch.ones(17, device="meta")}),
    "no joint": (ArgumentError, {"root": 17}),
    "no index": (ArgumentError, {"root": -1}),
}


@pytest.mark.parametrize("case", BAD)
def test_loss_and_metric_refuse_in_the_same_words(case):
    error, change = BAD[case]
    texts = []
    for function in (structloss.mpjpe, metrics.mpjpe):
        with pytest.raises(error) as caught:
            function(**{"pred": POSE, "target": POSE, **change})
        texts.append((type(caught.value), str(caught.value)))
    assert texts[0] == texts[1]


# NumPy arrays

ARRAY = np.zeros((2, 5, 17, 3), np.float32)
MISTAKES = {
    "loss": lambda: structloss.mpjpe(ARRAY, POSE),
    "loss, target": lambda: structloss.velocity(POSE, ARRAY),
    "loss, weight": lambda: structloss.mpjpe(POSE, POSE, weight=ARRAY[..., 0]),
    "no target": lambda: structloss.bone_symmetry(ARRAY),
    "ranking": lambda: structloss.ranking_hinge(ARRAY, POSE),
    "objective": lambda: structloss.objective(ARRAY, POSE, {"mpjpe": 1.0}),
    "module": lambda: structloss.nn.MPJPE()(POSE, ARRAY),
    "module of an objective": lambda: structloss.nn.Objective({"velocity": 1.0})(ARRAY, POSE),
    "learned weights": lambda: structloss.nn.LearnedWeights(["mpjpe"])(ARRAY, POSE),
    "metric": lambda: metrics.pa_mpjpe(POSE, ARRAY),
    "metric, weight": lambda: metrics.lse(POSE, weight=ARRAY[..., 0]),
    "metric's class": lambda: metrics.PCK().update(ARRAY, POSE),
    "labels": lambda: metrics.PerAction(metrics.MPJPE(), ["a"]).update(POSE, POSE, action=np.zeros(2, int)),
    "frames": lambda: metrics.MotionBERTScore(metrics.MPJPE(), ["a"], [0] * 10).update(
        POSE, POSE, frame=np.zeros((2, 5), int)
    ),
    "sequence": lambda: metrics.BoneLengthSpread(sequences=True).update(POSE, sequence=np.zeros(2, int)),
    "3dhp": lambda: metrics.MPIINF3DHPScore().update(
        POSE, POSE, sequence=torch.zeros(2).long(), valid=ARRAY[..., 0, 0]
    ),
    "h3wb": lambda: metrics.H3WBScore().update(np.zeros((2, 133, 3)), torch.zeros(2, 133, 3)),
    "loss network": lambda: learned.LossNet()(ARRAY[..., :2], POSE),
    "corruption": lambda: learned.corrupt("noise", ARRAY, skeletons.get("h36m")),
    "learned loss": lambda: learned.LearnedLoss().update(POSE[..., :2], ARRAY, POSE),
    "learned loss, weight": lambda: learned.LearnedLoss().update(POSE[..., :2], POSE, POSE, weight=ARRAY[..., 0]),
    "backbone": lambda: backbones.create("simplebaseline", linear_size=8)(ARRAY[..., :2]),
    "video": lambda: backbones.predict_video(backbones.create("simplebaseline", linear_size=8), ARRAY[0, ..., :2]),
}


HINT = r"^(\w+) is a numpy array, expected an? .*tensor: torch\.from_numpy\(\1\) makes one\.$"


@pytest.mark.parametrize("case", MISTAKES)
def test_a_numpy_array_gets_the_same_hint_everywhere(case):
    with pytest.raises(DtypeError, match=HINT):
        MISTAKES[case]()


# Devices without float64


REFUSAL = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."


class NoFloat64(TorchFunctionMode):
    """Refuses float64 as Apple's GPUs do: whatever makes a float64 tensor raises a TypeError."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
            raise TypeError(REFUSAL)
        return made


CLASSES = {
    "mpjpe": (lambda: metrics.MPJPE(root=0), True),
    "pa_mpjpe": (metrics.PAMPJPE, True),
    "n_mpjpe": (metrics.NMPJPE, True),
    "mpjve": (metrics.MPJVE, True),
    "acceleration": (metrics.AccelerationError, True),
    "pck": (lambda: metrics.PCK(unit="m"), True),
    "auc": (lambda: metrics.AUC(unit="m"), True),
    "order of joints": (metrics.DepthOrderAccuracy, True),
    "order of frames": (lambda: metrics.DepthOrderAccuracy(over="frames"), True),
    "lse": (metrics.LSE, False),
    "bsle": (metrics.BSLE, True),
    "lle": (metrics.LLE, True),
    "limbs": (metrics.LimbSymmetry, False),
    "spread": (metrics.BoneLengthSpread, False),
    "bplp_c": (metrics.BPLPC, False),
    "angles": (metrics.IllegalAngleRate, False),
}


@pytest.mark.parametrize("case", CLASSES)
def test_metrics_where_there_is_no_float64(body, case):
    """Poses in float32 give the number in float32, to what float32 can hold; the next number has float64 again."""
    make, with_target = CLASSES[case]
    pred = body[0] + 0.01 * torch.randn(body[0].shape)
    weight = torch.rand(body[1].shape[:-1]).round(decimals=1)
    target = body[1] if with_target else None
    metric = make()
    metric.update(pred, target, weight)
    with NoFloat64():
        narrow = make()
        narrow.update(pred, target, weight)
        found = narrow.compute()
    assert found.dtype == torch.float32 and metric.compute().dtype == torch.float64
    torch.testing.assert_close(found.double(), metric.compute(), rtol=2e-4, atol=1e-5)


def test_breakdowns_where_there_is_no_float64(body):
    action, frame = torch.tensor([0, 1]), torch.arange(24).reshape(2, 12)
    whole = torch.randn(2, 2, 133, 3)

    def scores():
        metrics_ = {
            "action": (metrics.PerAction(metrics.MPJPE(), ["a", "b"]), {"action": action}),
            "joint": (metrics.PerJoint(metrics.MPJPE()), {}),
            "frame": (metrics.MotionBERTScore(metrics.MPJPE(), ["a"], [0] * 24), {"frame": frame}),
            "sequence": (metrics.BoneLengthSpread(sequences=True), {"sequence": action}),
        }
        for metric, more in metrics_.values():
            metric.update(*body, **more)
        found = {name: metric.compute() for name, (metric, _) in metrics_.items()}
        for name, metric, poses, more in (
            ("3dhp", metrics.MPIINF3DHPScore(), [1000 * x for x in body], {"sequence": action}),
            ("h3wb", metrics.H3WBScore(), whole, {}),
        ):
            metric.update(*poses, **more)
            found |= {f"{name} {key}": value for key, value in metric.compute().items()}
        return found

    expected = scores()
    with NoFloat64():
        found = scores()
    assert all(value.dtype == torch.float32 for value in found.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)


def test_a_metric_moves_to_a_device_without_float64(body):
    """States that were float64 become float32 on the way, and those it resets to; what is float32 stays."""
    metric = metrics.PerAction(metrics.MPJPE(), ["a", "b"])
    metric.update(*body, action=torch.tensor([0, 1]))
    expected = metric.compute()

    def move(x):  # what .to("mps") does
        if x.dtype == torch.float64:
            raise TypeError(REFUSAL)
        return x.clone()

    metric._apply(move)
    assert metric.total.dtype == torch.float32
    torch.testing.assert_close(metric.compute().double(), expected, rtol=1e-6, atol=0)
    metric.reset()
    assert metric.total.dtype == torch.float32
    metric.update(*body, action=torch.tensor([0, 1]))
    assert metric.total.dtype in (torch.float32, torch.float64)
    assert metrics.MPJPE().half().total.dtype == torch.float64  # as before: only set_dtype converts

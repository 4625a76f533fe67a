"""Synthetic motion: what a person can't do must not happen."""

import numpy as np
import pytest

from structloss.data import ACTIONS, generate_clips
from structloss.errors import ArgumentError, UnknownNameError
from structloss.skeletons import get

H36M = get("h36m")
FPS = 50.0


@pytest.fixture(scope="module")
def clips():
    return generate_clips(8, 6, 500, seed=11)


@pytest.fixture(scope="module", params=ACTIONS)
def action(request, clips):
    """Float64 positions of all clips of an action."""
    return request.param, [c.positions.astype(np.float64) for c in clips if c.action == request.param]


def flexion(p, hinge):
    upper, lower = p[:, hinge.e] - p[:, hinge.s], p[:, hinge.w] - p[:, hinge.e]
    cos = (upper * lower).sum(-1) / np.linalg.norm(upper, axis=-1) / np.linalg.norm(lower, axis=-1)
    return np.degrees(np.arccos(np.clip(cos, -1, 1)))


def test_shape_and_names(clips):
    assert len(clips) == 48
    assert {c.subject for c in clips} == {f"syn{i:02d}" for i in range(1, 9)}
    assert len({c.key for c in clips}) == 48
    assert {c.action for c in clips} == set(ACTIONS)
    for c in clips:
        assert c.positions.shape == (500, 17, 3) and c.positions.dtype == np.float32 and c.fps == FPS


def test_bones_are_rigid_and_of_human_proportions(action):
    _, motions = action
    for p in motions:
        length = {child: np.linalg.norm(p[:, child] - p[:, parent], axis=-1) for child, parent in H36M.bones}
        assert max(np.ptp(x) for x in length.values()) < 1e-6
        mean = {child: x.mean() for child, x in length.items()}
        for (left, _), (right, _) in H36M.symmetric_bones:
            assert abs(mean[left] / mean[right] - 1) < 0.02
        assert 0.30 < mean[5] < 0.60 and 0.30 < mean[6] < 0.60  # thigh, shin
        assert 0.8 < mean[5] / mean[6] < 1.25
        assert 0.20 < mean[12] < 0.40 and 0.18 < mean[13] < 0.35  # upper arm, forearm
        assert mean[12] > mean[13]


def test_joints_bend_the_right_way_within_their_limits(action):
    _, motions = action
    p = np.concatenate(motions)
    for hinge in H36M.hinges:
        angle = flexion(p, hinge)
        assert angle.max() < 150
        c, s, e, w = (p[:, j] for j in hinge.joints)
        side = (np.cross(s - c, e - s) * (w - e)).sum(-1) * hinge.legal_sign
        assert (side[angle > 5] > 0).all(), hinge.name


def test_motion_is_smooth_and_stays_on_the_floor_and_in_view(action):
    name, motions = action
    for p in motions:
        speed = np.linalg.norm(np.diff(p, axis=0), axis=-1) * FPS
        assert speed.max() < 12
        assert np.linalg.norm(np.diff(p, n=2, axis=0), axis=-1).max() * FPS**2 < 150
        assert speed.max() > 0.2  # something happens
        # in "random" a knee or hand may carry the body now and then
        lowest = p[:, :, 2].min(axis=1) if name == "random" else p[:, [3, 6], 2].min(axis=1)
        low = 0.02 if name == "random" else 0.04
        assert lowest.min() >= low and lowest.max() <= 0.09, name
        assert p[..., 2].min() > 0.0
        assert np.linalg.norm(p[:, 0, :2], axis=-1).max() < 2.2


@pytest.mark.parametrize("name", ["walk", "turn", "reach", "squat", "sit"])
def test_standing_feet_do_not_skate(clips, name):
    for clip in clips:
        if clip.action != name:
            continue
        p = clip.positions.astype(np.float64)
        for foot in (3, 6):
            down = p[1:, foot, 2] < p[:, foot, 2].min() + 0.002
            slip = np.linalg.norm(np.diff(p[:, foot, :2], axis=0), axis=-1)[down] * FPS
            assert down.mean() > 0.25
            assert np.median(slip) < 0.01 and np.percentile(slip, 90) < 0.25


def test_walking_goes_forward_with_opposite_arms_and_alternating_feet(clips):
    for clip in clips:
        if clip.action != "walk":
            continue
        p = clip.positions.astype(np.float64)
        step = np.diff(p[:, 0, :2], axis=0)
        across = (p[1:, 4] - p[1:, 1])[:, :2]
        forward = np.stack([across[:, 1], -across[:, 0]], axis=-1)
        forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
        cos = (forward * step).sum(-1) / np.linalg.norm(step, axis=-1)
        assert cos.min() > 0.85
        speed = np.linalg.norm(step, axis=-1) * FPS
        assert 0.6 < speed.mean() < 1.6

        def ahead(joint, p=p, forward=forward):
            return ((p[1:, joint] - p[1:, 0])[:, :2] * forward).sum(-1)

        legs, arms = ahead(6) - ahead(3), ahead(13) - ahead(16)
        assert np.corrcoef(legs, arms)[0, 1] < -0.7
        crossings = int((np.diff(np.sign(legs)) != 0).sum())
        assert 10 <= crossings <= 30  # once a step, in ten seconds


def test_actions_do_what_they_say(clips):
    by = {a: np.stack([c.positions for c in clips if c.action == a]) for a in ACTIONS}
    knee = H36M.hinges[2]
    bent = {a: np.stack([flexion(p, knee) for p in by[a]]).max(axis=1) for a in ACTIONS}
    assert (bent["squat"] > 60).all() and bent["squat"].max() > 90
    assert (bent["sit"] > 60).all() and (bent["sit"] < 125).all()
    across = by["turn"][:, :, 4] - by["turn"][:, :, 1]
    yaw = np.unwrap(np.arctan2(across[..., 1], across[..., 0]), axis=1)
    assert (np.ptp(yaw, axis=1) > 0.7).all()
    reach = np.linalg.norm(by["reach"][:, :, [13, 16]] - by["reach"][:, :, [11, 14]], axis=-1)
    assert (by["reach"][:, :, [13, 16], 2].max(axis=(1, 2)) > by["reach"][:, :, 8, 2].mean(axis=1) - 0.15).all()
    assert reach.max() > 0.4


def test_deterministic_by_seed_and_independent_of_the_counts():
    a, b = generate_clips(2, 6, 60, seed=3), generate_clips(2, 6, 60, seed=3)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.positions, y.positions)
    other = generate_clips(1, 6, 60, seed=4)
    assert all(np.abs(x.positions - y.positions).max() > 0.01 for x, y in zip(a, other, strict=False))
    more = {c.key: c for c in generate_clips(3, 7, 60, seed=3)}
    for clip in a:
        np.testing.assert_array_equal(clip.positions, more[clip.key].positions)
    assert len({c.positions.tobytes() for c in a}) == len(a)


@pytest.mark.parametrize("frames", [1, 2, 3, 27])
@pytest.mark.parametrize("fps", [10, 50, 120])
def test_short_clips_and_other_rates(frames, fps):
    for clip in generate_clips(1, 6, frames, seed=1, fps=fps):
        assert clip.positions.shape == (frames, 17, 3) and clip.fps == fps


def test_symmetric_people_on_request():
    p = generate_clips(1, 1, 5, asymmetry=0)[0].positions.astype(np.float64)
    for left, right in H36M.symmetric_bones:
        lengths = [np.linalg.norm(p[:, a] - p[:, b], axis=-1) for a, b in (left, right)]
        np.testing.assert_allclose(*lengths, atol=1e-6)


def test_errors():
    with pytest.raises(UnknownNameError, match="unknown action 'wlak': did you mean 'walk'"):
        generate_clips(1, 1, 10, actions=("wlak",))
    with pytest.raises(ArgumentError, match="frames is 0, expected at least 1"):
        generate_clips(1, 1, 0)
    with pytest.raises(ArgumentError, match="actions is 'walk'"):
        generate_clips(1, 1, 10, actions="walk")
    with pytest.raises(ArgumentError, match="seed is -1"):
        generate_clips(1, 1, 10, seed=-1)
    with pytest.raises(ArgumentError, match="fps is 0"):
        generate_clips(1, 1, 10, fps=0)

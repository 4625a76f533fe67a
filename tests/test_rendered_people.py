"""Rendered people: geometry against independent formulas, visibility against brute force, determinism, bad input."""

import hashlib
import multiprocessing
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("cv2")

from structloss import skeletons
from structloss.data.clips import Clip
from structloss.data.synthetic import generate_clips
from structloss.errors import ArgumentError, StructlossError
from structloss.images import RenderedPeople, contact_sheet, draw_pose, render_clip
from structloss.images.rendered.body import (
    ALLOWANCE,
    JOINT_PARTS,
    PARTS,
    Figure,
    build_body,
    sample_figure,
)
from structloss.images.rendered.clothes import Fabric, Look, sample_look
from structloss.images.rendered.people import mpii_joints
from structloss.images.rendered.picture import HIDDEN, NOTHING, Scene, render, visible_joints
from structloss.images.rendered.renderer import Pinhole, draw_depth
from structloss.images.rendered.scene import Light, Occluder, Sensor, sample_light, sample_sensor, sample_view
from structloss.images.rendered.surfaces import Capsules, first_hits

CLIPS = generate_clips(num_subjects=3, clips_per_subject=6, frames=40, seed=11)
#: Human3.6M joint of each MPII joint; joint 7 is the middle of 11 and 14
MPII = (3, 2, 1, 4, 5, 6, 0, None, 8, 10, 16, 15, 14, 11, 12, 13)
PLAIN = Fabric((0.2, 0.4, 0.8), (0.9, 0.2, 0.2))
LOOK = Look((0.9, 0.7, 0.6), (0.2, 0.1, 0.1), (0.1, 0.1, 0.1), PLAIN, replace(PLAIN, first=(0.3, 0.3, 0.3)), 1.0, 2.0)
LIGHT = Light((0.3, -0.8, -0.5), 0.5, 0.5, 0.1, (1.0, 1.0, 1.0))


def scene_of(camera, size, **changes):
    plain = Scene(camera, (0.0, -1.0, 0.0), LIGHT, LOOK, (), np.zeros((size, size, 3), np.uint8),
                  Sensor(0.0, (1.0, 1.0, 1.0), 1.0, 0.0))  # fmt: skip
    return replace(plain, **changes)


def random_bodies(count, seed):
    """(body, camera, pose in the camera's frame) of random frames, views and builds."""
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        clip = CLIPS[rng.integers(len(CLIPS))]
        pose = clip.positions[rng.integers(len(clip))].astype(float)
        view = sample_view(rng, pose, 0.2)
        pose = view.to_camera(pose)
        yield build_body(pose, sample_figure(rng)), view.camera, pose


def ball_hits(capsule_ends, radii, flatten, ray, samples):
    """Depth at which a ray first meets balls all along an axis: the capsule from its definition, ball by ball."""
    t = np.linspace(0, 1, samples)[:, None]
    centre = (capsule_ends[0] + t * (capsule_ends[1] - capsule_ends[0])) @ flatten.T
    radius = radii[0] + t[:, 0] * (radii[1] - radii[0])
    way = flatten @ np.array([*ray, 1.0])
    unit = way / np.linalg.norm(way)
    along = centre @ unit
    across = (centre**2).sum(1) - along**2
    inside = radius**2 - across
    distance = along - np.sqrt(np.where(inside >= 0, inside, np.nan))
    return np.nanmin(distance, initial=np.inf) / np.linalg.norm(way)


def some_capsules(rng, count=14):
    """Thin, thick, flattened, single balls, one end inside the other, some pointing at the camera."""
    start = np.array([0, 0, 4.0]) + rng.normal(0, 0.5, (count, 3))
    end = start + rng.normal(0, 0.4, (count, 3))
    end[:2] = start[:2]
    end[2] = start[2] * 0.9  # along a ray
    radii = rng.uniform(0.03, 0.25, (2, count))
    radii[1, 3] = radii[0, 3] + 2  # holds its start
    radii[0, 4] = radii[1, 4] + np.linalg.norm(end[4] - start[4]) * 1.01  # holds its end
    flatten = np.tile(np.eye(3), (count, 1, 1))
    for i in range(0, count, 2):
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        flatten[i] += rng.uniform(0.1, 1.0) * np.outer(axis, axis)
    return Capsules(start, end, radii[0], radii[1], flatten)


@pytest.mark.parametrize("seed", range(4))
def test_rays_meet_capsules_where_they_meet_one_of_their_balls(seed):
    rng = np.random.default_rng(seed)
    capsules = some_capsules(rng)
    rays = rng.uniform(-0.3, 0.3, (60, 2))
    found = first_hits(capsules, rays)
    brute = np.array(
        [
            [
                ball_hits((capsules.start[i], capsules.end[i]), (capsules.start_radius[i], capsules.end_radius[i]),
                          capsules.flatten[i], ray, 4001)
                for i in range(len(capsules))
            ]
            for ray in rays
        ]
    )  # fmt: skip
    # Between two of the balls the surface is a little closer, and a ray may pass between them at the edge.
    both = np.isfinite(found) & np.isfinite(brute)
    assert both.sum() > 60
    later = brute[both] - found[both]
    assert later.min() > -1e-9
    assert np.quantile(later, 0.98) < 1e-5
    assert not (np.isfinite(brute) & ~np.isfinite(found)).any()
    assert (np.isfinite(found) & ~np.isfinite(brute)).sum() <= 2


@pytest.mark.parametrize("seed", range(3))
def test_the_depth_buffer_holds_the_first_hit_of_every_pixel(seed):
    capsules, camera, size = some_capsules(np.random.default_rng(seed + 50)), Pinhole(1.3, (0.45, 0.6)), 40
    depth, seen = draw_depth(capsules, camera, size)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    hits = first_hits(capsules, camera.rays(pixels.astype(float), size))
    nearest = hits.min(1)
    hit = np.isfinite(nearest)
    assert 0.1 < hit.mean() < 1
    np.testing.assert_allclose(depth.ravel()[hit], nearest[hit], rtol=1e-9)
    assert not np.isfinite(depth.ravel()[~hit]).any()
    assert (seen.ravel()[~hit] == -1).all()
    assert (seen.ravel()[hit] == hits[hit].argmin(1)).all()


def test_joints_are_the_pinhole_projection_of_the_motion():
    people = RenderedPeople(25, motion=CLIPS, size=96, seed=3)
    for i in range(len(people)):
        person, run = people[i], people._run(i)
        camera, view = run.scene.camera, run.view
        # Homogeneous coordinates, written out; the image's first pixel has its centre at (0, 0).
        intrinsics = np.array(
            [
                [96 * camera.focal, 0, 96 * camera.centre[0] - 0.5],
                [0, 96 * camera.focal, 96 * camera.centre[1] - 0.5],
                [0, 0, 1],
            ]
        )
        matrix = intrinsics @ np.c_[view.rotation, -view.rotation @ view.position]
        world = run.poses[0]
        joints = np.array([(world[11] + world[14]) / 2 if j is None else world[j] for j in MPII])
        x, y, w = matrix @ np.c_[joints, np.ones(16)].T
        np.testing.assert_allclose(person.joints, np.stack([x / w, y / w], 1), atol=1e-3)
        assert person.annotated.all()
        np.testing.assert_allclose(view.rotation @ view.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view.rotation) > 0
        relative = 1000 * (joints - joints[6]) @ view.rotation.T
        np.testing.assert_allclose(person.pose, relative, atol=1e-2)


def test_a_visible_joint_is_seen_to_lie_in_one_of_its_parts():
    checked = wanted = 0
    for body, camera, pose in random_bodies(25, 1):
        joints, size = mpii_joints(pose), 384
        seen = visible_joints(body, camera, (), joints)
        _, parts, _ = render(body, scene_of(camera, size), return_parts=True)
        wanted += int(seen.sum())
        for j, (x, y) in enumerate(np.round(camera.project(joints, size)).astype(int)):
            window = parts[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            if seen[j] and (window == window[0, 0]).all():  # not at an edge
                assert window[0, 0] in JOINT_PARTS[j], (j, PARTS[window[0, 0]])
                checked += 1
    assert checked > 0.8 * wanted > 150


def test_visible_is_what_brute_force_finds():
    """Rays through the joints, against balls all along each axis, in float64."""
    counts = np.zeros(2, dtype=int)
    for number, (body, camera, pose) in enumerate(random_bodies(16, 2)):
        joints = mpii_joints(pose)
        flat = camera.project(joints, 1.0) + 0.5
        rng = np.random.default_rng(number)
        board = Occluder(number % 2 == 0, tuple(flat[rng.integers(16)]), (0.1, 0.16), 0.4, 0.9 * joints[:, 2].min(),
                         (0.1,) * 3, (0.2,) * 3)  # fmt: skip
        found = visible_joints(body, camera, (board,), joints)
        c = body.capsules
        for j in range(16):
            z = joints[j, 2]
            ray = joints[j, :2] / z
            margins = [*flat[j], *(1 - flat[j])]
            dx, dy = flat[j] - board.centre
            u = (np.cos(0.4) * dx + np.sin(0.4) * dy) / 0.1
            v = (-np.sin(0.4) * dx + np.cos(0.4) * dy) / 0.16
            margins.append(np.hypot(u, v) - 1 if board.disc else max(abs(u), abs(v)) - 1)
            for i in range(len(c)):
                hit = ball_hits((c.start[i], c.end[i]), (c.start_radius[i], c.end_radius[i]), c.flatten[i], ray, 301)
                own = body.part[i] in JOINT_PARTS[j]
                allowed = ALLOWANCE[j] * body.scale / np.linalg.norm([*ray, 1]) if own else 0.0
                margins.append(min(hit - (z - allowed), 1.0))
            if abs(min(margins)) < 2e-3:  # too close to call with balls so far apart
                continue
            assert found[j] == (min(margins) > 0), (number, j, margins)
            counts[int(found[j])] += 1
    assert counts.min() > 40, counts


STANDING = np.array(
    [
        [0, 0, 0], [-0.13, 0, 0], [-0.13, 0.43, 0.01], [-0.13, 0.86, 0.04], [0.13, 0, 0], [0.13, 0.43, 0.01],
        [0.13, 0.86, 0.04], [0, -0.23, 0], [0, -0.48, 0], [0, -0.58, -0.06], [0, -0.74, 0], [0.17, -0.46, 0],
        [0.25, -0.16, 0.02], [0.31, 0.1, -0.02], [-0.17, -0.46, 0], [-0.2, -0.2, -0.1], [0.02, -0.27, -0.26],
    ]
)  # fmt: skip
"""Facing the camera (x right, y down, z forward), the right forearm across the chest."""
AWAY = np.array([0, 0, 4.0])


def seen_at(pose, joint, size=256):
    camera = Pinhole(1.9, (0.5, 0.5))
    body = build_body(pose + AWAY, Figure())
    joints = mpii_joints(pose + AWAY)
    _, parts, depth = render(body, scene_of(camera, size), return_parts=True)
    x, y = np.round(camera.project(joints, size)[joint]).astype(int)
    return PARTS[parts[y, x]], depth[y, x] - 4.0, visible_joints(body, camera, (), joints)


def test_an_arm_in_front_of_the_chest_is_what_is_seen():
    part, depth, visible = seen_at(STANDING, 10)
    assert part in ("right hand", "right forearm")
    assert depth == pytest.approx(-0.29, abs=0.03)
    assert visible.all()
    part, depth, visible = seen_at(STANDING * [-1, 1, -1], 10)  # from behind
    assert part in ("chest", "abdomen")
    assert not visible[10]
    assert visible[[0, 1, 2, 3, 4, 5, 6, 9, 12, 13]].all()


def test_of_somebody_seen_from_the_side_the_far_shoulder_and_hip_are_hidden():
    side = STANDING[:, [2, 1, 0]] * [-1, 1, 1]  # the left side is away, facing the image's right
    _, _, visible = seen_at(side, 10)
    assert visible[[0, 1, 2, 9, 10, 12]].all()
    assert not visible[[3, 13]].any()


def test_a_mirrored_pose_makes_a_mirrored_picture():
    mirror = list(skeletons.get("h36m").mirror)
    swapped = [PARTS.index(p.replace("left", "!").replace("right", "left").replace("!", "right")) for p in PARTS]
    light = replace(LIGHT, direction=(-0.3, -0.8, -0.5))
    for number, (_, camera, pose) in enumerate(random_bodies(6, 4)):
        camera = Pinhole(camera.focal, (0.5, camera.centre[1]))
        pose = pose - [pose[0, 0], 0, 0]
        figure = replace(sample_figure(np.random.default_rng(number)), loose=0.01)
        image, parts, depth = render(build_body(pose, figure), scene_of(camera, 128), return_parts=True)
        other = build_body((pose * [-1, 1, 1])[mirror], figure)
        image2, parts2, depth2 = render(other, scene_of(camera, 128, light=light), return_parts=True)
        assert (parts != NOTHING).mean() > 0.02
        np.testing.assert_array_equal(parts2[:, ::-1], np.array([*swapped, NOTHING])[parts])
        np.testing.assert_allclose(depth2[:, ::-1], depth, rtol=1e-12)
        assert np.abs(image2[:, ::-1].astype(int) - image).max() <= 1


def test_front_and_back_look_different():
    """A face, or hair."""
    camera, look = Pinhole(1.9, (0.5, 0.5)), replace(LOOK, hair=(0.0, 0.0, 0.0), skin=(1.0, 1.0, 1.0))
    scene = scene_of(camera, 128, look=look, light=Light((0.0, 0.0, -1.0), 1.0, 0.0, 0.0, (1.0,) * 3))
    brightness = []
    for turn in (1, -1):
        image, parts, _ = render(build_body(STANDING * [turn, 1, turn] + AWAY, Figure()), scene, return_parts=True)
        brightness.append(image[parts == PARTS.index("head")].mean())
    assert brightness[0] > 3 * brightness[1]


def test_occluders_are_in_the_picture_and_hide_joints():
    camera = Pinhole(1.9, (0.5, 0.5))
    pose = STANDING + AWAY
    body, joints = build_body(pose, Figure()), mpii_joints(pose)
    knee = camera.project(joints, 1.0)[1] + 0.5
    board = Occluder(False, tuple(knee), (0.05, 0.03), 0.0, 3.0, (1.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    image, parts, depth = render(body, scene_of(camera, 128, occluders=(board,)), return_parts=True)
    x, y = np.round(knee * 128 - 0.5).astype(int)
    assert tuple(image[y, x]) == (255, 0, 0)
    assert (parts[y, x], depth[y, x]) == (HIDDEN, 3.0)
    hidden = visible_joints(body, camera, (), joints) & ~visible_joints(body, camera, (board,), joints)
    assert np.flatnonzero(hidden).tolist() == [1]
    behind = replace(board, depth=6.0)
    assert (visible_joints(body, camera, (behind,), joints) == visible_joints(body, camera, (), joints)).all()


def digest(person):
    parts = (person.image, person.joints, person.annotated, person.visible, person.pose, person.centre)
    return hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest() + person.name + person.action


def some_digests(order):
    people = RenderedPeople(9, motion=CLIPS[:6], size=64, seed=5, frames=2)
    return {i: digest(people[i]) for i in order}


def test_people_depend_on_seed_and_index_alone():
    """Not on the order they are asked for in, nor on the process, be it new or forked after OpenCV was used."""
    found = some_digests(range(9))
    assert len(set(found.values())) == 9
    assert found == some_digests(reversed(range(9)))
    few = RenderedPeople(3, motion=CLIPS[:6], size=64, seed=5, frames=2)
    assert [digest(few[i]) for i in range(3)] == [found[i] for i in range(3)]
    assert digest(pickle.loads(pickle.dumps(few))[1]) == found[1]
    assert digest(RenderedPeople(3, motion=CLIPS[:6], size=64, seed=6, frames=2)[0]) != found[0]
    bare, behind = (RenderedPeople(4, motion=CLIPS, size=64, occluders=share) for share in (0.0, 1.0))
    for i in range(4):
        np.testing.assert_array_equal(bare[i].joints, behind[i].joints)
        assert (bare[i].image != behind[i].image).mean() > 0.01
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(some_digests, ([4, 1],)).get(60) == {i: found[i] for i in (4, 1)}
    code = f"import sys; sys.path.insert(0, {str(__file__.rpartition('/')[0])!r})\n"
    code += "from test_rendered_people import some_digests; print(some_digests([7, 2]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str({i: found[i] for i in (7, 2)})


def test_content_is_the_same_at_any_size():
    small, large = (RenderedPeople(6, motion=CLIPS, size=size, seed=8) for size in (64, 128))
    for i in range(6):
        a, b = small[i], large[i]
        np.testing.assert_allclose((a.joints + 0.5) / 64, (b.joints + 0.5) / 128, atol=1e-5)
        np.testing.assert_array_equal(a.visible, b.visible)
        np.testing.assert_array_equal(a.pose, b.pose)
        half = b.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
        other = large[(i + 1) % 6].image.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(half - a.image).mean() < 0.2 * np.abs(half - other).mean()  # grain, and backgrounds as fine


def test_people_who_are_cut_off_have_joints_outside_that_are_not_visible():
    people = RenderedPeople(30, motion=CLIPS, size=32, seed=1, truncated=1.0)
    outside = 0
    for person in people:
        out = ((person.joints < -0.5) | (person.joints >= 31.5)).any(1)
        assert not (person.visible & out).any()
        assert person.annotated.all()
        outside += int(out.sum())
    assert outside > 60
    for person in RenderedPeople(30, motion=CLIPS, size=32, seed=1, truncated=0.0):
        assert ((person.joints >= -0.5) & (person.joints < 31.5)).all()


def test_people_vary():
    people = [RenderedPeople(40, motion=CLIPS, size=32, seed=2)[i] for i in range(40)]
    depth = np.array([p.pose[13, 2] - p.pose[12, 2] for p in people])  # left shoulder behind the right one, or before
    across = np.array([p.joints[13, 0] - p.joints[12, 0] for p in people])  # seen from the front, or from behind
    for values in (depth, across):
        assert 8 < (values > 0).sum() < 32
    assert 0.5 < np.mean([p.visible.mean() for p in people]) < 0.95
    assert len({p.subject for p in people}) == 3
    assert np.std([p.image.mean() for p in people]) > 20


def test_frames_of_a_run_share_all_but_the_pose():
    people = RenderedPeople(12, motion=CLIPS, size=64, seed=4, frames=4, step=3, truncated=0.0, occluders=0.0)
    for run in range(3):
        shots = [people[4 * run + i] for i in range(4)]
        assert {people.run_of(4 * run + i) for i in range(4)} == {run}
        assert len({(p.subject, p.action) for p in shots}) == 1
        lengths = np.array([np.linalg.norm(p.pose[1] - p.pose[2]) for p in shots])
        assert np.ptp(lengths) < 0.1  # one thigh
        assert np.abs(np.diff([p.joints for p in shots], axis=0)).max() < 20
        assert all((a.joints != b.joints).any() for a, b in pairwise(shots))
        corner = np.array([p.image[:6, :6].astype(float).mean((0, 1)) for p in shots])
        assert np.ptp(corner, axis=0).max() < 6  # grain alone
    backgrounds = [people._run(run).scene.background for run in range(3)]
    assert (backgrounds[0] != backgrounds[1]).mean() > 0.5
    shared = RenderedPeople(12, motion=CLIPS, size=64, seed=4, background="shared")
    np.testing.assert_array_equal(shared._run(3).scene.background, shared._run(9).scene.background)


def test_a_run_longer_than_its_clip_goes_back_and_forth():
    clip = replace(CLIPS[0], positions=CLIPS[0].positions[:4])
    poses = RenderedPeople(9, motion=[clip], size=32, frames=9, step=1)._run(0).poses
    order = [0, 1, 2, 3, 2, 1, 0, 1, 2]
    np.testing.assert_array_equal(poses, clip.positions[order].astype(float))
    one = replace(clip, positions=clip.positions[:1])
    first, *others = RenderedPeople(3, motion=[one], size=32, frames=3)
    assert all((first.joints == other.joints).all() for other in others)


def test_a_clip_becomes_the_frames_of_a_video():
    walk = next(clip for clip in CLIPS if clip.action == "walk")
    people = render_clip(walk, size=48, step=3)
    assert (len(people), people.frames) == (14, 14)
    assert people.fps == pytest.approx(walk.fps / 3)
    pelvis = np.array([p.joints[6] for p in people])
    assert np.ptp(pelvis, axis=0).max() < 4  # on the spot
    assert all(((p.joints > -0.5) & (p.joints < 47.5)).all() for p in people)
    moving = render_clip(walk, size=48, step=3, in_place=False)
    assert np.ptp(moving._run(0).poses[:, 0, :2], axis=0).max() > 0.3
    assert np.ptp(people._run(0).poses[:, 0, :2], axis=0).max() == 0
    world = walk.positions[6] - walk.positions[6, 0]
    pose = people[2].pose[[2, 13, 9]] / 1000
    np.testing.assert_allclose(np.linalg.norm(pose, axis=1), np.linalg.norm(world[[1, 11, 10]], axis=1), atol=1e-4)


def test_unlabelled_and_unknown():
    assert RenderedPeople(1, motion=CLIPS, size=32).labelled
    people = RenderedPeople(2, motion=CLIPS, size=32, labelled=False)
    assert not people.labelled
    assert people[0].pose is None
    positions = CLIPS[0].positions.copy()
    positions[:, 13] = positions[:, 12]
    positions[:, 11] = positions[:, 8]
    unknown = Clip(positions, "s", "a", "n", unknown=("LWrist", "LShoulder"))
    person = RenderedPeople(1, motion=[unknown], size=32)[0]
    assert np.flatnonzero(~person.annotated).tolist() == [7, 13, 15]
    assert not person.visible[[7, 13, 15]].any()
    assert (person.joints[[7, 13, 15]] == 0).all()


def test_people_can_be_walked_through_and_subjects_chosen(tmp_path):
    from structloss.data.archive import save_archive

    save_archive(tmp_path / "clips.npz", CLIPS)
    people = RenderedPeople(5, motion=tmp_path / "clips.npz", size=32, subjects=["syn02"])
    assert [p.subject for p in people] == ["syn02"] * 5
    assert people[-1].name == people[4].name.replace("4", "-1") or digest(people[-1])[:64] == digest(people[4])[:64]
    with pytest.raises(IndexError):
        people[5]
    assert "seed 0" in people.source


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0, expected a whole number at least 1."),
        ({"count": True}, "count is True, expected a whole number at least 1."),
        ({"size": 8}, "size is 8, expected a whole number from 16 to 1024."),
        ({"seed": -1}, "seed is -1, expected a whole number at least 0."),
        ({"frames": 0}, "frames is 0, expected a whole number from 1 to 100000."),
        ({"step": 1.5}, "step is 1.5, expected a whole number at least 1."),
        ({"occluders": 2}, "occluders is 2, expected a probability from 0 to 1."),
        ({"truncated": float("nan")}, "truncated is nan, expected a probability from 0 to 1."),
        ({"background": "blue"}, "background is 'blue', expected one of 'random', 'shared'."),
        ({"motion": []}, "motion has no clips, expected at least one."),
        ({"motion": ["x"]}, "motion is ['x'], expected clips, a path or None."),
        ({"motion": 3}, "motion is 3, expected clips, a path or None."),
        ({"subjects": "syn01"}, "subjects is 'syn01', expected a non-empty sequence of names."),
        ({"subjects": ["syn09"]}, "unknown subject 'syn09': did you mean 'syn03' or 'syn02' or 'syn01'?"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, message):
    with pytest.raises(StructlossError) as error:
        RenderedPeople(**{"count": 1, "motion": CLIPS, "size": 32, **arguments})
    assert str(error.value) == message


def test_motion_that_cameras_saw_is_no_motion_in_the_world(monkeypatch):
    from structloss.data import opening

    monkeypatch.setattr(opening, "open_data", lambda path, **options: object())
    with pytest.raises(ArgumentError, match="holds poses seen by cameras, expected clips in the world"):
        RenderedPeople(1, motion="somewhere.npz")


def test_without_opencv_one_sentence_says_what_to_install():
    code = (
        "import sys\nsys.modules['cv2'] = None\nimport structloss.images as i\n"
        "from structloss.errors import MissingDependencyError\n"
        "try:\n    i.RenderedPeople(1)\nexcept MissingDependencyError as e:\n    print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("cv2 is not installed, expected the images extra: pip install")
    assert out.count("\n") == 1


def test_overlays_are_drawn_in_the_colours_of_the_sides():
    person = RenderedPeople(3, motion=CLIPS, size=64, seed=1, truncated=0.0)[0]
    before = person.image.copy()
    image = draw_pose(np.zeros((200, 200, 3), np.uint8), person.joints * 3, person.annotated, person.visible | True)
    for child, parent, channel in ((1, 2, 0), (11, 12, 0), (4, 3, 2), (14, 13, 2)):
        x, y = np.round((person.joints[child] + person.joints[parent]) * 1.5).astype(int)
        assert image[y, x].argmax() == channel, (child, parent)
    assert image.any()
    none = draw_pose(person.image, np.full((16, 2), np.nan))
    np.testing.assert_array_equal(none, before)
    draw_pose(person.image, person.joints * 1e9)  # far outside
    hidden = draw_pose(np.zeros((300, 300, 3), np.uint8), 4 * person.joints, visible=np.zeros(16, bool))
    full = draw_pose(np.zeros((300, 300, 3), np.uint8), 4 * person.joints)
    assert (hidden > 0).sum() < (full > 0).sum()
    np.testing.assert_array_equal(person.image, before)
    with pytest.raises(ArgumentError, match=r"joints has shape \[17, 2\], expected \[16, 2\]"):
        draw_pose(person.image, np.zeros((17, 2)))
    with pytest.raises(ArgumentError, match=r"image is float64 of shape \[4, 4, 3\], expected uint8"):
        draw_pose(np.zeros((4, 4, 3)), np.zeros((16, 2)))
    with pytest.raises(ArgumentError, match=r"visible is float64 of shape \[16\], expected bool"):
        draw_pose(person.image, person.joints, visible=np.ones(16))


def test_contact_sheets():
    people = RenderedPeople(5, motion=CLIPS, size=32)
    sheet = contact_sheet(people, range(5), columns=3, overlay=False)
    assert sheet.shape == (64, 96, 3)
    np.testing.assert_array_equal(sheet[32:, 32:64], people[4].image)
    assert not sheet[32:, 64:].any()
    assert (contact_sheet(people, [0], columns=1) != people[0].image).any()
    with pytest.raises(ArgumentError, match="indices has 0 people"):
        contact_sheet(people, [])


def test_looks_and_lights_are_in_range():
    rng = np.random.default_rng(0)
    for _ in range(200):
        look, light, sensor = sample_look(rng), sample_light(rng), sample_sensor(rng)
        tones = [look.skin, look.hair, look.shoes]
        tones += [c for f in (look.shirt, look.trousers) for c in (f.first, f.second)]
        assert all(len(c) == 3 and min(c) >= 0 and max(c) <= 1 for c in tones)
        assert np.linalg.norm(light.direction) == pytest.approx(1)
        assert light.direction[1] < 0  # from above
        assert sensor.blur >= 0 <= sensor.noise


def test_float32_shifts_edges_by_next_to_nothing():
    for body, camera, _ in random_bodies(6, 7):
        exact, seen = draw_depth(body.capsules, camera, 200)
        single, seen32 = draw_depth(body.capsules, camera, 200, exact=False)
        assert (exact.dtype, single.dtype) == (np.float64, np.float32)
        assert (seen != seen32).mean() < 2e-4
        same = (seen == seen32) & (seen >= 0)
        wrong = np.abs(single[same] / exact[same] - 1)
        assert np.quantile(wrong, 0.99) < 1e-4
        assert wrong.max() < 2e-3  # where rays touch
        box = (slice(30, 121), slice(17, 160))
        part, seen_there = draw_depth(body.capsules, camera, 200, box)
        np.testing.assert_allclose(part, exact[box], rtol=1e-12)
        np.testing.assert_array_equal(seen_there, seen[box])


def test_nobody_in_the_picture_leaves_the_background():
    background = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    body = build_body(STANDING + np.array([50.0, 0, 4.0]), Figure())
    scene = scene_of(Pinhole(1.9, (0.5, 0.5)), 32, background=background)
    image, parts, _ = render(body, scene, return_parts=True)
    np.testing.assert_array_equal(image, background)
    assert (parts == NOTHING).all()


@pytest.mark.parametrize("kind", ["one point", "one far joint", "a line", "far away", "millimetres"])
def test_poses_that_are_no_bodies_give_a_picture_all_the_same(kind):
    positions = CLIPS[0].positions[:2].copy()
    if kind == "one point":
        positions[:] = 1.0
    elif kind == "one far joint":
        positions[:, 13] += 100
    elif kind == "a line":
        positions[:] = np.linspace(0, 1.7, 17)[:, None] * np.array([0, 0, 1])
    else:
        positions = positions + 1e4 if kind == "far away" else positions * 1000
    with np.errstate(all="raise", under="ignore"):
        person = RenderedPeople(1, motion=[replace(CLIPS[0], positions=positions)], size=32)[0]
    assert np.isfinite(person.joints).all()
    assert np.isfinite(person.pose).all()
    assert person.image.std() > 0


def test_people_who_face_the_camera_have_their_right_side_on_the_left_of_the_image():
    facing = [RenderedPeople(30, size=32, seed=4, facing=80.0, truncated=0.0)[i] for i in range(30)]
    sides = np.array([person.joints[2, 0] < person.joints[3, 0] for person in facing])  # hips
    assert sides.all()
    anywhere = [RenderedPeople(30, size=32, seed=4, truncated=0.0)[i] for i in range(30)]
    sides = np.array([person.joints[2, 0] < person.joints[3, 0] for person in anywhere])
    assert 5 < sides.sum() < 25
    front = RenderedPeople(3, size=32, seed=4, facing=0.0, truncated=0.0)
    for index in range(3):  # straight from the front, both hips are at one depth
        pose = front[index].pose
        assert abs(pose[2, 2] - pose[3, 2]) < 0.35 * np.linalg.norm(pose[2] - pose[3])  # the camera may look down
    with pytest.raises(ArgumentError, match=r"facing is 181, expected degrees from 0 to 180"):
        RenderedPeople(1, facing=181)

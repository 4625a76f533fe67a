"""The skeleton registry against its own rules, the golden hinge signs, and conversions computed by hand."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from structloss import skeletons
from structloss.errors import ArgumentError, DtypeError, UnknownNameError

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
ALL = [skeletons.get(name) for name in skeletons.names()]
per_skeleton = pytest.mark.parametrize("skeleton", ALL, ids=lambda s: s.name)


def random_pose(joints, channels=3, shape=(2, 5), seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, joints, channels))


def test_registered_names_and_sizes():
    sizes = {s.name: s.num_joints for s in ALL}
    assert sizes == {"h36m": 17, "mpi_inf_3dhp": 17, "coco": 17, "h3wb": 133, "mpii": 16}


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="h36m"):
        skeletons.get("h36")


@per_skeleton
def test_tree(skeleton):
    assert len(skeleton.parents) == skeleton.num_joints == len(set(skeleton.joint_names))
    assert [j for j, p in enumerate(skeleton.parents) if p == -1] == [skeleton.root]
    # Connected and free of cycles: the walk from the root meets every joint once, parents first.
    place = {joint: i for i, joint in enumerate(skeleton.order)}
    assert sorted(place) == list(range(skeleton.num_joints)) and len(skeleton.order) == skeleton.num_joints
    assert all(place[parent] < place[child] for child, parent in skeleton.tree_bones)
    assert len(skeleton.tree_bones) == skeleton.num_joints - 1


@per_skeleton
def test_sides(skeleton):
    left, right = skeleton.left, skeleton.right
    assert len(left) == len(right) and not set(left) & set(right)
    assert len(set(left)) == len(left) and len(set(right)) == len(right)
    mirror = np.array(skeleton.mirror)
    assert (mirror[mirror] == np.arange(skeleton.num_joints)).all()
    assert not {skeleton.root, *skeleton.pelvis} & (set(left) | set(right)) or len(skeleton.pelvis) == 2
    for a, b in zip(left, right, strict=True):  # the names agree once the side is taken out
        a, b = skeleton.joint_names[a], skeleton.joint_names[b]
        if not a.startswith("face"):
            assert a[0].lower() == "l" and b[0].lower() == "r"
            assert a.replace("left", "right") == b or a[1:] == b[1:]
    # The tree is its own mirror image.
    edges = {(skeleton.mirror[c], skeleton.mirror[p]) for c, p in skeleton.tree_bones}
    assert edges == set(skeleton.tree_bones)


@per_skeleton
def test_bones_and_groups(skeleton):
    links = {frozenset(bone) for bone in skeleton.bones}
    assert len(links) == len(skeleton.bones) and all(len(link) == 2 for link in links)
    assert {frozenset(skeleton.mirror[j] for j in link) for link in links} == links
    for left, right in skeleton.symmetric_bones:
        assert tuple(skeleton.mirror[j] for j in left) == right
        assert set(left) & set(skeleton.left) and set(right) & set(skeleton.right)
    assert len(set(skeleton.symmetric_bones)) == len(skeleton.symmetric_bones)
    sizes = {"legs": 4, "arms": 4, "hips": 2, "shoulders": 2}
    groups = dict(skeleton.bone_groups)
    assert set(groups) == (set(sizes) if len(skeleton.pelvis) == 1 else {"legs", "arms"})
    for name, bones in groups.items():
        assert len(set(bones)) == sizes[name] and {frozenset(bone) for bone in bones} <= links


@per_skeleton
def test_immutable_hashable_picklable(skeleton):
    with pytest.raises(AttributeError):
        skeleton.name = "other"
    assert pickle.loads(pickle.dumps(skeleton)) == skeleton and hash(skeleton) == hash(skeletons.get(skeleton.name))


def test_h36m_tables():
    h36m = skeletons.get("h36m")
    assert h36m.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    pairs = [(left[0], right[0]) for left, right in h36m.symmetric_bones]
    assert pairs == [(5, 2), (6, 3), (12, 15), (13, 16), (4, 1), (11, 14)]
    assert [len(p) for _, p in h36m.symmetric_groups] == [4, 2]
    assert {n: {c for c, _ in b} for n, b in h36m.bone_groups} == {
        "legs": {2, 3, 5, 6},
        "arms": {12, 13, 15, 16},
        "hips": {1, 4},
        "shoulders": {11, 14},
    }
    assert [h.joints for h in h36m.hinges] == [(8, 14, 15, 16), (8, 11, 12, 13), (0, 1, 2, 3), (0, 4, 5, 6)]
    assert [h.legal_sign for h in h36m.hinges] == [1, -1, -1, 1]


@per_skeleton
def test_graph_edges(skeleton):
    edges = {frozenset(edge) for edge in skeleton.graph_edges}
    assert len(edges) == len(skeleton.graph_edges) and all(len(edge) == 2 for edge in edges)
    assert skeleton.graph_edges[: len(skeleton.bones)] == skeleton.bones
    assert {frozenset(skeleton.mirror[j] for j in edge) for edge in edges} == edges
    assert set().union(*edges) == set(range(skeleton.num_joints))  # no joint is alone
    sizes = {"h36m": 16, "mpi_inf_3dhp": 16, "mpii": 15, "coco": 18, "h3wb": 130}
    assert len(edges) == sizes[skeleton.name]
    if skeleton.name not in ("coco", "h3wb"):  # trees, whose every edge is a bone
        assert skeleton.soft_links == () and edges == {frozenset(edge) for edge in skeleton.tree_bones}


def test_graph_edges_of_coco_and_h3wb():
    """The links that are drawn, without eye to eye and ear to shoulder, with nose to shoulders and the face's lines."""
    head = {(0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (0, 6)}
    trunk = {
        (5, 6),
        (5, 11),
        (6, 12),
        (11, 12),
        (5, 7),
        (7, 9),
        (6, 8),
        (8, 10),
        (11, 13),
        (13, 15),
        (12, 14),
        (14, 16),
    }
    coco = skeletons.get("coco")
    assert {tuple(sorted(edge)) for edge in coco.graph_edges} == head | trunk
    assert {tuple(sorted(edge)) for edge in coco.soft_links} == head
    feet = {(15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22)}
    hands = {(9, 91), (10, 112)}
    for root in (91, 112):
        for finger in range(5):
            joints = [root, *range(root + 4 * finger + 1, root + 4 * finger + 5)]
            hands |= set(pairwise(joints))
    lines = (23, 39), (40, 44), (45, 49), (50, 53), (54, 58), (59, 64), (65, 70), (71, 82), (83, 90)
    face = {(i, i + 1) for first, last in lines for i in range(first, last)} | {(0, 53)}
    face |= {(59, 64), (65, 70), (71, 82), (83, 90)}  # eyes and lips are closed
    h3wb = skeletons.get("h3wb")
    assert {tuple(sorted(edge)) for edge in h3wb.graph_edges} == head | trunk | feet | hands | face
    assert {tuple(sorted(edge)) for edge in h3wb.soft_links} == head | {(9, 91), (10, 112)} | face


def test_h3wb_tables():
    h3wb = skeletons.get("h3wb")
    assert h3wb.mirror == tuple(GOLDEN["h3wb_mirror"].tolist())
    assert len(h3wb.bones) == 58 and len(h3wb.left) == 61
    # The face by side, from the group table: jaw, brow, nose base, eye, outer and inner lips.
    left_face = {*range(32, 40), *range(45, 50), 57, 58, *range(65, 71), *range(75, 80), 86, 87, 88}
    assert {j for j in h3wb.left if 23 <= j <= 90} == left_face
    assert {n: len(p) for n, p in h3wb.symmetric_groups} == {"limbs": 4, "feet": 3, "hands": 16}
    hands = [left[::-1] for left, _ in dict(h3wb.symmetric_groups)["hands"]]
    assert hands[:7] == [(91, 92), (92, 93), (93, 94), (94, 95), (96, 97), (97, 98), (98, 99)]
    assert hands[-1] == (110, 111)
    parents = dict(enumerate(h3wb.parents))
    assert (parents[91], parents[112], parents[96], parents[99], parents[132]) == (9, 10, 91, 98, 131)
    assert (parents[17], parents[22], parents[23], parents[90]) == (15, 16, 0, 0)
    assert {h3wb.joint_names[i] for i in (91, 92, 111, 112, 132)} == {
        "left_hand_root",
        "left_thumb_1",
        "left_little_4",
        "right_hand_root",
        "right_little_4",
    }


def triple(pose, skeleton):
    c, s, e, w = (pose[..., [h.joints[i] for h in skeleton.hinges], :] for i in range(4))
    return np.einsum("...c,...c", np.cross(s - c, e - s), w - e)


def test_hinges_give_the_golden_triple_products():
    np.testing.assert_allclose(
        triple(GOLDEN["poses__xyz_m"], skeletons.get("h36m")), GOLDEN["poses__triple_product"], rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("name", ["mpi_inf_3dhp", "mpii", "coco", "h3wb"])
def test_hinge_signs_agree_across_skeletons(name):
    h36m, other = skeletons.get("h36m"), skeletons.get(name)
    golden = GOLDEN["poses__xyz_m"]
    if name in ("coco", "h3wb"):  # limbs by name; the rest does not matter here
        pose = np.zeros((len(golden), other.num_joints, 3))
        pose[:, [12, 14, 16, 11, 13, 15, 5, 7, 9, 6, 8, 10]] = golden[:, [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]]
        factor, rtol = (
            2,
            0.01,
        )  # C is the other side's joint; the thorax is not exactly halfway
    else:
        pose, factor, rtol = skeletons.convert(golden, "h36m", name), 1, 0
    assert [(h.name, h.legal_sign) for h in other.hinges] == [(h.name, h.legal_sign) for h in h36m.hinges]
    np.testing.assert_allclose(triple(pose, other), factor * GOLDEN["poses__triple_product"], rtol=rtol, atol=1e-14)


def test_3dhp_conversion_is_an_exact_bijection():
    x = random_pose(17)
    there = skeletons.convert(x, "h36m", "mpi_inf_3dhp")
    np.testing.assert_array_equal(skeletons.convert(there, "mpi_inf_3dhp", "h36m"), x)
    h36m, other = skeletons.get("h36m"), skeletons.get("mpi_inf_3dhp")
    source = skeletons.convert(np.arange(17)[:, None], "h36m", "mpi_inf_3dhp")[:, 0]  # integers may be copied
    for table in ("left", "right", "pelvis"):
        assert {int(source[j]) for j in getattr(other, table)} == set(getattr(h36m, table))
    assert {frozenset(int(source[j]) for j in b) for b in other.bones} == {frozenset(b) for b in h36m.bones}


def test_mpii_round_trip_and_made_spine():
    x = random_pose(16)
    h36m = skeletons.convert(x, "mpii", "h36m")
    np.testing.assert_array_equal(h36m[..., [3, 2, 1, 4, 5, 6, 0, 8, 9, 10, 16, 15, 14, 11, 12, 13], :], x)
    np.testing.assert_allclose(h36m[..., 7, :], x[..., [2, 3, 12, 13], :].mean(-2), atol=1e-15)
    np.testing.assert_array_equal(skeletons.convert(h36m, "h36m", "mpii"), x)
    zhou = skeletons.convert(h36m, "h36m", "mpii", variant="zhou")
    np.testing.assert_array_equal(zhou[..., [7, 8], :], h36m[..., [7, 8], :])


@pytest.mark.parametrize("source", ["coco", "h3wb"])
@pytest.mark.parametrize("channels", [2, 3])
def test_coco_to_h36m_motionbert(source, channels):
    x = random_pose(skeletons.get(source).num_joints, channels)
    y = skeletons.convert(x, source, "h36m")
    mean = lambda *j: x[..., j, :].mean(-2)  # noqa: E731
    np.testing.assert_array_equal(
        y[..., [1, 2, 3, 4, 5, 6, 9, 11, 12, 13, 14, 15, 16], :],
        x[..., [12, 14, 16, 11, 13, 15, 0, 5, 7, 9, 6, 8, 10], :],
    )
    np.testing.assert_allclose(y[..., 0, :], mean(11, 12), atol=1e-15)
    np.testing.assert_allclose(y[..., 8, :], mean(5, 6), atol=1e-15)
    np.testing.assert_allclose(y[..., 7, :], (mean(11, 12) + mean(5, 6)) / 2, atol=1e-15)
    np.testing.assert_allclose(y[..., 10, :], mean(1, 2), atol=1e-15)


def test_coco_to_h36m_demo_step_by_step():
    x = random_pose(17, 2)
    y = skeletons.convert(x, "coco", "h36m", variant="demo")
    nose, shoulders, hip = x[..., 0, :], x[..., 5:7, :].mean(-2), x[..., 11:13, :].mean(-2)
    thorax = shoulders + (nose - shoulders) / 3
    spine = x[..., [5, 6, 11, 12], :].mean(-2)
    spine[..., 0] += 0.3 * (spine[..., 0] - (hip + thorax)[..., 0] / 2)
    thorax[..., 1] -= 2 / 3 * (x[..., 1:3, 1].mean(-1) - nose[..., 1])
    head = np.stack([x[..., 1:5, 0].mean(-1), x[..., 1, 1] + x[..., 2, 1] - nose[..., 1]], -1)
    expected = np.stack([hip, spine, thorax, nose - (nose - shoulders) / 4, head], -2)
    np.testing.assert_allclose(y[..., [0, 7, 8, 9, 10], :], expected, atol=1e-14)
    np.testing.assert_array_equal(y[..., [1, 13], :], x[..., [12, 9], :])


def test_confidence_is_the_minimum_of_the_parents():
    x = random_pose(17, 3)
    x[..., 2] = np.random.default_rng(1).uniform(size=x.shape[:-1])
    c = x[..., 2]
    y = skeletons.convert(x, "coco", "h36m", confidence=True)
    np.testing.assert_array_equal(y[..., :2], skeletons.convert(x[..., :2], "coco", "h36m"))
    np.testing.assert_array_equal(y[..., 0, 2], c[..., 11:13].min(-1))
    np.testing.assert_array_equal(y[..., 7, 2], c[..., [5, 6, 11, 12]].min(-1))
    np.testing.assert_array_equal(y[..., 10, 2], c[..., 1:3].min(-1))
    np.testing.assert_array_equal(y[..., [9, 13], 2], c[..., [0, 9]])
    demo = skeletons.convert(x, "coco", "h36m", variant="demo", confidence=True)
    np.testing.assert_array_equal(demo[..., 10, 2], c[..., :5].min(-1))


@pytest.mark.parametrize(("source", "target"), skeletons.conversions())
@pytest.mark.parametrize("confidence", [False, True])
def test_torch_and_numpy_agree_for_every_variant(source, target, confidence):
    x = random_pose(skeletons.get(source).num_joints, 2 + confidence)
    for variant in skeletons.conversions()[source, target]:
        a = skeletons.convert(x, source, target, variant=variant, confidence=confidence)
        b = skeletons.convert(torch.from_numpy(x), source, target, variant=variant, confidence=confidence)
        assert a.shape == (2, 5, skeletons.get(target).num_joints, 2 + confidence)
        np.testing.assert_array_equal(a, b.numpy())
        half = skeletons.convert(torch.from_numpy(x).half(), source, target, variant=variant, confidence=confidence)
        assert half.dtype == torch.half
        single = skeletons.convert(x.astype(np.float32), source, target, variant=variant, confidence=confidence)
        assert single.dtype == np.float32


def test_a_missing_joint_spoils_only_what_is_made_of_it():
    x = random_pose(17, 2)
    x[..., 11, :] = np.nan
    assert np.flatnonzero(np.isnan(skeletons.convert(x, "coco", "h36m")).any((0, 1, 3))).tolist() == [0, 4, 7]


def test_conversion_is_differentiable():
    x = torch.from_numpy(random_pose(17, 2)).requires_grad_()
    skeletons.convert(x, "coco", "h36m")[..., 8, :].sum().backward()
    assert x.grad[..., 5, :].eq(0.5).all() and x.grad[..., 0, :].eq(0).all()


def test_same_skeleton_returns_the_pose():
    x = random_pose(17)
    assert skeletons.convert(x, "h36m", "h36m") is x


@pytest.mark.parametrize(
    ("shape", "kwargs", "error", "message"),
    [
        ((17, 3), {"source": "h36m", "target": "coco"}, ArgumentError, "coco -> h36m"),
        ((16, 3), {"source": "h36m", "target": "mpii"}, ArgumentError, r"\(16, 3\), expected \[\.\.\., 17, C\]"),
        ((17,), {"source": "h36m", "target": "mpii"}, ArgumentError, r"shape \(17,\)"),
        ((17, 3), {"source": "coco", "target": "h36m", "variant": "x"}, ArgumentError, "'motionbert' or 'demo'"),
        ((17, 3), {"source": "coco", "target": "h36m", "variant": "demo"}, ArgumentError, "3 coordinates, expected 2"),
        ((17, 1), {"source": "coco", "target": "h36m", "confidence": True}, ArgumentError, "before the confidence"),
        ((17, 3), {"source": "coc", "target": "h36m"}, UnknownNameError, "coco"),
        ((17, 3), {"source": "coco", "target": "h35m"}, UnknownNameError, "h36m"),
    ],
)
def test_bad_arguments(shape, kwargs, error, message):
    with pytest.raises(error, match=message):
        skeletons.convert(np.zeros(shape), **kwargs)


def test_bad_types():
    with pytest.raises(DtypeError, match="int64"):
        skeletons.convert(torch.zeros(17, 3, dtype=torch.int64), "coco", "h36m")
    with pytest.raises(ArgumentError, match="list"):
        skeletons.convert([[0.0, 0.0]] * 17, "coco", "h36m")

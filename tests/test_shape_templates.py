"""The tables of the shape templates against the specification's own, and the drawn parts against the golden figures."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from structloss import shape_templates as st
from structloss.errors import ArgumentError, UnknownNameError

GOLDEN = Path(__file__).parent / "golden" / "images"
TABLES = json.loads((GOLDEN / "shape_template_tables.json").read_text())
FIGURES = np.load(GOLDEN / "shape_template.npz")
per_template = pytest.mark.parametrize("name", st.names())


def drawn(name):
    """[18, 256, 256]: every part of a template, as published, pixel by pixel."""
    rows, columns = np.mgrid[:256, :256].astype(np.float64)
    parts = []
    for r, c, a, b, angle, peak in st.get(name).parameters:
        u = math.cos(angle) * (rows - r) - math.sin(angle) * (columns - c)
        v = math.sin(angle) * (rows - r) + math.cos(angle) * (columns - c)
        parts.append(peak * np.exp(-(u**2) / (2 * a**2) - v**2 / (2 * b**2)))
    return np.stack(parts)


@per_template
def test_drawn_parts_are_the_golden_ones(name):
    parts = drawn(name)
    np.testing.assert_allclose(parts.sum((1, 2)), FIGURES[f"draw__{name}_sum"], rtol=1e-9)
    pooled = parts.reshape(18, 16, 16, 16, 16).mean((2, 4))
    np.testing.assert_allclose(pooled, FIGURES[f"draw__{name}_pooled"], rtol=0, atol=1e-12)


@per_template
def test_tables_are_the_specified_ones(name):
    template, order = st.get(name), TABLES["part_order"]
    assert tuple(order) == st.PARTS
    want = TABLES["templates"][name]
    assert template.parameters == tuple(
        (*want[p]["center_row_col"], *want[p]["sigma_row_col_before_rotation"], want[p]["angle_rad"], 1) for p in order
    )
    assert template.anchors == tuple(tuple(anchor) for p in order for anchor in want[p]["anchors_x_y"])


def test_indices_are_the_specified_ones():
    flat = TABLES["flat_anchor_order"]
    index = {tuple(text.rsplit("/", 1)): i for i, text in enumerate(flat)}
    assert [st.PARTS[part] for part in st.ANCHOR_PARTS] == [text.rsplit("/", 1)[0] for text in flat]
    pairs = {frozenset((index[a, str(i)], index[b, str(j)])) for a, i, b, j in TABLES["anchor_pairs"]}
    assert {frozenset(pair) for pair in st.ANCHOR_PAIRS} == pairs and len(st.ANCHOR_PAIRS) == 17
    assert dict(zip(st.JOINTS, map(list, st.JOINT_ANCHORS), strict=True)) == TABLES["joint_readout"]
    assert list(TABLES["joint_readout"]) == list(st.JOINTS)
    assert list(st.H36M_JOINTS) == TABLES["h36m32_index_of_joint"]
    assert list(st.LEGACY_ORDER) == TABLES["legacy_part_reorder"]
    steps = TABLES["coarse_to_fine"]
    assert list(st.FIRST_STEP) == steps["first_step_matrix_of_part"]
    second = {part: matrix for part, matrix in zip(st.PARTS, st.SECOND_STEP, strict=True) if matrix is not None}
    assert second == steps["second_step_matrix_of_part"]
    assert sorted({*st.FIRST_STEP, *second.values()}) == list(range(st.MATRICES))


@per_template
def test_parts_meet_in_their_anchors(name):
    anchors = st.get(name).anchors
    assert all(anchors[a] == anchors[b] for a, b in st.ANCHOR_PAIRS)
    assert tuple(i for i, part in enumerate(st.ANCHOR_PARTS) if st.PARTS[part] == "core") == st.CORE_ANCHORS


def test_sides_mirror_each_other():
    """The original template is symmetric about column 128: angles change sign, modulo half a turn."""
    template = st.get("original")
    for part, other in enumerate(st.PART_MIRROR):
        r, c, a, b, angle, peak = template.parameters[part]
        mirrored = template.parameters[other]
        assert mirrored[:4] == (r, 256 - c, a, b) and mirrored[5] == peak
        if part != other:
            assert math.remainder(angle + mirrored[4], math.pi) == pytest.approx(0, abs=1e-4)
    for anchor, other in enumerate(st.ANCHOR_MIRROR):
        x, y = template.anchors[anchor]
        assert template.anchors[other] == (256 - x, y)
        assert st.ANCHOR_PARTS[other] == st.PART_MIRROR[st.ANCHOR_PARTS[anchor]]
    pairs = {frozenset(pair) for pair in st.ANCHOR_PAIRS}
    assert {frozenset(st.ANCHOR_MIRROR[i] for i in pair) for pair in pairs} == pairs
    for joint, other in enumerate(st.JOINT_MIRROR):
        name = st.JOINTS[joint]
        assert st.JOINTS[other] == (name[:-1] + {"R": "L", "L": "R"}[name[-1]] if name[-1] in "RL" else name)
        if not name.startswith("hip"):  # hipR is read from one part alone, as published
            mirrored = {st.ANCHOR_MIRROR[i] for i in st.JOINT_ANCHORS[joint]}
            assert mirrored == set(st.JOINT_ANCHORS[other])


def test_other_sizes_are_scaled():
    template, small = st.get("natural"), st.get("natural").at(64)
    np.testing.assert_allclose(np.array(small.anchors) * 4, template.anchors)
    np.testing.assert_allclose(np.array(small.parameters) * [4, 4, 4, 4, 1, 1], template.parameters)
    assert st.get("original").at(256) == st.get("original")


def test_natural_differs_in_the_arms_alone():
    changed = {
        part
        for part, a, b in zip(st.PARTS, st.get("original").parameters, st.get("natural").parameters, strict=True)
        if a != b
    }
    assert changed == {f"{side} {part}" for side in ("left", "right") for part in ("arm", "forearm", "hand")}
    hanging = [st.JOINT_ANCHORS[st.JOINTS.index(joint)][0] for joint in ("shoulderL", "elbowL", "wristL")]
    assert all(a < b for a, b in pairwise(st.get("natural").anchors[i][1] for i in hanging))


def test_bad_input():
    with pytest.raises(UnknownNameError, match="unknown shape template 'naturel': did you mean 'natural'"):
        st.get("naturel")
    for size in (0, -4, 2.5, True, "64"):
        with pytest.raises(ArgumentError, match=r"^size is .*, expected a positive integer of pixels\.$"):
            st.get("natural").at(size)

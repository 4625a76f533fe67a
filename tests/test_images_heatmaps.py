"""Heatmap targets, decoding and the 16 joints, against a literal form of the published steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import heatmaps as reference

from structloss import images, skeletons
from structloss.errors import ArgumentError, DtypeError
from structloss.images import joints as sixteen

MPII = skeletons.get("mpii")


def random_maps(seed=0, batch=3):
    return torch.rand(batch, 16, 24, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_depths(batch=3, joints=16):
    return torch.rand(batch, joints, generator=torch.Generator().manual_seed(9), dtype=torch.float64) - 0.5


def person(seed=0, batch=4):
    """Poses `[B, 16, 3]` in millimetres, and where weak perspective shows them in an image of 96 x 96."""
    generator = torch.Generator().manual_seed(seed)
    pose = 600 * (torch.rand(batch, 16, 3, generator=generator, dtype=torch.float64) - 0.5)
    pose = sixteen.shoulders_middle(pose - pose[:, 6:7])
    scale = 0.05 + 0.03 * torch.rand(batch, 1, 1, generator=generator, dtype=torch.float64)
    return pose, pose[..., :2] * scale + 47.5, scale


# Targets


@pytest.mark.parametrize(("sigma", "size"), [(1.0, 24), (1.5, 24), (0.4, 17)])
def test_targets_are_the_literal_ones(sigma, size):
    generator = torch.Generator().manual_seed(1)
    joints = 130 * torch.rand(2, 3, 16, 2, generator=generator, dtype=torch.float64) - 17
    joints[0, 0, 0] = torch.tensor([-0.5, 95.49])  # the outermost points that are inside
    joints[0, 0, 1] = torch.tensor([-0.51, 50.0])
    joints[0, 0, 2] = torch.tensor([50.0, 95.5])
    joints[0, 0, 3] = torch.tensor([float("nan"), 50.0])
    joints[0, 0, 4] = torch.tensor([50.0, float("-inf")])
    annotated = torch.rand(2, 3, 16, generator=generator) < 0.8
    annotated[0, 0] = True
    got = images.heatmap_targets(joints, annotated, input_size=96, heatmap_size=size, sigma=sigma)
    want = np.array(
        [
            reference.target(joint, known, 96, size, sigma)
            for joint, known in zip(joints.reshape(-1, 2).tolist(), annotated.flatten().tolist(), strict=True)
        ]
    ).reshape(2, 3, 16, size, size)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-15)
    assert got[0, 0, 0].max() == 1 and not got[0, 0, 1:5].any()
    assert got.flatten(-2).amax(-1)[annotated].max() == 1 and not got[~annotated].any()


def test_a_target_is_seven_cells_wide_and_one_high():
    got = images.heatmap_targets(torch.tensor([[[130.0, 65.9]]]), input_size=256, heatmap_size=64)[0, 0]
    assert got.dtype == torch.float32 and got[16, 32] == 1
    rows, columns = got.nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (13, 19, 29, 35) and len(rows) == 49
    assert float(got[16, 33]) == pytest.approx(np.exp(-0.5)) and float(got[13, 29]) == pytest.approx(np.exp(-9))


def test_what_is_drawn_is_read():
    """Over all of the image: the joint is in the cell that it is read from, half a cell away at most."""
    x, y = torch.meshgrid(torch.linspace(-0.4, 95.4, 40), torch.linspace(-0.4, 95.4, 40), indexing="ij")
    joints = torch.stack([x, y], -1)  # 40 images of 40 joints
    target = images.heatmap_targets(joints, input_size=96, heatmap_size=24)
    got = images.decode(target, torch.zeros(40, 40), unit="pixels")
    assert (got[..., :2] - joints).abs().max() <= 2.001
    assert float((got[..., :2] - joints).mean((0, 1)).abs().max()) < 0.05  # and to neither side


def test_targets_of_nobody_and_in_a_graph():
    empty = images.heatmap_targets(torch.zeros(0, 16, 2), torch.zeros(0, 16), input_size=96, heatmap_size=24)
    assert empty.shape == (0, 16, 24, 24)

    def both(joints, known, heatmaps, depth):
        target = images.heatmap_targets(joints, known, input_size=96, heatmap_size=24)
        return images.heatmap_loss(heatmaps[None], target), images.decode(heatmaps, depth)

    torch.compiler.reset()
    arguments = (95 * torch.rand(2, 16, 2), torch.rand(2, 16) < 0.5, torch.rand(2, 16, 24, 24), torch.rand(2, 16))
    for got, want in zip(
        torch.compile(both, fullgraph=True, backend="eager")(*arguments), both(*arguments), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_loss_is_a_mean_per_stack():
    stacks, target = random_maps(batch=6).unflatten(0, (2, 3)), random_maps(seed=4)
    stacks.requires_grad_()
    loss = images.heatmap_loss(stacks, target)
    want = sum(np.mean((stack.detach().numpy() - target.numpy()) ** 2) for stack in stacks)
    assert float(loss.detach()) == pytest.approx(want, rel=1e-12)
    loss.backward()
    torch.testing.assert_close(stacks.grad, 2 * (stacks.detach() - target) / target.numel())
    assert images.heatmap_loss(stacks[:, :0], target[:0]) == 0


# Decoding


def test_millimetres_are_the_literal_ones():
    maps, depth = random_maps(), random_depths()
    root = torch.tensor([[1.0, 2, 3], [-40, 50, 6000], [0, 0, 0]], dtype=torch.float64)
    each = zip(maps.tolist(), depth.tolist(), root.tolist(), strict=True)
    want = [reference.millimetres(m, d, r) for m, d, r in each]
    got = images.decode(maps, depth, root=root)
    np.testing.assert_allclose(got.numpy(), np.array(want), rtol=1e-12, atol=1e-8)
    assert torch.equal(images.decode(maps, depth)[:, 6], torch.zeros(3, 3, dtype=torch.float64))
    lengths = sixteen.bone_lengths(got)
    torch.testing.assert_close(lengths.sum(-1), torch.full((3,), 4296.99, dtype=torch.float64))
    torch.testing.assert_close(images.decode(maps, depth, length=1.0) * 4296.99, images.decode(maps, depth))
    one = images.decode(maps, depth, root=root[1])
    torch.testing.assert_close(one - one[:, 6:7], got - got[:, 6:7])


def test_pixels_and_image_units_are_the_literal_ones():
    maps, depth = random_maps(), random_depths()
    want = np.array([[reference.highest(m) for m in of_one] for of_one in maps.tolist()])
    pixels = images.decode(maps, depth, unit="pixels")
    np.testing.assert_allclose(pixels[..., :2].numpy(), want[..., :2] * 4 - 0.5, rtol=1e-12)
    np.testing.assert_allclose(pixels[..., 2].numpy(), depth.numpy() * 48, rtol=1e-12)
    larger = images.decode(maps, depth, unit="pixels", input_size=240)
    np.testing.assert_allclose(larger[..., :2].numpy(), want[..., :2] * 10 - 0.5, rtol=1e-12)
    image = images.decode(maps, depth, unit="image")
    np.testing.assert_allclose(image[..., 0].numpy(), want[..., 0] / 12 - 1, rtol=1e-12)
    np.testing.assert_allclose(image[..., 1].numpy(), want[..., 1] / 12 - 1, rtol=1e-12)
    assert torch.equal(image[..., 2], depth)
    np.testing.assert_array_equal(images.confidence(maps).numpy(), want[..., 2])


EDGES = {
    # the highest cells of a map of 5 x 5 (row, column): value; where it is read
    "corner": ({(0, 0): 2, (0, 1): 1, (1, 0): 1}, (0.5, 0.5)),
    "other corner": ({(4, 4): 2, (3, 4): 1, (4, 3): 1}, (4.5, 4.5)),
    "upper border": ({(0, 2): 2, (0, 3): 1, (1, 2): 1}, (2.75, 0.5)),
    "left border": ({(2, 0): 2, (2, 1): 1, (1, 0): 1}, (0.5, 2.25)),
    "inside": ({(2, 2): 2, (2, 3): 1, (1, 2): 0.5}, (2.75, 2.25)),
    "right axes": ({(1, 3): 2, (1, 2): 1}, (3.25, 1.5)),
    "equal neighbours": ({(2, 2): 2, (2, 1): 1, (2, 3): 1}, (2.5, 2.5)),
    "two peaks": ({(1, 3): 2, (3, 1): 2}, (3.5, 1.5)),
    "two peaks side by side": ({(2, 2): 2, (2, 3): 2}, (2.75, 2.5)),
    "below zero": ({(r, c): -9 + (r == 3) + (c == 1) for r in range(5) for c in range(5)}, (1.5, 3.5)),
    "infinite": ({(2, 2): float("inf"), (2, 1): float("-inf"), (1, 2): float("-inf")}, (2.75, 2.75)),
    "infinite neighbours": ({(2, 2): 1, **{k: float("-inf") for k in ((2, 1), (2, 3), (1, 2), (3, 2))}}, (2.5, 2.5)),
    "flat": ({}, (0.5, 0.5)),
}


@pytest.mark.parametrize("what", EDGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edges(what, dtype):
    cells, (x, y) = EDGES[what]
    heatmap = torch.zeros(5, 5, dtype=dtype)
    for (row, column), value in cells.items():
        heatmap[row, column] = value
    assert reference.highest(heatmap.tolist())[:2] == (x, y)
    got = images.decode(heatmap[None], torch.zeros(1), unit="pixels", input_size=5)
    assert got.dtype == torch.float32
    assert got.tolist() == [[x - 0.5, y - 0.5, 0.0]]


def test_what_is_not_a_number_stays_so():
    maps, depth = random_maps(), random_depths()
    maps[0, 3, 5, 7] = float("nan")
    maps[1] = float("nan")
    pixels = images.decode(maps, depth, unit="pixels")
    clean = images.decode(random_maps(), depth, unit="pixels")
    assert pixels[0, 3, :2].isnan().all() and pixels[1, :, :2].isnan().all()
    others = [j for j in range(16) if j != 3]
    assert torch.equal(pixels[0, others], clean[0, others]) and torch.equal(pixels[2], clean[2])
    assert images.confidence(maps).isnan().sum() == 17
    mm = images.decode(maps, depth)
    assert (
        mm[0].isnan().any()
        and mm[1, :, :2].isnan().all()
        and torch.equal(mm[2], images.decode(random_maps(), depth)[2])
    )


def test_a_pose_without_extent_is_at_its_root():
    root = torch.tensor([1.0, 2.0, 3.0])
    got = images.decode(torch.zeros(2, 16, 24, 24), torch.zeros(2, 16), root=root)
    assert torch.equal(got, root.expand(2, 16, 3))
    assert images.decode(torch.zeros(0, 16, 24, 24), torch.zeros(0, 16)).shape == (0, 16, 3)


def test_outputs_of_the_network_are_decoded_as_they_come():
    """The last stack is read, gradients flow to the depths alone."""
    stacks = torch.stack([random_maps(5), random_maps()]).requires_grad_()
    depth = random_depths().requires_grad_()
    got = images.decode(stacks, depth)
    assert torch.equal(got, images.decode(stacks[1], depth))
    got.square().sum().backward()
    kept = [j for j in range(16) if j != 7]  # which is made of others
    assert stacks.grad is None and depth.grad[:, kept].abs().min() > 0
    assert images.decode(stacks[1, 0], depth[0]).shape == (16, 3)


def test_depth_gradient_is_that_of_the_steps():
    maps, depth = random_maps(batch=1), random_depths(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: images.decode(maps, d), (depth,))


# Joints


def test_h36m_and_back():
    """By the published map of joints; the spine, which SAP-Net's joint 7 is in decoded poses only, is made."""
    rows = json.loads((Path(__file__).parent / "golden" / "images" / "h36m17_from_joint.json").read_text())
    decoded = images.decode(random_maps(), random_depths()).requires_grad_()
    got = images.to_h36m(decoded)
    for joint, row in enumerate(rows):
        if row is None:
            assert joint == 9 and joint not in sixteen.SCORED_H36M
            torch.testing.assert_close(got[:, 9], (got[:, 8] + got[:, 10]) / 2)
        else:
            torch.testing.assert_close(got[:, joint], decoded[:, row])
    assert len(sixteen.SCORED_H36M) == 16
    back = images.from_h36m(got)
    kept = [j for j in range(16) if j != 7]
    assert torch.equal(back[:, kept], decoded[:, kept])
    torch.testing.assert_close(back[:, 7], (decoded[:, 12] + decoded[:, 13]) / 2)
    back.sum().backward()
    assert decoded.grad.abs().min(-1).values[:, kept].min() > 0
    for function, value in ((images.to_h36m, decoded), (images.from_h36m, got)):
        array = function(value.detach().numpy())
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, function(value).detach().numpy())


def test_names_say_what_the_joints_are():
    """The chains of both skeletons, so that no side is exchanged."""
    h36m = skeletons.get("h36m")
    ours = torch.arange(16.0)[:, None].expand(16, 3)
    got = [int(x) for x in images.to_h36m(ours)[:, 0]]
    for joint, name in enumerate(h36m.joint_names):
        if name[0] in "LR" and name[1].isupper():
            assert MPII.joint_names[got[joint]][0] == name[0], name
    for (_, pairs), (_, others) in zip(h36m.symmetric_groups[:1], MPII.symmetric_groups[:1], strict=True):
        for (left, right), (l16, r16) in zip(pairs, others, strict=True):
            assert (got[left[0]], got[left[1]]) == l16 and (got[right[0]], got[right[1]]) == r16


def test_mirrored_joints_are_those_of_the_mirrored_image():
    joints = 95 * torch.rand(2, 16, 2, dtype=torch.float64)
    drawn = images.heatmap_targets(joints, input_size=96, heatmap_size=24)
    flipped = images.flip_joints(joints, 96)
    mirrored = drawn.flip(-1)[:, list(sixteen.MIRROR)]
    torch.testing.assert_close(images.heatmap_targets(flipped, input_size=96, heatmap_size=24), mirrored)
    torch.testing.assert_close(images.flip_joints(flipped, 96), joints)
    np.testing.assert_array_equal(images.flip_joints(joints.numpy(), 96), flipped.numpy())


def test_image_units():
    borders = torch.tensor([[-0.5, 95.5], [47.5, 23.5]], dtype=torch.float64)
    assert images.to_image_units(borders, 96).tolist() == [[-1, 1], [0, -0.5]]
    torch.testing.assert_close(images.from_image_units(images.to_image_units(borders, 96), 96), borders)


def test_depth_targets_are_in_the_unit_of_x_and_y():
    """Under weak perspective a pose in image units is the pose in space, in proportion."""
    pose, joints, scale = person()
    depth = images.depth_target(joints, pose, 96)
    xy = images.to_image_units(joints, 96)
    torch.testing.assert_close(xy - xy[:, 6:7], pose[..., :2] * scale * 2 / 96)
    torch.testing.assert_close(depth, pose[..., 2] * scale[..., 0] * 2 / 96)
    factor = images.depth_scale(joints, pose, 96)
    torch.testing.assert_close(factor, scale[:, 0, 0] * 2 / 96)
    torch.testing.assert_close(images.depth_millimetres(depth, factor), pose[..., 2])
    for function in (images.depth_target, images.depth_scale):
        array = function(joints.numpy(), pose.numpy(), 96)
        assert isinstance(array, np.ndarray)
        np.testing.assert_allclose(array, function(joints, pose, 96).numpy(), rtol=1e-12)


def test_depth_targets_by_the_literal_sum():
    pose, joints, _ = person()
    joints = joints + torch.rand(joints.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for i in range(len(pose)):
        image = sum(np.hypot(*(joints[i, c] - joints[i, p]).tolist()) for c, p in reference.BONES)
        space = sum(np.hypot(*(pose[i, c, :2] - pose[i, p, :2]).tolist()) for c, p in reference.BONES)
        pixels = (pose[i, :, 2] - pose[i, 6, 2]) * image / space
        want = 2 * (pixels / 96 + 0.5) - 1
        torch.testing.assert_close(images.depth_target(joints[i], pose[i], 96), want)


def test_depth_scale_leaves_out_what_is_not_annotated():
    pose, joints, scale = person()
    wild = joints.clone()
    wild[:, [0, 15]] = 1e4
    annotated = torch.ones(len(pose), 16, dtype=torch.bool)
    annotated[:, [0, 15]] = False
    torch.testing.assert_close(images.depth_scale(wild, pose, 96, annotated), scale[:, 0, 0] * 2 / 96)
    nothing = images.depth_target(joints, 0 * pose, 96)
    assert torch.equal(nothing, 0 * nothing)
    assert torch.equal(images.depth_millimetres(nothing, images.depth_scale(joints, 0 * pose, 96)), nothing)


def test_depth_targets_have_gradients():
    pose, joints, _ = person(batch=2)
    assert torch.autograd.gradcheck(
        lambda j, p: images.depth_target(j, p, 96), (joints.requires_grad_(), pose.requires_grad_())
    )
    flat = torch.zeros(1, 16, 3, dtype=torch.float64, requires_grad=True)
    images.depth_target(joints[:1].detach(), flat, 96).sum().backward()
    assert torch.isfinite(flat.grad).all()


# What is refused

ZERO = torch.zeros(2, 16, 24, 24)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: images.heatmap_targets(torch.zeros(2, 16, 3), input_size=96, heatmap_size=24), ArgumentError,
         r"joints has shape \[2, 16, 3\], expected \[\.\.\., J, 2\]"),
        (lambda: images.heatmap_targets(torch.zeros(2, 16, 2).int(), input_size=96, heatmap_size=24), DtypeError,
         "joints has dtype torch.int32"),
        (lambda: images.heatmap_targets(np.zeros((2, 16, 2)), input_size=96, heatmap_size=24), DtypeError,
         "joints is a numpy array"),
        (lambda: images.heatmap_targets(torch.zeros(2, 16, 2), torch.ones(16), input_size=96, heatmap_size=24),
         ArgumentError, r"annotated has shape \[16\], expected \[2, 16\]"),
        (lambda: images.heatmap_targets(torch.zeros(2, 16, 2), input_size=0, heatmap_size=24), ArgumentError,
         "input_size is 0, expected a positive integer"),
        (lambda: images.heatmap_targets(torch.zeros(2, 16, 2), input_size=96, heatmap_size=2.5), ArgumentError,
         "heatmap_size is 2.5, expected a positive integer"),
        (lambda: images.heatmap_targets(torch.zeros(2, 16, 2), input_size=96, heatmap_size=24, sigma=0), ArgumentError,
         "sigma is 0, expected a positive number"),
        (lambda: images.heatmap_loss(ZERO, ZERO), ArgumentError, r"target has shape \[2, 16, 24, 24\], expected \[16"),
        (lambda: images.decode(ZERO, torch.zeros(2, 15)), ArgumentError, r"heatmaps has shape .*, expected \[2, 15, H"),
        (lambda: images.decode(ZERO[:, :, :0], torch.zeros(2, 16)), ArgumentError, r"heatmaps has shape .*16, H, H\]"),
        (lambda: images.decode(ZERO, torch.zeros(2, 16).long()), DtypeError, "depth has dtype torch.int64"),
        (lambda: images.decode(ZERO, torch.zeros(2, 16), unit="cm"), ArgumentError, "unit is 'cm', expected one of 'm"),
        (lambda: images.decode(ZERO[:, :15], torch.zeros(2, 15)), ArgumentError, "depth has 15 joints, expected"),
        (lambda: images.decode(ZERO, torch.zeros(2, 16), unit="image", root=torch.zeros(3)), ArgumentError,
         "root is given with unit 'image', expected it with 'mm' only"),
        (lambda: images.decode(ZERO, torch.zeros(2, 16), root=torch.zeros(2, 1, 3)), ArgumentError,
         r"root has shape \[2, 1, 3\], expected \[3\] or \[2, 3\]"),
        (lambda: images.decode(ZERO, torch.zeros(2, 16, device="meta")), ArgumentError, "depth is on meta"),
        (lambda: images.confidence(ZERO[0, 0]), ArgumentError, r"heatmaps has shape \[24, 24\]"),
        (lambda: images.to_h36m(torch.zeros(17, 3)), ArgumentError, r"pose has shape \[17, 3\], expected \[\.\.\., 16"),
        (lambda: images.from_h36m(np.zeros((16, 3))), ArgumentError, r"pose has shape \[16, 3\], expected .*17"),
        (lambda: images.from_h36m([[0.0]]), DtypeError, "expected a torch tensor or a numpy array"),
        (lambda: images.flip_joints(torch.zeros(16, 3), 96), ArgumentError, r"joints has shape \[16, 3\], expected"),
        (lambda: images.depth_target(torch.zeros(16, 2), torch.zeros(16, 2), 96), ArgumentError, "pose has shape"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)

"""From people to samples: crops, augmentation, targets, and the order in which samples come."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structloss.data.loading import EverySample
from structloss.errors import ArgumentError, DataError
from structloss.images.augment import Augmentation, Change, change_pose
from structloss.images.batches import HalfAndHalf, Shuffled, image_loader
from structloss.images.crops import crop_matrix, invert, transform, warp
from structloss.images.people import Person
from structloss.images.samples import ImageSamples, collate, sample_of
from structloss.images.selection import SomePeople, WithoutPoses, evenly
from structloss.skeletons import get

MPII = get("mpii")
MIRROR = list(MPII.mirror)
NOTHING = np.zeros(16, bool)


def person(seed=0, width=160, height=120, labelled=True, **changes):
    """Somebody whose 2D joints are the weak perspective of the 3D ones."""
    random = np.random.default_rng(seed)
    pose = random.normal(0, 300, (16, 3)).astype(np.float32)
    pose[7] = pose[[12, 13]].mean(0)
    pose -= pose[6]
    joints = pose[:, :2] * 0.05 + [width / 2, height / 2]
    found = Person(
        image=random.integers(0, 255, (height, width, 3), dtype=np.uint8),
        centre=np.array([width / 2, height / 2], np.float32),
        side=100.0,
        joints=joints.astype(np.float32),
        annotated=~NOTHING,
        visible=~NOTHING,
        pose=pose if labelled else None,
        name=f"person {seed}",
        action="walk" if seed % 2 else "sit",
    )
    return replace(found, **changes)


class Group:
    """People in memory."""

    def __init__(self, count, labelled=True, first=0):
        self.people = [person(first + n, labelled=labelled) for n in range(count)]
        self.labelled, self.source = labelled, "a group"
        self.subjects = [f"S{n % 3}" for n in range(count)]

    def __len__(self):
        return len(self.people)

    def __getitem__(self, index):
        return self.people[index]


# Crops ----------------------------------------------------------------------------------------------------------------

BOXES = {
    "centre": st.tuples(st.floats(-500, 2000), st.floats(-500, 2000)),
    "side": st.floats(1, 3000),
    "size": st.integers(8, 512),
    "scale": st.floats(0.5, 2),
    "rotation": st.floats(-360, 360),
    "flip": st.booleans(),
}


@given(**BOXES)
def test_a_crop_and_its_inverse(centre, side, size, scale, rotation, flip):
    matrix = crop_matrix(centre, side, size, scale=scale, rotation=rotation, flip=flip)
    points = np.random.default_rng(0).uniform(-100, 1000, (5, 2))
    np.testing.assert_allclose(transform(transform(points, matrix), invert(matrix)), points, atol=1e-6)
    np.testing.assert_allclose(transform(np.array(centre), matrix), (size - 1) / 2, atol=1e-6)
    area = np.linalg.det(matrix[:, :2])
    assert area == pytest.approx((-1) ** flip * (size / (side * scale)) ** 2)


def test_borders_meet_borders():
    matrix = crop_matrix((30, 40), 20, 64)
    np.testing.assert_allclose(transform([[20, 30], [40, 50]], matrix), [[-0.5, -0.5], [63.5, 63.5]])
    # a quarter turn takes what is on the right to below; mirroring comes first
    for flip, expected in ((False, [31.5, 41.5]), (True, [31.5, 21.5])):
        found = transform([33.125, 40], crop_matrix((30, 40), 20, 64, rotation=90, flip=flip))
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_crop_of_the_same_size_is_the_image():
    image = person().image
    found = warp(image, crop_matrix((79.5, 59.5), 100, 100), 100)
    np.testing.assert_array_equal(found, image[10:110, 30:130])
    mirrored = warp(image, crop_matrix((79.5, 59.5), 100, 100, flip=True), 100)
    np.testing.assert_array_equal(mirrored, found[:, ::-1])
    turned = warp(image, crop_matrix((79.5, 59.5), 100, 100, rotation=90), 100)
    np.testing.assert_array_equal(turned, np.rot90(found, -1))


def test_beyond_the_image_it_is_black():
    image = np.full((40, 60, 3), 200, np.uint8)
    found = warp(image, crop_matrix((59.5, 39.5), 20, 20), 20)
    assert (found[:10, :10] == 200).all() and (found[11:] == 0).all() and (found[:, 11:] == 0).all()
    for centre in ((-1000, 20), (30, 5000), (1e5, 1e5)):
        assert not warp(image, crop_matrix(centre, 20, 32), 32).any()
    for side in (1e6, 1e5):  # the image is less than a pixel of it
        assert warp(image, crop_matrix((30, 20), side, 32), 32).max() <= 200
    assert (warp(image, crop_matrix((30, 20), 1.0, 32), 32) == 200).all()


@pytest.mark.parametrize("shrink", [2, 3.7, 8, 20])
def test_shrinking_averages(shrink):
    """Noise gets flat, as its mean over each pixel's area does; stripes of single pixels do not beat."""
    random = np.random.default_rng(2)
    noise = random.integers(0, 255, (700, 700, 3), dtype=np.uint8)
    size = int(700 / shrink)
    found = warp(noise, crop_matrix((349.5, 349.5), size * shrink, size), size)[2:-2, 2:-2].astype(float)
    assert found.mean() == pytest.approx(127, abs=2)
    assert found.std() < 1.25 * 73.6 / np.floor(shrink)
    stripes = np.zeros((700, 700, 3), np.uint8)
    stripes[:, ::2] = 200
    found = warp(stripes, crop_matrix((349.5, 349.5), size * shrink, size), size)[2:-2, 2:-2].astype(float)
    assert np.abs(found - 100).max() <= (35 if shrink % 2 else 1)


@pytest.mark.parametrize("side", [40, 100, 255, 600, 1500])
@pytest.mark.parametrize("change", [Change(), Change(1.3, 40, True), Change(0.8, -75, False)])
def test_joints_stay_on_what_they_mark(side, change):
    """Dots are drawn at joints; in the sample they are where the joints say."""
    random = np.random.default_rng(7)
    size, height, width = 128, max(300, side), max(340, side)
    ratio = side * change.scale / size  # image pixels of an input pixel
    centre = np.array([width / 2 + 3.3, height / 2 - 7.7])
    at = np.array([[x, y] for x in (-0.22, 0, 0.22) for y in (-0.22, 0, 0.22)]) + random.uniform(-0.02, 0.02, (9, 2))
    dots = centre + at * side * change.scale
    radius = max(1.0, 2 * ratio)
    y, x = np.mgrid[:height, :width]
    image = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * radius**2)) for a, b in dots)
    image = np.repeat(np.clip(255 * image, 0, 255).astype(np.uint8)[..., None], 3, -1)
    joints = np.zeros((16, 2), np.float32)
    joints[:9] = dots
    one = person(labelled=False, image=image, centre=centre, side=float(side), joints=joints)
    sample = sample_of(replace(one, annotated=np.arange(16) < 9), size, change)
    found = sample["image"][0].numpy()
    order = [MIRROR.index(j) for j in range(16)] if change.flip else range(16)
    shown = sample["joints"].numpy()[[order[j] for j in range(9)]]
    reach = int(np.ceil(3 * radius / ratio))
    for a, b in shown:
        left, top = round(float(a)) - reach, round(float(b)) - reach
        assert min(left, top) >= 0, "the dot has to be in the picture"
        part = found[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
        y, x = np.mgrid[: part.shape[0], : part.shape[1]]
        place = np.array([(part * x).sum(), (part * y).sum()]) / part.sum() + [left, top]
        assert np.abs(place - [a, b]).max() < 0.35, (place, (a, b))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: crop_matrix((1, np.nan), 10, 64), "centre is (1, nan), expected two finite numbers."),
        (lambda: crop_matrix((1, 2, 3), 10, 64), "centre is (1, 2, 3), expected two finite numbers."),
        (lambda: crop_matrix((1, 2), 0, 64), "side is 0, expected a finite number above 0."),
        (lambda: crop_matrix((1, 2), np.inf, 64), "side is inf, expected a finite number above 0."),
        (lambda: crop_matrix((1, 2), 5, 64, scale=-1), "scale is -1, expected a finite number above 0."),
        (lambda: crop_matrix((1, 2), 5, 0), "size is 0, expected at least 1 pixel."),
        (lambda: transform(np.zeros((3, 3)), np.eye(2, 3)), "points has shape [3, 3], expected [..., 2]."),
        (lambda: invert(np.zeros((2, 3))), "expected an affine map [2, 3] that has an inverse."),
        (lambda: warp(np.zeros((4, 4), np.uint8), np.eye(2, 3), 8), "image is uint8 [4, 4], expected uint8 [H, W, 3]."),
        (lambda: warp(np.zeros((4, 4, 3)), np.eye(2, 3), 8), "image is float64 [4, 4, 3], expected uint8 [H, W, 3]."),
        (lambda: Augmentation(scale=-1), "scale is -1, expected a number from 0 to 1."),
        (lambda: Augmentation(rotation=np.nan), "rotation is nan, expected a number from 0 to 180."),
        (lambda: Augmentation(flip=1.5), "flip is 1.5, expected a number from 0 to 1."),
        (lambda: Augmentation(gain=0), "gain is 0, expected a number above 0 and up to 1."),
        (lambda: ImageSamples([]), "people has nobody, expected at least one person."),
        (lambda: ImageSamples(Group(2), input_size=4), "input_size is 4, expected at least 8."),
        (lambda: ImageSamples(Group(2), seed=-1), "seed is -1, expected at least 0."),
        (lambda: HalfAndHalf(ImageSamples([Group(2), Group(2)]), 5, 0), "batch_size is 5, expected an even number"),
        (lambda: HalfAndHalf(ImageSamples([Group(2), Group(2)]), 0, 0), "batch_size is 0, expected an even number"),
        (lambda: HalfAndHalf(ImageSamples(Group(2)), 4, 0), "dataset has 1 sources of people, expected two"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert message in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"joints": np.zeros((17, 2))}, "joints of person 0 has shape [17, 2], expected [16, 2]."),
        ({"annotated": np.zeros(17, bool)}, "annotated of person 0 has shape [17], expected [16]."),
        ({"side": 0.0}, "the box of person 0 can't be used: side is 0.0"),
        ({"centre": np.array([np.nan, 1])}, "the box of person 0 can't be used: centre is"),
    ],
)
def test_people_who_are_not_what_they_should_be(changes, message):
    with pytest.raises(DataError) as caught:
        sample_of(person(**changes), 64)
    assert message in str(caught.value)


# Augmentation ---------------------------------------------------------------------------------------------------------


def test_what_is_drawn():
    drawn = [Augmentation().draw(3, epoch, index) for epoch in range(2) for index in range(2000)]
    scales = np.log2([change.scale for change in drawn])
    assert np.abs(scales).max() == pytest.approx(0.5) and 0.22 < scales.std() < 0.25 and abs(scales.mean()) < 0.02
    turned = np.array([change.rotation for change in drawn if change.rotation])
    assert len(turned) / len(drawn) == pytest.approx(0.4, abs=0.03) and np.abs(turned).max() == 60
    assert np.mean([change.flip for change in drawn]) == pytest.approx(0.5, abs=0.03)
    gains = np.array([change.gains for change in drawn])
    assert gains.min() >= 0.6 and gains.max() <= 1 and gains.mean() == pytest.approx(0.8, abs=0.01)
    assert np.abs(np.corrcoef(gains.T) - np.eye(3)).max() < 0.05
    assert len({change.scale for change in drawn if abs(np.log2(change.scale)) < 0.5}) > 3700  # none like another
    assert Augmentation().draw(3, 1, 5) == Augmentation().draw(3, 1, 5) != Augmentation().draw(4, 1, 5)
    still = Augmentation(0, 0, 0, 0, 1)
    assert {still.draw(0, 0, index) for index in range(20)} == {Change()}


@given(st.floats(0.6, 1.6), st.floats(-180, 180), st.booleans(), st.integers(0, 50))
def test_pose_and_image_change_together(scale, rotation, flip, seed):
    """Weak perspective holds before and after, so joints in the image are x, y of the pose, scaled."""
    change = Change(scale, rotation, flip)
    sample = sample_of(person(seed), 64, change)
    pose, joints = sample["pose"].numpy(), sample["joints"].numpy()
    factor = 0.05 * 64 / (100 * scale)
    np.testing.assert_allclose(joints - joints[6], factor * pose[:, :2], atol=2e-3)
    np.testing.assert_allclose(sample["depth"], 2 / 64 * factor * pose[:, 2], atol=1e-4)
    plain = person(seed).pose
    child, parent = np.array(MPII.bones).T
    lengths = [np.linalg.norm(x[child] - x[parent], axis=-1) for x in (plain, pose)]
    if flip:  # the bones of the other side
        swapped = {tuple(bone): number for number, bone in enumerate(MPII.bones)}
        lengths[0] = lengths[0][[swapped[MIRROR[c], MIRROR[p]] for c, p in MPII.bones]]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-4)


def test_mirroring_keeps_the_handedness_of_limbs():
    """A mirrored pose with sides exchanged bends its knees as before; without it would not."""
    one = person(3).pose
    mirrored = change_pose(one, Change(flip=True))
    for hinge in MPII.hinges:
        signs = []
        for pose in (one, mirrored):
            c, s, e, w = (pose[joint] for joint in hinge.joints)
            signs.append(np.sign(np.cross(s - c, e - s) @ (w - e)))
        other = next(h for h in MPII.hinges if h.joints[2] == MIRROR[hinge.joints[2]])
        c, s, e, w = (one[joint] for joint in other.joints)
        assert signs[1] == -np.sign(np.cross(s - c, e - s) @ (w - e))
    np.testing.assert_array_equal(change_pose(mirrored, Change(flip=True)), one)
    turned = change_pose(change_pose(one, Change(rotation=33)), Change(rotation=-33))
    np.testing.assert_allclose(turned, one, atol=1e-3)


# Samples --------------------------------------------------------------------------------------------------------------


def test_a_sample():
    sample = ImageSamples(Group(3), input_size=64, actions=("walk",))[1]
    shapes = {
        "image": (torch.float32, (3, 64, 64)), "joints": (torch.float32, (16, 2)), "annotated": (torch.bool, (16,)),
        "visible": (torch.bool, (16,)), "depth": (torch.float32, (16,)), "has_depth": (torch.bool, ()),
        "pose": (torch.float32, (16, 3)), "index": (torch.int64, ()), "action": (torch.int64, ()),
        "affine": (torch.float32, (2, 3)),
    }  # fmt: skip
    assert {key: (value.dtype, tuple(value.shape)) for key, value in sample.items()} == shapes
    assert sample["image"].min() >= 0 and sample["image"].max() <= 1
    one = person(1)
    np.testing.assert_array_equal(sample["pose"], one.pose)
    expected = transform(one.joints, sample["affine"].numpy().astype(float))
    np.testing.assert_allclose(sample["joints"], expected, atol=1e-4)
    assert sample["index"] == 1 and sample["action"] == 0 and sample["has_depth"] and sample["depth"][6] == 0
    assert ImageSamples(Group(3), input_size=64, actions=("walk",))[0]["action"] == -1
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 255
    assert sample_of(person(image=red, centre=np.array([10, 10]), side=8.0), 16)["image"][0].min() == 1


def test_a_sample_without_a_pose_or_with_hidden_joints():
    one = person(1, labelled=False)
    sample = sample_of(one, 64)
    assert not sample["has_depth"] and not sample["depth"].any() and not sample["pose"].any()
    annotated = np.arange(16) > 4
    sample = sample_of(replace(person(1), annotated=annotated, visible=annotated & (np.arange(16) > 8)), 64)
    assert sample["annotated"].tolist() == annotated.tolist() and sample["visible"].sum() == 7
    assert not sample["joints"][:5].any() and sample["has_depth"]
    whole = sample_of(person(1), 64)
    np.testing.assert_allclose(sample["depth"], whole["depth"], atol=1e-5)  # from the bones that are known
    sample = sample_of(replace(person(1), annotated=NOTHING, visible=NOTHING), 64)
    assert not sample["has_depth"] and not sample["depth"].any() and sample["pose"].any()
    far = person(1).joints.copy()
    far[0] = 1000, 20
    assert sample_of(person(1, joints=far), 64)["annotated"].all()  # known, though not in the picture


def test_labelled_samples_are_not_changed_unless_it_is_asked_for():
    plain = ImageSamples([Group(4), Group(4, labelled=False, first=10)], input_size=32)
    options = {"input_size": 32, "augment": Augmentation(), "seed": 1}
    changed = ImageSamples([Group(4), Group(4, labelled=False, first=10)], **options)
    for index in range(8):
        same = torch.equal(plain[(0, index)]["image"], changed[(0, index)]["image"])
        assert same == (index < 4)
    everything = ImageSamples([Group(4), Group(4, labelled=False, first=10)], augment_labelled=True, **options)
    assert not torch.equal(plain[2]["image"], everything[2]["image"])
    assert not torch.equal(everything[(0, 2)]["image"], everything[(1, 2)]["image"])
    assert torch.equal(everything[(1, 2)]["image"], everything[(1, 2)]["image"])
    with pytest.raises(IndexError):
        plain[8]


def test_colours():
    grey = np.full((20, 20, 3), 200, np.uint8)
    one = person(labelled=False, image=grey, centre=np.array([10, 10]), side=8.0)
    found = sample_of(one, 16, Change(gains=(1.0, 0.5, 0.75)))["image"]
    np.testing.assert_allclose(found.mean((1, 2)), np.array([1, 0.5, 0.75]) * 200 / 255, rtol=1e-5)


def test_some_people():
    group = Group(7)
    some = SomePeople(group, [5, 2])
    assert len(some) == 2 and some[0].name == "person 5" and list(some.subjects) == ["S2", "S2"] and some.labelled
    hidden = WithoutPoses(group, range(7))
    assert not hidden.labelled and hidden[3].pose is None and hidden[3].name == "person 3" and group[3].pose is not None
    assert [evenly(group, 3)[n].name for n in range(3)] == ["person 0", "person 2", "person 4"]
    assert evenly(group, None) is group and evenly(group, 9) is group


# Orders ---------------------------------------------------------------------------------------------------------------


def keys(sampler, epoch=0):
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert {of for of, _ in found} == {epoch} and len(found) == len(sampler)
    return [index for _, index in found]


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 9)
)
def test_every_batch_is_half_and_half(labelled, others, half, replicas, epoch, seed):
    data = ImageSamples.__new__(ImageSamples)
    data.people = (range(labelled), range(others))
    data._ends = np.cumsum([labelled, others])
    everyone = [[], []]
    for rank in range(replicas):
        found = np.array(keys(HalfAndHalf(data, 2 * half, seed, replicas, rank), epoch)).reshape(-1, 2 * half)
        assert (found[:, :half] < labelled).all() and (found[:, half:] >= labelled).all()
        everyone[0].append(found[:, :half])
        everyone[1].append(found[:, half:] - labelled)
    steps = {len(part) for part in everyone[0]}
    assert len(steps) == 1  # every process has as many
    for size, part in zip((labelled, others), everyone, strict=True):
        counts = np.bincount(np.stack(part).ravel(), minlength=size)
        assert counts.max() - counts.min() <= 1  # whole shuffles, one after the other
    assert steps.pop() == -(-max(labelled, others) // (half * replicas))


def test_the_smaller_half_is_shuffled_anew_each_time():
    data = ImageSamples([Group(5), Group(20, labelled=False)], input_size=16)
    found = np.array(keys(HalfAndHalf(data, 10, 1))).reshape(4, 10)
    rounds = [tuple(batch[:5]) for batch in found]
    assert all(sorted(batch) == list(range(5)) for batch in rounds) and len(set(rounds)) == 4
    orders = [tuple(keys(HalfAndHalf(data, 10, seed), epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9
    assert keys(HalfAndHalf(data, 10, 1), 2) == keys(HalfAndHalf(data, 10, 1), 2)


@pytest.mark.parametrize(
    "make", [lambda data, *at: HalfAndHalf(data, 4, 3, *at), lambda data, *at: Shuffled(data, 3, *at)]
)
def test_orders_resume_within_an_epoch(make):
    data = ImageSamples([Group(5), Group(7, labelled=False)], input_size=16)
    for place in ((1, 0), (2, 1)):
        whole, part = make(data, *place), make(data, *place)
        expected = keys(whole, 4)
        part.resume(4, 4)
        assert [index for _, index in part] == expected[4:]
        assert len(part) == len(whole)
        assert keys(part, 5) == keys(whole, 5) != expected


def test_shuffles_and_shares():
    data = ImageSamples(Group(11), input_size=16)
    assert sorted(keys(Shuffled(data, 0))) == list(range(11)) and keys(Shuffled(data, 0)) != list(range(11))
    parts = [keys(Shuffled(data, 0, 4, rank), 2) for rank in range(4)]
    assert {len(part) for part in parts} == {3} and set().union(*parts) == set(range(11))
    shares = [list(EverySample(data, 4, rank)) for rank in range(4)]
    assert sorted(number for share in shares for number in share) == list(range(11)) and [
        len(EverySample(data, 4, rank)) for rank in range(4)
    ] == [
        3,
        3,
        3,
        2,
    ]
    assert all(a < b for share in shares for a, b in pairwise(share))


def test_any_number_of_processes_loads_the_same():
    """What is random depends on the epoch and the sample, also where loading processes go on from epoch to epoch."""
    found = []
    for workers in (0, 2):
        data = ImageSamples(
            [Group(6), Group(9, labelled=False, first=20)], input_size=16, augment=Augmentation(), seed=5
        )
        sampler = HalfAndHalf(data, 6, 5)
        loader = image_loader(data, 6, sampler, workers=workers)
        batches = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            batches += list(loader)
        found.append(batches)
    assert len(found[0]) == len(found[1]) == 6
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        assert one["has_depth"].tolist() == [True] * 3 + [False] * 3
    first = {int(i): image for batch in found[0][:3] for i, image in zip(batch["index"], batch["image"], strict=True)}
    again = {int(i): image for batch in found[0][3:] for i, image in zip(batch["index"], batch["image"], strict=True)}
    unlabelled = [index for index in first if index >= 6 and index in again]
    assert unlabelled and not any(torch.equal(first[index], again[index]) for index in unlabelled)


def test_collate():
    data = ImageSamples(Group(3), input_size=16)
    batch = collate([data[0], data[2]])
    assert batch["image"].shape == (2, 3, 16, 16) and batch["index"].tolist() == [0, 2]

"""Folders of frames for shape templates: rendered ones, the crop rule, pairs, arms, and what is read from them."""

import numpy as np
import pytest
from test_images_sources import fails

from structloss import skeletons
from structloss.errors import ArgumentError, UnknownNameError
from structloss.images.frames.arms import arms_down, arms_out, with_arms
from structloss.images.frames.crops import GRID, SIDE, SnappedBox, grid_of, snapped
from structloss.images.frames.folders import H36M17_JOINTS, Frame, SquareFrames, box_diagonal
from structloss.images.frames.pairs import scored_pairs, trained_pairs
from structloss.images.memory import Kept
from structloss.images.rendered.folders import RenderedFolders
from structloss.images.template_samples import TemplateSamples, mirrored
from structloss.shape_templates import JOINT_MIRROR, JOINTS

J = {name: number for number, name in enumerate(JOINTS)}


def test_what_joints_that_are_read_out_are_compared_with():
    """Joints are called by the side of the image: the right ones are the left ones of a body that faces the camera."""
    h36m = skeletons.get("h36m")
    found = {name: h36m.joint_names[joint] for name, joint in zip(JOINTS, H36M17_JOINTS, strict=True)}
    for part, name in (("hip", "Hip"), ("knee", "Knee"), ("ankle", "Foot"), ("shoulder", "Shoulder"),
                       ("elbow", "Elbow"), ("wrist", "Wrist")):  # fmt: skip
        assert H36M17_JOINTS[J[f"{part}R"]] in h36m.left and H36M17_JOINTS[J[f"{part}L"]] in h36m.right
        pair = {found[f"{part}R"], found[f"{part}L"]}
        assert len(pair) == 2 and all(name in joint or part in joint.lower() for joint in pair), pair
    assert H36M17_JOINTS[J["abdomen"]] == 0 and found["chest"] == "Thorax" and H36M17_JOINTS[J["neck"]] == 9


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_are_consecutive_and_share_no_frame():
    assert trained_pairs([5, 2]).tolist() == [[0, 0, 1, 0], [0, 2, 3, 0], [1, 0, 1, 0]]
    found = trained_pairs([40, 41], shuffle=True, seed=3)
    for folder, pairs in ((0, 20), (1, 20)):
        used = found[found[:, 0] == folder, 1:3]
        assert used.shape == (pairs, 2) and len(np.unique(used)) == 2 * pairs
    assert (found == trained_pairs([40, 41], shuffle=True, seed=3)).all()
    assert (found != trained_pairs([40, 41], shuffle=True, seed=4)).any()
    # A folder's pairs do not depend on the other folders.
    assert (found[:20] == trained_pairs([40], shuffle=True, seed=3)).all()


def test_half_of_the_pairs_and_the_same_mirrored():
    lengths = [8, 6, 3]
    plain, flipped = trained_pairs(lengths), trained_pairs(lengths, flip=True)
    for folder, half in ((0, 2), (1, 2), (2, 1)):  # of 4, 3 and 1 pairs: the larger half
        of = flipped[flipped[:, 0] == folder]
        assert of[:, 3].tolist() == [0] * half + [1] * half
        assert (of[:half, :3] == of[half:, :3]).all()
        assert (of[:half, :3] == plain[plain[:, 0] == folder][:half, :3]).all()
    assert len(flipped) == len(plain) + 2  # one more for each odd number of pairs, as in the published counts


def test_scored_pairs():
    """All files in order, then all files shuffled, every second one estimated."""
    found = scored_pairs([4, 5], seed=1)
    assert found.shape == (9, 4) and not found[:, 3].any()
    assert found[:2].tolist() == [[0, 0, 1, 0], [0, 2, 3, 0]]
    shuffled = found[2:4, 1:3].reshape(-1)
    assert sorted(shuffled) == [0, 1, 2, 3]
    odd = found[4:, 1:3].reshape(-1)
    assert odd[:5].tolist() == [0, 1, 2, 3, 4] and sorted(odd[5:]) == [0, 1, 2, 3, 4]
    assert (found == scored_pairs([4, 5], seed=1)).all() and (found != scored_pairs([4, 5], seed=2)).any()


@pytest.mark.parametrize("pairs", [trained_pairs, scored_pairs])
@pytest.mark.parametrize("lengths", [[], [3, 0]])
def test_pairs_of_nothing(pairs, lengths):
    with fails(ArgumentError, "lengths", "expected at least one folder"):
        pairs(lengths)


# Arms -----------------------------------------------------------------------------------------------------------------


def body(**joints):
    """Joints of somebody with arms straight down, but for those that are told."""
    found = np.zeros((15, 2))
    found[J["shoulderR"]], found[J["shoulderL"]] = (140, 80), (116, 80)
    found[J["wristR"]], found[J["wristL"]] = (145, 130), (111, 130)
    for name, place in joints.items():
        found[J[name]] = place
    return found


@pytest.mark.parametrize(
    ("joints", "down", "out"),
    [
        ({}, True, False),
        ({"wristR": (190, 130)}, True, False),  # 45 degrees: still down
        ({"wristR": (191, 130)}, False, False),
        ({"wristL": (116, 60)}, False, False),  # above its shoulder
        ({"wristR": (190, 80), "wristL": (66, 80)}, False, True),
        ({"wristR": (190, 98), "wristL": (66, 62)}, False, True),  # 18 / 50 < tan 20 degrees
        ({"wristR": (190, 99), "wristL": (66, 62)}, False, False),
        ({"wristR": (90, 80), "wristL": (66, 80)}, False, False),  # across the chest
        ({"wristR": (190, 80)}, False, False),  # one arm is not both
        ({"wristR": (66, 80), "wristL": (190, 80), "shoulderR": (116, 80), "shoulderL": (140, 80)}, False, False),
    ],
)  # fmt: skip
def test_arms(joints, down, out):
    found = body(**joints)
    assert bool(arms_down(found)) is down and bool(arms_out(found)) is out
    assert with_arms("all", found) and bool(with_arms("down", found)) is down and bool(with_arms("out", found)) is out


def test_arms_of_many_and_of_joints_that_are_not_known():
    many = np.stack([body(), body(wristR=(190, 80), wristL=(66, 80))])
    assert arms_down(many).tolist() == [True, False] and arms_out(many).tolist() == [False, True]
    annotated = np.ones((2, 15), bool)
    annotated[0, J["wristL"]] = annotated[1, J["abdomen"]] = False
    assert arms_down(many, annotated).tolist() == [False, False] and arms_out(many, annotated).tolist() == [False, True]
    many[1, J["wristR"]] = np.nan
    assert not arms_out(many).any()
    # A mirrored frame has its arms as they were.
    for joints in (body(), body(wristR=(190, 80), wristL=(66, 80))):
        other, _ = mirrored(joints, np.ones(15, bool), 256)
        assert arms_down(other) == arms_down(joints) and arms_out(other) == arms_out(joints)
    with fails(ArgumentError, "joints has shape [16, 2]", "[..., 15, 2]"):
        arms_down(np.zeros((16, 2)))
    with fails(ArgumentError, "annotated has shape [3]", "[15]"):
        arms_out(body(), np.ones(3, bool))
    with fails(ArgumentError, "arms is 'up'", "'down'"):
        with_arms("up", body())


# Crops ----------------------------------------------------------------------------------------------------------------


def test_boxes_snap_outwards_to_the_grid():
    found = snapped((400, 180, 150, 500))
    assert found == SnappedBox(2, 1, 4, 4) and found.name == "340-170-680-680"
    assert found.side == 600 and found.centre == (509.5, 424.5)  # pixel centres are whole numbers
    assert snapped((340, 170, 340, 510)) == SnappedBox(2, 1, 4, 4)  # on the lines
    assert snapped((339, 170, 340, 511)) == SnappedBox(1, 1, 4, 5)
    assert snapped((-10, 0, 5, 5)).left == -1
    assert grid_of(1000) == grid_of(1002) == GRID and grid_of(500) == 85 and grid_of(1) == 1
    half = snapped((200, 90, 75, 250), grid_of(500))
    assert half.side == 300 and half.centre == (254.5, 212)
    for bad in ((1, 2, 3), (0, 0, 0, 5), (0, 0, float("nan"), 5), "box"):
        with fails(ArgumentError, "box is"):
            snapped(bad) if not isinstance(bad, str) else snapped([float("inf")] * 4)


# Rendered -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered():
    return RenderedFolders(6, 41, size=48, seed=5)


@pytest.fixture(scope="module")
def joints(rendered):
    found = [[rendered.joints(folder, frame)[0] for frame in range(41)] for folder in range(6)]
    return np.array(found, np.float64)


def test_one_in_41_has_arms_out(joints):
    down, out = arms_down(joints), arms_out(joints)
    assert (down ^ out).all() and out.sum() == 6
    more = RenderedFolders(2, 12, size=16, ratio=3)
    labels = np.array([more.joints(folder, frame)[0] for folder in range(2) for frame in range(12)])
    assert arms_out(labels).reshape(6, 4).sum(1).tolist() == [1] * 6
    never = RenderedFolders(1, 30, size=16, ratio=float("inf"))
    assert arms_down(np.array([never.joints(0, frame)[0] for frame in range(30)])).all()


def test_people_stand_in_view_and_move(joints):
    inside = (joints > -0.5) & (joints < 47.5)
    assert inside.all(-1).mean() > 0.995
    assert (joints[..., J["neck"], 1] < joints[..., J["abdomen"], 1]).all()
    assert (joints[..., J["abdomen"], 1] < joints[..., J["ankleL"], 1]).all()
    height = joints[..., [J["ankleL"], J["ankleR"]], 1].mean(-1) - joints[..., J["neck"], 1]
    assert 0.4 < (height / 48).mean() < 0.75
    relative = joints - joints[:, :, :1]
    assert (relative.std(1)[:, J["wristR"]].max(1) > 1).all()  # another pose in every frame
    assert (joints[:, :, 0].std(1) > 1).all()  # and another place


def test_people_face_the_camera_unless_told_otherwise(joints):
    """Right joints are at the right of the image; of people who may stand any way, as often at the left."""
    right = joints[..., J["shoulderR"], 0] > joints[..., J["shoulderL"], 0]
    assert right.all()
    anyhow = RenderedFolders(3, 30, size=16, facing=180, ratio=float("inf"))
    found = np.array([anyhow.joints(folder, frame)[0] for folder in range(3) for frame in range(30)])
    share = (found[:, J["shoulderR"], 0] > found[:, J["shoulderL"], 0]).mean()
    assert 0.3 < share < 0.7


def test_frames_of_a_folder_have_one_crop_by_the_published_rule(rendered):
    """Boxes, snapped to the grid in an image where the crop is 200 px a cell, share rows and middle."""
    widths = set()
    for folder in range(6):
        cells = rendered.cells(folder)
        side = SIDE * cells  # of the crop in the camera's image
        # The snapped box has its middle on a line of the grid or half way between two; put the crop's middle there.
        y = 64 * GRID + cells % 2 * GRID / 2
        for frame in range(41):
            left, top, right, bottom = rendered.box(folder, frame) * side
            for x in (64 * GRID, 64.5 * GRID):
                found = snapped((left - side / 2 + x, top - side / 2 + y, right - left, bottom - top))
                assert found.bottom - found.top == cells and found.side == side
                assert found.centre[1] + 0.5 == y
                if found.centre[0] + 0.5 == x:
                    widths.add(found.right - found.left)
                    break
            else:
                raise AssertionError((folder, frame))
    assert widths <= {1, 2, 3, 4, 5, 6} and len(widths) > 1


def test_frames_depend_on_seed_and_numbers_alone(rendered):
    again = RenderedFolders(3, 41, size=48, seed=5)
    for folder, frame in ((2, 7), (0, 0), (2, 40)):
        a, b = rendered.frame(folder, frame), again.frame(folder, frame)
        assert (a.image == b.image).all() and (a.joints == b.joints).all() and a.diagonal == b.diagonal
        assert (a.joints == rendered.joints(folder, frame)[0]).all() and a.annotated.all()
    later = RenderedFolders(1, 41, size=48, seed=5, first=2)
    assert (later.frame(0, 7).image == rendered.frame(2, 7).image).all() and later.folders == rendered.folders[2:3]
    other = RenderedFolders(1, 41, size=48, seed=6)
    assert (other.frame(0, 0).image != rendered.frame(0, 0).image).any()
    assert (rendered.frame(0, 0).image != rendered.frame(0, 1).image).any()


def test_a_folder_has_one_background(rendered):
    """Far from the person, two frames differ by the sensor's noise alone."""
    images = np.stack([rendered.frame(1, frame).image.astype(float) for frame in range(8)])
    boxes = np.array([rendered.box(1, frame) for frame in range(8)]) * 48
    out = np.ones((48, 48), bool)
    for left, top, right, bottom in boxes:
        out[max(0, int(top) - 2) : int(bottom) + 3, max(0, int(left) - 2) : int(right) + 3] = False
    assert out.sum() > 100
    assert images[:, out].std(0).mean() < 8
    assert images[:, ~out].std(0).mean() > 2 * images[:, out].std(0).mean()
    apart = rendered.frame(2, 0).image.astype(float)
    assert np.abs(apart[out] - images[0][out]).mean() > 20


def test_the_diagonal_is_that_of_the_persons_box(rendered):
    for frame in range(6):
        found = rendered.frame(3, frame)
        left, top, right, bottom = rendered.box(3, frame) * 48
        assert found.diagonal == pytest.approx(np.hypot(right - left, bottom - top))
        # The box is around the joints, and around the body: hardly larger than they reach.
        x, y = found.joints.T
        assert left - 0.5 < x.min() and x.max() < right and top - 0.5 < y.min() and y.max() < bottom
        assert (
            box_diagonal(found.joints, found.annotated)
            < found.diagonal
            < 1.5 * box_diagonal(found.joints, found.annotated)
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 0}, "count is 0"),
        ({"frames": 0}, "frames is 0"),
        ({"size": 8}, "size is 8"),
        ({"ratio": 0}, "ratio is 0"),
        ({"facing": 181}, "facing is 181"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_rendered_folders_refuse(options, says):
    with fails(ArgumentError, says, "expected"):
        RenderedFolders(**{"count": 1, "frames": 4, **options})


def test_rendered_folders_of_somebody_elses_motion():
    from structloss.data import generate_clips

    clips = generate_clips(2, 3, 20, seed=2, fps=10)
    found = RenderedFolders(2, 6, size=16, motion=clips, subjects=["syn02"])
    assert found.frame(1, 5).image.shape == (16, 16, 3)
    with fails(UnknownNameError, "subject 'syn9'"):
        RenderedFolders(2, 6, size=16, motion=clips, subjects=["syn9"])
    with pytest.raises(IndexError, match="folder 2"):
        found.frame(2, 0)
    with pytest.raises(IndexError, match="frame 6"):
        found.frame(0, 6)


# Samples --------------------------------------------------------------------------------------------------------------


class Few:
    """Frames whose pixels tell where they are: red is the column, green the row, blue the frame."""

    source, folders, lengths = "few", ("a", "b"), (3, 2)

    def __init__(self, width=8, height=8):
        self.width, self.height, self.asked = width, height, 0

    def joints(self, folder, number):
        return np.arange(30, dtype=np.float32).reshape(15, 2) / 10, np.arange(15) != 4

    def frame(self, folder, number):
        self.asked += 1
        rows, columns = np.mgrid[: self.height, : self.width]
        image = np.stack([columns, rows, np.full_like(rows, 10 * folder + number)], -1).astype(np.uint8)
        return Frame(image, *self.joints(folder, number), 5.0, f"{folder}/{number}")


def test_mirrored_frames():
    """Both images and the joints: sides are exchanged, so that a joint stays on the side that its name says."""
    frames = SquareFrames(Few(), 8)
    plain, flipped = (TemplateSamples(frames, frames.starts, np.array([[1, 0, 1, flip]]))[(3, 0)] for flip in (0, 1))
    for key, blue in (("frame", 10), ("reference", 11)):
        assert (flipped[key] == plain[key].flip(2)).all() and (plain[key][2] * 255).round().unique().tolist() == [blue]
    assert (plain["frame"][0, 0] * 255).round().tolist() == list(range(8))
    mirror = list(JOINT_MIRROR)
    assert not plain["annotated"][4] and not flipped["annotated"][mirror[4]] and flipped["annotated"].sum() == 14
    for joint in range(15):
        if flipped["annotated"][joint]:
            x, y = plain["joints"][mirror[joint]].tolist()
            assert flipped["joints"][joint].tolist() == pytest.approx([7 - x, y])
        else:
            assert flipped["joints"][joint].tolist() == [0, 0]
    assert {key: value for key, value in flipped.items() if value.ndim == 0} == {
        key: value for key, value in plain.items() if value.ndim == 0
    }
    assert plain["diagonal"] == 5 and plain["folder"] == 1 and plain["index"] == 0


def test_a_mirrored_person_looks_like_one_who_was_rendered(rendered, joints):
    """Right joints of a mirrored person who faces the camera are at the right, as they are of any."""
    other, annotated = mirrored(joints[0, 3], np.ones(15, bool), 48)
    assert annotated.all()
    for part in ("shoulder", "hip"):
        assert other[J[f"{part}R"], 0] > other[J[f"{part}L"], 0]
    back, _ = mirrored(other, annotated, 48)
    np.testing.assert_allclose(back, joints[0, 3], atol=1e-4)


def test_frames_are_squares_of_one_size():
    few = Few(width=12, height=8)
    frames = SquareFrames(few, 6)
    assert len(frames) == 5 and frames.starts.tolist() == [0, 3, 5]
    found = frames[4]
    assert found.name == "1/1" and found.image.shape == (6, 6, 3) and found.diagonal == 2.5
    assert (found.image[0] == 0).all() and (found.image[-1] == 0).all() and found.image[3, 3, 2] == 11  # black beyond
    x, y = few.joints(1, 1)[0][5]
    np.testing.assert_allclose(found.joints[5], [(x - 5.5) / 2 + 2.5, (y - 3.5) / 2 + 2.5], rtol=1e-6)
    assert found.joints[4].tolist() == [0, 0]


def test_frames_are_kept_as_far_as_memory_goes():
    few = Few()
    kept = Kept(SquareFrames(few, 8), 2 * 8 * 8 * 3 / 2**20)
    for _ in range(3):
        assert [kept[index].name for index in range(5)] == ["0/0", "0/1", "0/2", "1/0", "1/1"]
    assert few.asked == 5 + 3 + 3  # two of five are kept


def test_samples_of_nothing():
    frames = SquareFrames(Few(), 8)
    with fails(ArgumentError, "pairs has shape [0, 4]"):
        TemplateSamples(frames, frames.starts, np.zeros((0, 4), int))
    samples = TemplateSamples(frames, frames.starts, trained_pairs(Few.lengths))
    assert len(samples) == 2
    with pytest.raises(IndexError, match="less than 2"):
        samples[2]

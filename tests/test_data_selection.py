"""Parts of a data set: actions, a share of the training frames, every n-th frame, the training set when testing."""

import fake_data
import numpy as np
import pytest

pytest.importorskip("lightning")

from structloss.data import MotionDataModule, open_store, save_store
from structloss.data.opening import open_data
from structloss.data.selection import Selection
from structloss.errors import ArgumentError, DataError

ACTIONS = ("Sitting", "SittingDown 1", "Walking")
CUT = {"window": 5, "stride": 5, "sampling": "centred", "target": "camera", "progress": False}


@pytest.fixture(scope="module")
def h36m(tmp_path_factory):
    folder = tmp_path_factory.mktemp("h36m")
    fake_data.write_h36m_npz(folder, subjects=("S1", "S5", "S9"), actions=ACTIONS, frames=40)
    return folder


def module(folder, **arguments):
    data = MotionDataModule(str(folder), **{**CUT, **arguments})
    data.setup()
    return data


def frames_of(windows):
    """Motion and camera -> the poses of its frames, from the store."""
    store = windows.store
    return {(v.motion, v.camera): store.pose[v.start : v.start + v.frames] for v in store.views}


def test_actions_are_meant_exactly_in_training_and_test(h36m):
    data = module(h36m, actions=["Sitting", "Walking"])
    assert data.actions == ("Sitting", "Walking")
    for windows in (data.train_dataset, data.val_dataset):
        assert {view.name for view in windows.store.views} == {"Sitting", "Walking"}, "not SittingDown"
    with pytest.raises(
        ArgumentError, match=r"^actions has \['Sit'\], expected actions of .*: Sitting, SittingDown, Walk"
    ):
        module(h36m, actions=["Sit"])
    made = {"num_subjects": 2, "clips_per_subject": 6, "frames": 20, "views": 1, "window": 9, "progress": False}
    name = MotionDataModule(**made).actions[0]
    chosen = MotionDataModule(**made, actions=[name])
    assert chosen.actions == (name,) and chosen.train_dataset.store.actions == (name,)
    with pytest.raises(ArgumentError, match=r"^actions has \['Flying'\], expected actions of the synthetic motion:"):
        MotionDataModule(num_subjects=2, frames=20, window=9, progress=False, actions=["Flying"]).setup()


def test_a_subset_is_a_run_of_every_training_view_and_the_test_stays_whole(h36m):
    whole, some = module(h36m), module(h36m, subset=0.3)
    before, after = frames_of(whole.train_dataset), frames_of(some.train_dataset)
    places = set()
    for key, poses in after.items():
        assert len(poses) == 12
        (start,) = (i for i in range(29) if np.array_equal(before[key][i : i + 12], poses))
        places.add(start)
    assert len(places) == 1 and before.keys() == after.keys(), "the same of every view of that length"
    assert some.train_dataset.store.pose is not None and len(some.train_dataset) < len(whole.train_dataset)
    assert all(map(np.array_equal, frames_of(some.val_dataset).values(), frames_of(whole.val_dataset).values()))
    again = module(h36m, subset=0.3)
    assert all(map(np.array_equal, frames_of(again.train_dataset).values(), after.values()))
    spread = {Selection(subset=0.1).frames(total, "train").start / total for total in range(200, 300)}
    assert min(spread) < 0.1 and max(spread) > 0.75, "by the length of the view"


@pytest.mark.parametrize("mapped", [False, True])
def test_every_nth_frame_in_training_and_test(h36m, tmp_path, mapped):
    path = save_store(open_data(h36m), tmp_path / "a.poses") if mapped else h36m
    whole, thin = module(path), module(path, downsample=3)
    for name in ("train_dataset", "val_dataset"):
        before, after = frames_of(getattr(whole, name)), frames_of(getattr(thin, name))
        assert before.keys() == after.keys()
        for key, poses in after.items():
            np.testing.assert_array_equal(poses, before[key][::3])
        assert {view.fps for view in getattr(thin, name).store.views} == {50 / 3}
    batch = thin.val_dataset.batch(range(len(thin.val_dataset)))
    steps = batch["camera_pose"][1:, 2] - batch["camera_pose"][:-1, 2]
    first = open_store(path) if mapped else open_data(h36m)
    view = thin.val_dataset.store.views[0]
    (source,) = (v for v in first.views if (v.motion, v.camera) == (view.motion, view.camera))
    want = 1000 * (first.pose[source.start + 3] - first.pose[source.start])
    np.testing.assert_allclose(steps[0], want, atol=1e-2)
    both = module(path, downsample=3, subset=0.5)
    assert {view.frames for view in both.train_dataset.store.views} == {7}
    assert {view.frames for view in both.val_dataset.store.views} == {14}


def test_the_training_subjects_can_be_tested(h36m):
    usual, data = module(h36m, subset=0.5), module(h36m, subset=0.5, test_set="train")
    assert usual.test_dataset is usual.val_dataset
    assert {view.subject for view in data.val_dataset.store.views} == {"S9"}
    batches = list(data.test_dataloader())
    assert {data.subjects[i] for batch in batches for i in batch["subject"].tolist()} == {"S1", "S5"}
    weight = sum(float(batch["weight"].sum()) for batch in batches)
    assert weight == 17 * data.train_dataset.store.frames == 17 * 2 * 3 * 4 * 20, "every frame once, none mirrored"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": 0.0}, "^subset is 0.0, expected a share above 0 and up to 1."),
        ({"subset": 2}, "^subset is 2, expected a share"),
        ({"downsample": 0}, "^downsample is 0, expected at least 1."),
        ({"actions": []}, "^actions is empty, expected at least one, or None for all."),
        ({"test_set": "all"}, "^test_set is 'all', expected"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        MotionDataModule(**arguments)


def test_what_is_left_must_be_as_long_as_the_window(h36m):
    with pytest.raises(
        DataError, match=r"no training clip of .* is as long as the window of 27 frames, the longest has"
    ):
        module(h36m, sampling="windows", window=27, stride=9, downsample=2)


def test_held_out_subjects_without_millimetres_are_told(tmp_path, recwarn):
    """MotionBERT's pickle has them of the test subjects alone."""
    path = str(fake_data.write_pickle(tmp_path / "h36m.pkl", fake_data.h36m_pickle()))
    assert module(path, target="root_relative").val_dataset.store.has_millimetres and not recwarn.list
    with pytest.warns(UserWarning, match=r"val_subjects has S1, of whom .*h36m.pkl publishes no millimetres: there "):
        assert not module(path, target="root_relative", val_subjects=["S1"]).val_dataset.store.has_millimetres

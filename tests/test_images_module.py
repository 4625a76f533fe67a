"""The data module of people in images: who is trained on, who is scored, what batches are made of, and resuming."""

import json
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from saves import Saves
from test_images_sources import fails, mpii_person, picture, spin_arrays, write

from structloss.errors import ArgumentError, DataError, MissingFileError
from structloss.images.image_people import ImagePeople
from structloss.images.module import ImagesDataModule
from structloss.images.rendered.people import RenderedPeople

SMALL = {"input_size": 32, "count": 8, "unlabelled_count": 5, "val_count": 5, "progress": False}


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """Four people, two clips each."""
    from structloss.data import generate_clips, save_archive

    path = tmp_path_factory.mktemp("motion") / "clips.npz"
    save_archive(path, generate_clips(4, 2, 30, seed=1))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """People with 3D poses of four subjects, one of whom is S9, and people with 2D joints."""
    folder = tmp_path_factory.mktemp("files")
    subjects = ("S1", "S5", "S6", "S9")
    arrays = spin_arrays(16)
    actions = ("Walking", "Sitting", "TakingPhoto")
    names = [f"{subjects[n % 4]}/{subjects[n % 4]}_{actions[n % 3]}_1.5413_{n:06d}.jpg" for n in range(16)]
    for number, name in enumerate(names):
        write(folder / "h36m" / name, picture(seed=number))
    np.savez(folder / "h36m" / "train.npz", **arrays | {"imgname": np.array(names)})
    for number in range(10):
        write(folder / "mpii" / "images" / f"{number}.jpg", picture(seed=50 + number))
    people = [mpii_person(f"{number}.jpg") for number in range(10)]
    (folder / "mpii" / "train.json").write_text(json.dumps(people))
    return folder


def of_files(files, **changes):
    options = {"data": str(files / "h36m" / "train.npz"), "unlabelled": str(files / "mpii" / "train.json")}
    return ImagesDataModule(**options | {"input_size": 32, "batch_size": 4, "progress": False} | changes)


def names(dataset, part=0):
    return [dataset.people[part][n].name for n in range(len(dataset.people[part]))]


# Who --------------------------------------------------------------------------------------------------------------


def test_rendered_people(motion):
    data = ImagesDataModule(motion=motion, batch_size=4, **SMALL)
    data.setup()
    labelled, unlabelled = data.train_dataset.people
    (scored,) = data.val_dataset.people
    assert [len(part) for part in (labelled, unlabelled, scored)] == [8, 5, 5]
    assert labelled.labelled and not unlabelled.labelled and scored.labelled
    who = [{part[n].subject for n in range(len(part))} for part in (labelled, unlabelled, scored)]
    assert who == [{"syn01", "syn02"}, {"syn03"}, {"syn04"}]  # nobody does the motion of another part's
    assert data.test_dataset is data.val_dataset
    assert {scored[n].action for n in range(5)} <= set(data.actions)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 32) and batch["has_depth"].tolist() == [True, True, False, False]
    assert (batch["pose"][2:] == 0).all() and batch["annotated"].any(1).all()
    found = list(data.val_dataloader())
    assert torch.cat([b["index"] for b in found]).tolist() == list(range(5))
    assert all((b["action"] >= 0).all() for b in found)
    again = ImagesDataModule(motion=motion, batch_size=4, **SMALL)
    assert torch.equal(next(iter(again.train_dataloader()))["image"], batch["image"])
    other = ImagesDataModule(motion=motion, batch_size=4, seed=1, **SMALL)
    assert not torch.equal(other.train_dataset[0]["image"], data.train_dataset[0]["image"])


def test_rendered_people_are_kept_where_the_training_process_loads_them(motion, monkeypatch):
    drawn = []
    draw = RenderedPeople.__getitem__
    monkeypatch.setattr(RenderedPeople, "__getitem__", lambda self, index: drawn.append(index) or draw(self, index))
    options = {"motion": motion, "batch_size": 4, **SMALL}
    for more, times in [({}, 2), ({"keep_megabytes": 9}, 1), ({"keep_megabytes": 9, "num_workers": 1}, 2)]:
        data = ImagesDataModule(**options, **more).train_dataset
        drawn.clear()
        first, again = data[3], data[3]
        assert drawn == [3] * times and torch.equal(first["image"], again["image"])


def test_rendered_subjects_as_told(motion):
    data = ImagesDataModule(motion=motion, val_subjects=["syn01"], unlabelled_subjects=["syn02"], batch_size=2, **SMALL)
    labelled, unlabelled = data.train_dataset.people
    (scored,) = data.val_dataset.people
    who = [{part[n].subject for n in range(len(part))} for part in (labelled, unlabelled, scored)]
    assert who == [{"syn03", "syn04"}, {"syn02"}, {"syn01"}]
    one = ImagesDataModule(motion=motion, val_subjects=["syn01", "syn02", "syn03"], batch_size=2, **SMALL)
    labelled, unlabelled = one.train_dataset.people
    assert labelled[0].subject == unlabelled[0].subject == "syn04"
    assert not np.array_equal(labelled[0].image, unlabelled[0].image)
    for options, message in [
        ({"val_subjects": ["x"]}, "val_subjects has 'x', expected subjects of"),
        ({"unlabelled_subjects": ["x"]}, "unlabelled_subjects has 'x', expected training subjects of"),
        ({"unlabelled_subjects": ["syn04"]}, "unlabelled_subjects has 'syn04'"),
        ({"unlabelled_subjects": ["syn01", "syn02", "syn03"]}, "unlabelled_subjects has all training subjects"),
    ]:
        with fails(ArgumentError, message):
            ImagesDataModule(motion=motion, **options, **SMALL).setup()
    with fails(DataError, "the training split of", "is empty"):
        ImagesDataModule(motion=motion, val_subjects=["syn01", "syn02", "syn03", "syn04"], **SMALL).setup()


def test_files(files):
    data = of_files(files)
    labelled, unlabelled = data.train_dataset.people
    (scored,) = data.val_dataset.people
    assert len(labelled) == 12 and len(unlabelled) == 10 and len(scored) == 4
    assert {labelled[n].subject for n in range(12)} == {"S1", "S5", "S6"}
    assert {scored[n].subject for n in range(4)} == {"S9"}  # as the data set has it
    assert data.actions == ("Photo", "Sitting", "Walking")
    assert labelled.labelled and not unlabelled.labelled and scored.labelled
    batch = next(iter(data.train_dataloader()))
    assert batch["has_depth"].tolist() == [True, True, False, False]
    data = of_files(files, val_subjects=["S1", "S5"], count=3, unlabelled_count=4, val_count=2)
    assert [len(part) for part in data.train_dataset.people] == [3, 4] and len(data.val_dataset) == 2
    assert {data.val_dataset.person(n).subject for n in range(2)} == {"S1"}
    assert data.train_dataset.people[0][2].subject in ("S6", "S9")


def test_half_of_the_subjects_without_their_poses(files):
    data = of_files(files, unlabelled=None, unlabelled_subjects=["S5"])
    labelled, unlabelled = data.train_dataset.people
    assert {labelled[n].subject for n in range(len(labelled))} == {"S1", "S6"}
    assert {unlabelled[n].subject for n in range(len(unlabelled))} == {"S5"}
    assert unlabelled[0].pose is None and not unlabelled.labelled
    with fails(ArgumentError, "batch is 'mixed' and unlabelled None"):
        of_files(files, unlabelled=None).setup()
    for batch in ("labelled", "all"):
        assert len(of_files(files, unlabelled=None, batch=batch).train_dataset) == 12


def test_people_to_score_from_a_file_of_their_own(files, motion):
    data = of_files(files, val_data=str(files / "h36m" / "train.npz"))
    assert len(data.train_dataset.people[0]) == 16 and len(data.val_dataset) == 16
    data = of_files(files, val_data=str(files / "h36m" / "train.npz"), val_subjects=["S6"])
    assert len(data.train_dataset.people[0]) == 12 and len(data.val_dataset) == 4
    data = ImagesDataModule(val_data=str(files / "h36m" / "train.npz"), motion=motion, batch_size=2, **SMALL)
    assert len(data.train_dataset.people[0]) == 8 and len(data.val_dataset) == 5
    assert data.val_dataset.people[0].source == str(files / "h36m" / "train.npz")
    with fails(ArgumentError, "val_subjects has 'S2', expected subjects of"):
        of_files(files, val_data=str(files / "h36m" / "train.npz"), val_subjects=["S2"]).setup()
    with fails(DataError, "val_data is", "which has no 3D poses"):
        of_files(files, val_data=str(files / "mpii" / "train.json")).setup()


def test_files_that_cannot_be_split(files, tmp_path):
    with fails(DataError, "data is", "which has no 3D poses, expected people with 2D and 3D joints"):
        of_files(files, data=str(files / "mpii" / "train.json")).setup()
    with fails(DataError, "unlabelled is", "which has no annotated joints"):
        of_files(files, unlabelled=str(files / "mpii" / "images")).setup()
    with fails(ArgumentError, "val_subjects has 'S7'"):
        of_files(files, val_subjects=["S7"]).setup()
    with fails(DataError, "the training split of", "is empty"):
        of_files(files, val_subjects=["S1", "S5", "S6", "S9"]).setup()
    for number in range(3):
        write(tmp_path / f"{number}.jpg")
    arrays = spin_arrays(3) | {"imgname": np.array([f"{n}.jpg" for n in range(3)])}
    np.savez(tmp_path / "a.npz", **arrays)
    with fails(DataError, "tell no subjects", "expected val_data"):
        of_files(files, data=str(tmp_path / "a.npz")).setup()
    data = of_files(files, data=str(tmp_path / "a.npz"), val_data=str(files / "h36m" / "train.npz"))
    assert len(data.train_dataset.people[0]) == 3
    (tmp_path / "1.jpg").unlink()
    with fails(DataError, "1 of 3 images", "set missing to 'skip'"):
        of_files(files, data=str(tmp_path / "a.npz"), val_data=str(files / "h36m" / "train.npz")).setup()
    with pytest.warns(UserWarning, match="1 of 3 images"):
        data = of_files(files, data=str(tmp_path / "a.npz"), val_data=str(files / "h36m" / "train.npz"), missing="skip")
        assert len(data.train_dataset.people[0]) == 2
    with fails(MissingFileError, "does not exist"):
        of_files(files, data=str(tmp_path / "none.npz")).setup()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch": "some"}, "batch is 'some', expected one of 'mixed', 'labelled', 'all'."),
        ({"batch_size": 5}, "batch_size is 5, expected an even number"),
        ({"batch_size": 0, "batch": "all"}, "batch_size is 0, expected at least 1."),
        ({"input_size": 4}, "input_size is 4, expected at least 8."),
        ({"num_workers": -1}, "num_workers is -1, expected at least 0."),
        ({"seed": -1}, "seed is -1, expected at least 0."),
        ({"count": 0}, "count is 0, expected at least 1."),
        ({"val_count": 0}, "val_count is 0, expected at least 1."),
        ({"missing": "no"}, "missing is 'no', expected one of 'error', 'skip'."),
        ({"check": "no"}, "check is 'no', expected one of 'files', 'decode', 'none'."),
        ({"images": "x"}, "images is 'x', expected it with data."),
        ({"unlabelled_images": "x"}, "unlabelled_images is 'x', expected it with unlabelled."),
        ({"val_images": "x"}, "val_images is 'x', expected it with val_data."),
        ({"format": "mpii"}, "format is 'mpii', expected it with data."),
        ({"joints": "spin"}, "joints is 'spin', expected it with data."),
        ({"data": "x", "motion": "y"}, "motion is 'y', expected it with rendered people, but data is given."),
        ({"keep_megabytes": -1.0}, "keep_megabytes is -1.0, expected a number of at least 0."),
        ({"augment_scale": -1}, "scale is -1, expected a number from 0 to 1."),
        ({"augment_gain": 2.0}, "gain is 2.0, expected a number above 0 and up to 1."),
    ],
)
def test_bad_arguments(options, message):
    with fails(ArgumentError, message):
        ImagesDataModule(**options)


def test_arguments_are_kept_for_checkpoints(files):
    data = of_files(files, data=files / "h36m" / "train.npz")
    assert data.hparams["data"] == str(files / "h36m" / "train.npz") and data.hparams["batch"] == "mixed"
    assert data.hparams["images"] is None and data.hparams["augment_rotation"] == 30.0
    assert isinstance(data.train_dataset.people[0].people, ImagePeople)


# Batches ------------------------------------------------------------------------------------------------------------


def place(data, world=1, rank=0):
    data.trainer = SimpleNamespace(world_size=world, global_rank=rank, is_global_zero=rank == 0)
    return data


def test_what_batches_are_made_of(files):
    everyone = of_files(files, batch="all", batch_size=5)
    found = list(everyone.train_dataloader())
    assert [len(batch["index"]) for batch in found] == [5, 5, 5, 5, 2]
    assert sorted(torch.cat([batch["index"] for batch in found]).tolist()) == list(range(22))
    assert sum(int(batch["has_depth"].sum()) for batch in found) == 12
    labelled = of_files(files, batch="labelled", batch_size=11)
    found = list(labelled.train_dataloader())
    assert [len(batch["index"]) for batch in found] == [11] and found[0]["has_depth"].all()  # the last would be alone
    mixed = of_files(files, batch_size=4)
    assert len(list(mixed.train_dataloader())) == len(mixed.train_dataloader()) == 6
    for rank in range(2):
        found = list(place(of_files(files, batch_size=4), 2, rank).train_dataloader())
        assert len(found) == 3 and all(batch["has_depth"].tolist() == [True, True, False, False] for batch in found)
    shares = [place(of_files(files, eval_batch_size=3), 2, rank).val_dataloader() for rank in range(2)]
    assert sorted(int(i) for share in shares for batch in share for i in batch["index"]) == [0, 1, 2, 3]


def test_batches_of_another_kind_of_the_same_people(files):
    mixed = of_files(files, batch_size=4)
    found = mixed.with_batch("labelled")
    assert found.batch == "labelled" and mixed.batch == "mixed" and found.trainer is None
    assert found.train_dataset.people[0] is mixed.train_dataset.people[0] and len(found.train_dataset.people) == 1
    assert next(iter(found.train_dataloader()))["has_depth"].all()
    with fails(ArgumentError, "batch is 'some', expected one of"):
        mixed.with_batch("some")
    with fails(ArgumentError, "batch_size is 5, expected an even number"):
        of_files(files, batch="all", batch_size=5).with_batch("mixed")


def test_what_is_changed_at_random(files):
    plain, changed = of_files(files, augment=False).train_dataset, of_files(files).train_dataset
    both = of_files(files, augment_labelled=True, augment_flip=1.0).train_dataset
    assert torch.equal(plain[(0, 3)]["image"], changed[(0, 3)]["image"])
    assert not torch.equal(plain[(0, 15)]["image"], changed[(0, 15)]["image"])
    assert np.linalg.det(both[(0, 3)]["affine"][:, :2]) < 0
    assert not torch.equal(both[(0, 3)]["pose"], plain[(0, 3)]["pose"])
    scored = of_files(files, augment_labelled=True).val_dataset
    assert torch.equal(scored[0]["image"], of_files(files).val_dataset[0]["image"])


# Resuming -----------------------------------------------------------------------------------------------------------


class Mean(L.LightningModule):
    """A network of a few weights, that notes what it is shown."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3 * 32 * 32, 16)
        self.shown = []

    def training_step(self, batch, batch_idx):
        self.shown.append((self.current_epoch, batch["index"].tolist(), float(batch["image"].double().sum())))
        return (self.net(batch["image"].flatten(1)) - batch["depth"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(data, folder, epochs=3, callbacks=(), start=None):
    torch.manual_seed(0)
    module = Mean()
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=list(callbacks), enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, limit_val_batches=0, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=start)
    return module


@pytest.mark.parametrize("batch, stop", [("mixed", 8), ("mixed", 12), ("all", 7)])
def test_a_run_resumes_in_the_middle_of_an_epoch(batch, stop, files, tmp_path):
    """Started again after some steps: the same samples, changed alike, and the same weights to the bit."""
    options = {"batch": batch, "batch_size": 4, "seed": 3}
    path = tmp_path / "last.ckpt"
    whole = fit(of_files(files, **options), tmp_path, callbacks=[Saves(stop, path)])
    assert len(whole.shown) == 18
    assert torch.load(path, weights_only=True)["datamodule_hyper_parameters"]["batch"] == batch
    second = fit(of_files(files, **options), tmp_path, start=path)
    assert second.shown == whole.shown[stop:]
    for name, weights in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], weights), name
    epochs = [[shown for epoch, *shown in whole.shown if epoch == number] for number in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_is_the_same_with_loading_processes(files, tmp_path):
    shown = [fit(of_files(files, num_workers=workers, seed=2), tmp_path, epochs=2).shown for workers in (0, 2)]
    assert shown[0] == shown[1] and len(shown[0]) == 12


def test_how_people_are_rendered():
    data = ImagesDataModule(
        input_size=32, count=12, val_count=4, rendered={"facing": 80.0, "truncated": 0.0}, progress=False
    )
    joints = np.stack([data.train_dataset.person(i).joints for i in range(12)])
    assert (joints[:, 2, 0] < joints[:, 3, 0]).all()  # hips: the right one is on the left of the image
    with pytest.raises(ArgumentError, match=r"rendered has 'light', expected some of facing, occluders, truncated"):
        ImagesDataModule(rendered={"light": 1.0})

"""`structloss plot`: figures of losses and of poses: surface, validity, sensitivity, poses."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, DataError, StructlossError, needs_extra
from ..files import check_apart
from ..text import visible
from ._imports import import_torchmetrics
from ._parser import command, options, positive

if TYPE_CHECKING:
    import numpy as np

    from ._pose_files import PoseSequence

__all__ = ["add", "plot_poses", "plot_sensitivity", "plot_surface", "plot_validity"]

ORDER = 65


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "plot",
        "draw loss surfaces, the structural validity of poses, what a refiner attends to, or poses",
        "  structloss plot surface                               where an elbow may be, by four losses\n"
        "  structloss plot validity before.npz after.npz         symmetry, bone-length spread, illegal angles\n"
        "  structloss plot sensitivity tpnet.ckpt predictions.npz\n"
        "  structloss plot poses poses/clip.npz --count 6\n",
    )
    parser.set_defaults(run=lambda _: parser.print_help())
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    _add_surface(actions)
    _add_validity(actions)
    _add_sensitivity(actions)
    _add_poses(actions)


def _add_surface(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "surface",
        "four losses of one elbow or knee over places in x and depth, with one colour scale and three marked poses",
        "  structloss plot surface\n"
        "  structloss plot surface --pose poses/clip.npz --frame 40 --joint right_knee --out knee.png\n"
        "  structloss plot surface --range 0.5 --grid 61 --numbers surface.csv\n",
    )
    parser.add_argument("--pose", metavar="FILE", help="whose pose: predictions, a data set or an array (an example)")
    parser.add_argument("--sequence", metavar="NAME", help="which of its sequences, by name or number (the first)")
    parser.add_argument("--frame", type=int, default=0, metavar="N", help="frame of the pose (default: 0)")
    parser.add_argument("--joint", default="left_elbow", help="an elbow or knee, by name or number (left_elbow)")
    parser.add_argument(
        "--range", type=float, default=0.3, metavar="METRES", dest="reach", help="to both sides (default: 0.3)"
    )
    parser.add_argument("--grid", type=int, default=121, metavar="N", help="places along x and depth (default: 121)")
    parser.add_argument("--numbers", metavar="FILE", help="write the surfaces to this .npz or .csv, too")
    _add_out(parser, "surface.png")
    parser.set_defaults(run=partial(_run, plot_surface))


def _add_validity(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "validity",
        "symmetry and spread of bone lengths by limb, and illegal angles, of poses: a table and a chart",
        "  structloss plot validity predictions.npz\n"
        "  structloss plot validity raw.npz refined.npz --name raw TP-Net --out refined.png\n"
        "  structloss plot validity motion.npz h36m.poses --csv validity.csv\n",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="predictions, data sets or arrays of poses")
    parser.add_argument("--name", nargs="+", metavar="NAME", dest="names", help="what to call them, in their order")
    parser.add_argument("--truth", action="store_true", help="add the true poses that predictions hold")
    parser.add_argument("--keypoints", metavar="NAME", help="2D file of a Human3.6M npz, which holds the poses, too")
    parser.add_argument("--csv", metavar="FILE.csv", help="write the numbers to this file, too")
    _add_out(parser, "validity.png")
    parser.set_defaults(run=partial(_run, plot_validity))


def _add_sensitivity(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "sensitivity",
        "by how much a refiner's answer moves when one joint of one frame does: curves over frames, two matrices",
        "  structloss plot sensitivity tpnet.ckpt predictions.npz\n"
        "  structloss plot sensitivity tpnet.ckpt motion.npz --poses 200 --draws 16 --numbers sensitivity.npz\n",
    )
    parser.add_argument("checkpoint", metavar="FILE.ckpt", help="checkpoint of structloss fit --config tpnet")
    parser.add_argument("file", metavar="FILE", help="poses that it is to see: predictions, a data set or an array")
    parser.add_argument("--poses", type=positive, default=1000, metavar="N", help="windows of them (default: 1000)")
    parser.add_argument("--draws", type=positive, default=64, metavar="N", help="of noise, for each (default: 64)")
    parser.add_argument("--sigma", type=float, default=10.0, metavar="MM", help="of the noise (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--numbers", metavar="FILE.npz", help="write the matrices to this file, too")
    _add_out(parser, "sensitivity.png")
    parser.set_defaults(run=partial(_run, plot_sensitivity))


def _add_poses(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "poses",
        "frames of predictions or of a data set: the 2D input, from the camera and from the side",
        "  structloss plot poses poses/clip.npz\n"
        "  structloss plot poses predictions.npz --sequence 3 --frames 0 40 80\n"
        "  structloss plot poses motion.npz --sequence cmu35/01 --count 8\n",
    )
    parser.add_argument("file", metavar="FILE", help="predictions, a data set or an array of poses")
    parser.add_argument("--sequence", metavar="NAME", help="which of its sequences, by name or number (the first)")
    parser.add_argument("--frames", nargs="+", type=int, metavar="N", help="numbers of frames (evenly spaced ones)")
    parser.add_argument("--count", type=positive, default=5, metavar="N", help="how many, else (default: 5)")
    _add_out(parser, "poses.png")
    parser.set_defaults(run=partial(_run, plot_poses))


def _run(draw: Callable[..., Path], arguments: argparse.Namespace) -> None:
    draw(**options(arguments))


def _add_out(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", default=name, metavar="FILE.png", help=f"picture to write (default: {name})")


def plot_surface(
    *,
    pose: str | None = None,
    sequence: str | None = None,
    frame: int = 0,
    joint: str = "left_elbow",
    reach: float = 0.3,
    grid: int = 121,
    numbers: str | None = None,
    out: str = "surface.png",
) -> Path:
    """Draw Figure 4 of Dabral et al.; see :func:`structloss.reports.surface.loss_surfaces`. Returns the picture.

    Args:
        pose: file with the pose; None is :data:`structloss.reports.surface.EXAMPLE_POSE`.
        sequence, frame: which pose of it.
        joint: name or number of an elbow or knee.
        reach: metres to both sides.
        grid: places along x, and along depth.
        numbers: .npz or .csv to write the surfaces to.
        out: PNG file to write.

    Raises:
        ArgumentError: an impossible argument.
        MissingFileError, DataError: a file is missing or damaged, or can't be written.
        MissingDependencyError: the `harness` extra is not installed.
    """
    path = _picture(out)
    _ending("numbers", numbers, ".npz", ".csv")
    check_apart(numbers, pose=pose)
    with needs_extra("harness"):
        from ..reports.surface import loss_surfaces, plot_surfaces

    given: dict[str, Any] = {}
    if pose is not None:
        one = _chosen(pose, sequence)
        if not -len(one.poses) <= frame < len(one.poses):
            raise ArgumentError(f"frame is {frame}, expected 0 to {len(one.poses) - 1}, those of {one.name}.")
        given = {"pose": one.poses[frame], "skeleton": one.skeleton}
    elif sequence is not None or frame:
        name, value = ("sequence", repr(sequence)) if sequence is not None else ("frame", str(frame))
        raise ArgumentError(f"{name} is {value}, expected it with a file of poses; set pose.")
    surfaces = loss_surfaces(**given, joint=joint, reach=reach, grid=grid)
    with _writable():
        written = [plot_surfaces(surfaces, path)]
        if numbers is not None:
            written.append(surfaces.save(numbers))
    for number in sorted(surfaces.marks):
        values = surfaces.at(number)
        text = ", ".join(f"({letter}) {value:.4f}" for letter, value in zip("abcd", values.values(), strict=True))
        print(f"{number} {surfaces.marks[number].name}: {text}")
    _say(written)
    return path


def plot_validity(
    files: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    truth: bool = False,
    keypoints: str | None = None,
    csv: str | None = None,
    out: str = "validity.png",
) -> Path:
    """Draw Table 6 of Dabral et al., and print it; see :func:`structloss.reports.validity.validity`.

    Args:
        files: what to measure.
        names: what to call them; None takes their names.
        truth: measure the true poses that predictions hold, too.
        keypoints: of Human3.6M's npz, see :func:`structloss.data.opening.open_data`.
        csv: file to write the numbers to.
        out: PNG file to write.

    Returns:
        The picture.

    Raises:
        ArgumentError: an impossible argument, or `truth` where no file holds any.
        MissingFileError, DataError: a file is missing or damaged, or can't be written.
        MissingDependencyError: the `harness` extra is not installed.
    """
    path = _picture(out)
    _ending("csv", csv, ".csv")
    for file in files:
        check_apart(csv, input=file)
    if names is not None and len(names) != len(files):
        raise ArgumentError(f"names is {list(names)}, expected {len(files)}, one per file.")
    with needs_extra("harness"):
        import_torchmetrics()
        from ..reports.validity import plot_validity, validity, validity_csv, validity_table
    from ..progress import track
    from ._pose_files import read_pose_sequences

    called = [visible(name) for name in names or _short_names(files)]
    found, true = [], None
    for file, name in track(list(zip(files, called, strict=True)), "Poses", len(files) > 1):
        sequences = read_pose_sequences(file, keypoints=keypoints)
        body, weights = sequences[0].skeleton, [one.weight for one in sequences]
        found.append(validity(name, [one.poses for one in sequences], skeleton=body, weights=weights))
        beside = [one.true for one in sequences if one.true is not None]
        if truth and true is None and beside:
            true = validity("true poses", beside, skeleton=body)
    if truth:
        if true is None:
            raise ArgumentError(f"truth is set, expected predictions of structloss predict --split beside {files[0]}.")
        found.append(true)
    print(validity_table(found))
    with _writable():
        written = [plot_validity(found, path)]
        if csv is not None:
            written.append(validity_csv(found, csv))
    _say(written)
    return path


def plot_sensitivity(
    checkpoint: str,
    file: str,
    *,
    poses: int = 1000,
    draws: int = 64,
    sigma: float = 10.0,
    seed: int = 0,
    numbers: str | None = None,
    out: str = "sensitivity.png",
) -> Path:
    """Draw Figure 5 of Dabral et al.; see :func:`structloss.refine.sensitivity_matrices`. Returns the picture.

    Args:
        checkpoint: of a refiner.
        file: poses that it is to see, of its skeleton.
        poses: how many windows of them, evenly spaced.
        draws: of noise, for each joint of each frame of each window.
        sigma: standard deviation of the noise, mm.
        seed: of the noise.
        numbers: .npz to write the matrices to.
        out: PNG file to write.

    Raises:
        ArgumentError: an impossible argument, or poses of another skeleton.
        MissingFileError, CheckpointError, DataError: a file is missing or damaged, or can't be written.
        MissingDependencyError: the `harness` extra is not installed.
    """
    path = _picture(out)
    _ending("numbers", numbers, ".npz")
    check_apart(numbers, input=file, checkpoint=checkpoint)
    if not 0 < sigma < float("inf"):
        raise ArgumentError(f"sigma is {sigma}, expected millimetres above 0.")
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.refining import load_refiner
    from ..refine import sensitivity_matrices
    from ..reports import sensitivity as figure
    from ._pose_files import read_pose_sequences

    refiner = load_refiner(checkpoint)
    windows, past = _windows(refiner, read_pose_sequences(file), file, poses)
    found = sensitivity_matrices(
        refiner.model, windows, past=past, sigma=sigma / 1000, draws=draws, seed=seed, progress=True
    )
    title = visible(f"{refiner.name}, {Path(checkpoint).name}: {found.poses} poses, noise of {sigma:g} mm")
    with _writable():
        drawn = figure.plot_sensitivity(found.matrices, found.offsets, path, skeleton=refiner.skeleton, title=title)
        written = [drawn]
        if numbers is not None:
            written.append(figure.save_sensitivity(found.matrices, found.offsets, numbers))
    _say(written)
    return path


def _windows(refiner: Any, sequences: Sequence[PoseSequence], file: str, count: int) -> tuple[Any, int]:
    """Windows `[P, N, J, 3]` that a refiner is to see, evenly spaced over the sequences, and the frames before the one
    that is refined."""
    import numpy as np
    import torch

    from .. import skeletons
    from ..refine import PredictedClip, PredictionWindows

    past, future = (20 - 1 if refiner.model.past is None else refiner.model.past), refiner.model.future or 0
    if sequences[0].skeleton != refiner.skeleton:
        raise ArgumentError(
            f"file is {file!r} with the joints of {sequences[0].skeleton!r}, expected {refiner.skeleton!r}, those of "
            "the checkpoint."
        )
    pelvis = list(skeletons.get(refiner.skeleton).pelvis)
    clips = []
    for one in sequences:
        relative = (one.poses - one.poses[:, pelvis].mean(axis=1, keepdims=True)).astype(np.float32)
        clips.append(PredictedClip(relative, relative, fps=one.fps))
    step = refiner.frame_step(sequences[0].fps)
    made = PredictionWindows(clips, past=past, future=future, frame_step=step, skeleton=refiner.skeleton)
    chosen = np.unique(np.linspace(0, len(made) - 1, min(count, len(made))).round().astype(int))
    windows = torch.stack([made[int(index)]["input"] for index in chosen])
    return windows, past


def plot_poses(
    file: str,
    *,
    sequence: str | None = None,
    frames: Sequence[int] | None = None,
    count: int = 5,
    out: str = "poses.png",
) -> Path:
    """Draw frames of a sequence of poses, beside the truth where the file has it. Returns the picture.

    Args:
        file: predictions, a data set or an array of poses.
        sequence: which one, by its name or number; None is the first.
        frames: numbers of the frames; None takes `count` evenly spaced ones.
        count: see `frames`.
        out: PNG file to write.

    Raises:
        ArgumentError: a sequence or frame that there is none of, or more than 24 frames.
        MissingFileError, DataError: the file is missing or damaged, or the picture can't be written.
        MissingDependencyError: the `harness` extra is not installed.
    """
    import numpy as np

    path = _picture(out)
    one = _chosen(file, sequence)
    total = len(one.poses)
    where = sorted({*np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()})
    if frames is not None:
        where = list(frames)
        for number in where:
            if not 0 <= number < total:
                raise ArgumentError(f"frames has [{number}], expected 0 to {total - 1}, those of {one.name}.")
    if len(where) > 24:
        given = f"frames is {list(frames)}" if frames is not None else f"count is {count}"
        raise ArgumentError(f"{given}, expected at most 24.")
    with needs_extra("harness"):
        from ..reports.pose_frames import plot_pose_frames

    labels = [f"frame {number}" for number in where]
    if one.fps > 0:
        labels = [f"frame {number}, {number / one.fps:.2f} s" for number in where]
    with _writable():
        if one.true is not None:
            written = _beside_truth(one, where, labels, path)
        else:
            seen = None if one.keypoints is None else one.keypoints[where]
            shown: dict[str, Any] = {"skeleton": one.skeleton, "keypoints": seen, "title": visible(one.name)}
            written = plot_pose_frames(1000 * one.poses[where], labels, path, **shown)
    _say([written])
    return path


def _beside_truth(one: PoseSequence, where: Sequence[int], labels: Sequence[str], path: Path) -> Path:
    """Predicted poses over true ones."""
    from .. import skeletons
    from ..reports.pose_frames import plot_pose_frames

    assert one.true is not None
    pelvis = list(skeletons.get(one.skeleton).pelvis)

    def relative(poses: np.ndarray) -> np.ndarray:
        chosen = 1000 * poses[list(where)]
        return chosen - chosen[:, pelvis].mean(axis=1, keepdims=True)

    shown: dict[str, Any] = {"skeleton": one.skeleton, "title": visible(one.name), "true": relative(one.true)}
    return plot_pose_frames(relative(one.poses), labels, path, **shown)


# ---- what the actions share --------------------------------------------------------------------------------------


def _chosen(file: str, sequence: str | None) -> PoseSequence:
    from ._pose_files import chosen_sequence, read_pose_sequences

    return chosen_sequence(read_pose_sequences(file), file, sequence)


def _picture(out: str) -> Path:
    _ending("out", out, ".png")
    path = Path(out)
    if not path.absolute().parent.is_dir():
        raise ArgumentError(f"out is {out!r}, expected a name in a folder that there is.")
    return path


def _ending(argument: str, name: str | None, *endings: str) -> None:
    if name is not None and Path(name).suffix.lower() not in endings:
        raise ArgumentError(f"{argument} is {name!r}, expected a name that ends in {' or '.join(endings)}.")


@contextmanager
def _writable() -> Iterator[None]:
    """Around writing: what the disk refuses, in one sentence."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StructlossError) or error.filename is None:
            raise
        raise DataError(f"{error.filename} can't be written: {error.strerror or error}.") from error


def _say(written: Sequence[Path]) -> None:
    for path in written:
        print(f"wrote {visible(path)}", flush=True)


def _short_names(files: Sequence[str]) -> list[str]:
    """Names of files without their endings; of those that are called the same, with their folders."""
    short = [Path(file).stem for file in files]
    return [name if short.count(name) == 1 else str(Path(file)) for name, file in zip(short, files, strict=True)]

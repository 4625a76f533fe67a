"""`structloss data`: inspect, convert, frames, synthetic, formats."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..text import visible
from ._parser import command, flags_of, options, positive, with_flags

if TYPE_CHECKING:
    from ..data.conversion import Written

__all__ = ["add", "convert", "formats", "frames", "inspect", "synthetic"]

ORDER = 70


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "data",
        "inspect a data set, convert it to a pose store that opens at once, or make a synthetic one",
        "  structloss data inspect data_3d_h36m.npz --keypoints gt\n"
        "  structloss data convert data_3d_h36m.npz h36m.poses --keypoints cpn_ft_h36m_dbb\n"
        "  structloss data convert 16_02.amc motion.npz\n"
        "  structloss data frames videos/ frames/ --boxes boxes/\n"
        "  structloss data synthetic people.npz --subjects 8\n"
        "  structloss data formats\n",
    )
    parser.set_defaults(run=lambda _: parser.print_help())
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    _add_inspect(actions)
    _add_convert(actions)
    _add_frames(actions)
    _add_synthetic(actions)
    _add_formats(actions)


def _add_inspect(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "inspect",
        "print what a file or folder holds, and what looks wrong with it",
        "  structloss data inspect sample:dance\n"
        "  structloss data inspect h36m_sh_conf_cam_source_final.pkl\n"
        "  structloss data inspect mpi_inf_3dhp/ --json\n"
        "  structloss data inspect person_keypoints_val2017.json --images val2017\n"
        "  structloss data inspect walk.bvh --scale 0.01 --up z\n",
        late=_add_all_options,
    )
    parser.add_argument("path", help="file or folder, see structloss data formats")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON, with every bone's length")
    _add_format(parser)
    parser.set_defaults(run=lambda arguments: inspect(**options(arguments), flags=flags_of(parser)))


def _add_convert(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "convert",
        "write a data set of any format as a pose store (OUT.poses) or, motion capture, as a clip archive (OUT.npz)",
        "  structloss data convert data_3d_h36m.npz h36m-cpn.poses --keypoints cpn_ft_h36m_dbb\n"
        "  structloss data convert h36m_sh_conf_cam_source_final.pkl h36m-sh.poses\n"
        "  structloss data convert MB3D_f243s81/H36M-SH clips.poses --reference h36m_sh_conf_cam_source_final.pkl\n"
        "  structloss data convert mpi_inf_3dhp/ 3dhp.poses\n"
        "  structloss data convert cmu/16_02.amc jump.npz --fps 50\n"
        "  structloss data convert recordings/ seen.poses --joints map.yaml --views 2 --detections exact\n"
        "  structloss data convert downloads/ all.npz --format bvh --skip-bad --jobs 4\n",
        late=_add_format_options,
    )
    parser.add_argument("path", help="file or folder, see structloss data formats")
    parser.add_argument("out", help="what to write: a name that ends in .poses or .npz")
    _add_format(parser)
    parser.add_argument(
        "--fps", type=float, help="frames per second to resample clips to (default: 50 for motion capture)"
    )
    _add_observing(parser)
    parser.add_argument("--seed", type=int, help="of simulated detections (default: 0)")
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="read and write by N processes; a conversion that was killed goes on where it was, by the same command",
    )
    parser.add_argument(
        "--shard-frames",
        type=positive,
        metavar="N",
        help="frames of a shard at most, in a pose store of more (default: 4000000)",
    )
    parser.set_defaults(run=lambda arguments: convert(**options(arguments), flags=flags_of(parser)))


def _add_frames(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "frames",
        "write videos as folders of cropped frames, each of one person before one background, for shape templates",
        "  structloss data frames h36m/ frames/ --boxes boxes/\n"
        "  structloss data frames walk.mp4 frames/ --boxes walk.csv --size 128\n",
    )
    parser.add_argument("path", help="a video, or a folder of videos such as those of Human3.6M")
    parser.add_argument("out", help="folder to write; started again, it goes on where it stopped")
    parser.add_argument(
        "--boxes",
        metavar="PATH",
        help="npz, JSON or CSV of the person's box in every frame, or a folder with such a file for each video "
        "(default: NAME.boxes.npz, .json or .csv beside NAME.mp4, else whole frames)",
    )
    parser.add_argument("--size", type=positive, default=256, help="width and height of frames, pixels (default: 256)")
    parser.add_argument("--step", type=positive, default=1, help="take every n-th frame (default: 1)")
    parser.set_defaults(run=lambda arguments: frames(**options(arguments)))


def _add_synthetic(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "synthetic",
        "make motion of people of several sizes who walk, reach, squat, turn, sit down and move at random",
        "  structloss data synthetic people.npz\n"
        "  structloss data synthetic people.poses --subjects 8 --clips 4 --frames 300 --seed 1\n",
    )
    parser.add_argument("out", help="what to write: a name that ends in .npz (clips) or .poses (seen by cameras)")
    parser.add_argument("--subjects", type=positive, default=24, help="people (default: 24)")
    parser.add_argument("--clips", type=positive, default=6, help="clips of each person (default: 6)")
    parser.add_argument("--frames", type=positive, default=500, help="frames per clip, 50 per second (default: 500)")
    _add_observing(parser)
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    parser.set_defaults(run=lambda arguments: synthetic(**options(arguments)))


def _add_formats(actions: argparse._SubParsersAction) -> None:
    parser = command(
        actions,
        "formats",
        "list the data formats, how each is told from its files, and its options",
        "  structloss data formats\n",
    )
    parser.set_defaults(run=lambda _: formats())


def _add_format_options(parser: argparse.ArgumentParser) -> None:
    """The options of all formats, those that the same formats take in one group."""
    from ..data.formats.registry import FORMATS

    groups: dict[tuple[str, ...], Any] = {}
    for option in {option.name: option for entry in FORMATS.values() for option in entry.options}.values():
        takers = tuple(name for name, entry in FORMATS.items() if entry.takes(option.name))
        if takers not in groups:
            groups[takers] = parser.add_argument_group(f"options of the format{'s' * (len(takers) > 1)} {_row(takers)}")
        if option.type is bool:
            groups[takers].add_argument(_flag(option.name), action="store_true", default=None, help=option.says)
        else:
            groups[takers].add_argument(
                _flag(option.name), metavar=option.metavar, type=option.type, choices=option.choices, help=option.says
            )


def _add_all_options(parser: argparse.ArgumentParser) -> None:
    """The options of all formats, those of images, too."""
    from ..data.formats.registry import FORMATS
    from ..images.source import SOURCES

    _add_format_options(parser)
    taken = {option.name for entry in FORMATS.values() for option in entry.options}
    group = parser.add_argument_group("options of images and their annotations")
    for option in {option.name: option for entry in SOURCES.values() for option in entry.options}.values():
        if option.name in taken:  # one flag for both, as --joints
            group.description = f"also {_flag(option.name)}: {option.says}"
        elif option.type is bool:
            flag = {"action": argparse.BooleanOptionalAction, "default": None}
            group.add_argument(_flag(option.name), help=option.says, **flag)  # type: ignore[arg-type]
        else:
            group.add_argument(_flag(option.name), metavar=option.metavar, choices=option.choices, help=option.says)


def _add_format(parser: argparse.ArgumentParser) -> None:
    says = "name of the format, where a folder has files of several, see structloss data formats"
    parser.add_argument("--format", metavar="NAME", help=says)


def _add_observing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--views", type=positive, help="cameras that see each clip, 1 to 4 (default: 4)")
    parser.add_argument(
        "--detections", help="2D keypoints: simulated, exact, coco, noise:PIXELS or dropped:SHARE (default: simulated)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what was written there before")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _row(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def inspect(path: str, *, as_json: bool = False, flags: Mapping[str, str] | None = None, **settings: Any) -> None:
    """Print what a data set holds and what looks wrong with it.

    Args:
        path: file or folder.
        as_json: print JSON.
        flags: argument -> flag, for notes that name arguments.
        settings: see :func:`~structloss.data.opening.open_data`, and for images
            :func:`~structloss.images.opening.open_images`.
    """
    import json

    report = _inspected(path, {name: value for name, value in settings.items() if value is not None})
    report.notes = [with_flags(note, flags or {}, argument=False) for note in report.notes]
    print(json.dumps(report.to_dict(), indent=2, allow_nan=False) if as_json else report)


def _inspected(path: str, settings: Mapping[str, Any]) -> Any:
    """The report on motion, or on images where the path is of no format of motion."""
    from ..data.formats.registry import FORMATS
    from ..images.source import SOURCES

    known = {option.name for entry in SOURCES.values() for option in entry.options}
    of_motion = {option.name for entry in FORMATS.values() for option in entry.options}
    apart = known - of_motion
    if _is_of_images(path, settings.get("format")):
        from ..images.inspection import inspect_images

        _refuse(path, [name for name in settings if name not in {*known, "format"}], FORMATS)
        return inspect_images(path, progress=True, **settings)
    from ..data.inspection import inspect_data

    if given := [name for name in settings if name in apart]:
        if settings.get("format") is None:
            _of_some_format(path)
        _refuse(path, given, SOURCES)
    return inspect_data(path, progress=True, **settings)


def _is_of_images(path: str, name: str | None) -> bool:
    """Whether a path holds images or annotations of them rather than motion."""
    from ..data.formats.detect import recognise
    from ..errors import DataError
    from ..images.opening import recognise_images
    from ..images.source import SOURCES

    if name is not None:
        return name in SOURCES
    try:
        recognise(path)
    except DataError:
        try:
            recognise_images(path)
        except DataError:
            return False  # what is wrong is said of motion
        return True
    return False


def _of_some_format(path: str) -> None:
    """Raise, as for images, where a path holds neither motion nor images: options of images are not what is wrong."""
    from ..data.formats.detect import recognise
    from ..errors import DataError
    from ..images.opening import recognise_images

    try:
        recognise(path)
    except DataError:
        recognise_images(path)


def _refuse(path: str, names: Sequence[str], formats: Mapping[str, Any]) -> None:
    """Raise for options that are those of other formats."""
    from ..errors import ArgumentError

    for name in names:
        takers = ", ".join(entry.name for entry in formats.values() if entry.takes(name))
        raise ArgumentError(f"{name} is given for {path}, expected it with {takers} only.")


def convert(path: str, out: str, *, flags: Mapping[str, str] | None = None, **settings: Any) -> None:
    """Convert a data set and print what was written.

    Args:
        path: file or folder.
        out: what to write.
        flags: argument -> flag, for warnings that name arguments.
        settings: see :func:`~structloss.data.conversion.convert_data`.
    """
    from ..data.conversion import convert_data

    with _short_warnings(flags or {}):
        given = {name: value for name, value in settings.items() if name != "shard_frames" or value is not None}
        written = convert_data(path, out, progress=True, **given)
    notes = tuple(with_flags(note, flags or {}, argument=False) for note in written.notes)
    _print(replace(written, notes=notes))


def frames(path: str, out: str, **settings: Any) -> None:
    """Write videos as folders of frames and print what was written; see
    :func:`~structloss.images.frames.writing.write_frames`."""
    from ..data._words import count
    from ..images.frames.writing import write_frames

    written = write_frames(path, out, progress=True, **settings)
    number = f"{count(written.frames, 'frame')} in {count(written.folders, 'folder')}"
    labelled = f", joints of {written.labelled}" if written.labelled else ""
    print(visible(f"wrote {written.path}: {number}{labelled}"))
    if written.skipped:
        print(f"note: {count(written.skipped, 'video')} of other subjects or actions left out")
    if written.anew:
        print(f"note: frames of {count(written.anew, 'video')} written anew, since the video or its boxes changed")
    if written.alone:
        print(f"note: {count(written.alone, 'frame')} without another of the same snapped box left out")


def synthetic(out: str, **settings: Any) -> None:
    """Make motion and print what was written; see :func:`~structloss.data.conversion.write_synthetic`."""
    from ..data.conversion import write_synthetic

    _print(write_synthetic(out, progress=True, **settings))


def formats() -> None:
    """Print all formats with how they are told and what options they take."""
    from ..data.formats.registry import FORMATS
    from ..images.source import SOURCES

    entries: list[Any] = [*FORMATS.values(), *SOURCES.values()]
    for entry in entries:
        print(f"{entry.name:13} {entry.says}")
        shown = {
            "files": [f"*{suffix}" for suffix in entry.suffixes],
            "arrays": entry.arrays,
            "in a folder": entry.folder,
            "options": [_flag(option.name) for option in entry.options],
        }
        for what, values in shown.items():
            if values:
                print(f"{'':13} {what}: {', '.join(values)}")


def _print(written: Written) -> None:
    print(visible(f"wrote {written.path}: {written.content}, {written.size / 1e6:.1f} MB"))
    for note in written.notes:
        print(visible(f"note: {note}"))


@contextmanager
def _short_warnings(flags: Mapping[str, str]) -> Iterator[None]:
    """Warnings on one line each, without the code that they come from, that name flags."""
    import sys
    import warnings

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(" ".join(str(warning.message).split()) for warning in said):
        print(visible(f"structloss: warning: {with_flags(text, flags, argument=False)}"), file=sys.stderr)

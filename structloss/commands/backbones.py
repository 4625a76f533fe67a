"""`structloss backbones`: list, info, convert, export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingFileError, UnknownNameError, check_name
from ..files import check_apart
from ..text import visible, visible_lines
from ._parser import command

if TYPE_CHECKING:
    from ..backbones import BackboneInfo
    from ..images import ImageNetworkInfo

__all__ = ["add"]

ORDER = 80


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "backbones",
        "list backbones and networks from images, describe one, convert weights, or export a network to ONNX",
        "  structloss backbones                         the table of all\n"
        "  structloss backbones info repose-h36m\n"
        "  structloss backbones info shape-template\n"
        "  structloss backbones convert best_epoch.bin repose.safetensors --model repose-h36m\n"
        "  structloss backbones convert runs/mixste-27 mixste.bin --to published     for the authors' code\n"
        "  structloss backbones convert small.pth small.safetensors --model mixste-27 --backbone-args '{depth: 2}'\n"
        "  structloss backbones export lift-27                       weights in the package, as lift-27.onnx\n"
        "  structloss backbones export mixste-27 --ckpt last.ckpt --format torch-export --out mixste.pt2\n",
    )
    parser.set_defaults(run=_list_backbones)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="all backbones, a line each").set_defaults(run=_list_backbones)
    info = actions.add_parser("info", help="everything known about one")
    info.add_argument("name")
    info.set_defaults(run=_backbone_info)
    convert = actions.add_parser("convert", help="read weights of any form safely, write safetensors or published ones")
    convert.add_argument(
        "source", help="published checkpoint (.pth, .bin, .pt, .ckpt), .safetensors, or checkpoint or folder of a run"
    )
    convert.add_argument("out", help="file to write: .safetensors, or any other name with --to published")
    convert.add_argument("--model", dest="name", metavar="NAME", help="backbone, where the source doesn't say which")
    convert.add_argument(
        "--backbone-args", metavar="ARGS", help="arguments of a network of another size, as in '{depth: 2}'"
    )
    convert.add_argument("--to", choices=("safetensors", "published"), help="form of the file (default: safetensors)")
    convert.set_defaults(run=_convert)
    _add_export(actions)


def _add_export(actions: argparse._SubParsersAction) -> None:
    export = actions.add_parser("export", help="write a network as a file that runs without Python: ONNX, or torch's")
    export.add_argument("name", help="backbone, network from images, or a refiner: tpnet, lstm")
    export.add_argument(
        "--ckpt", dest="checkpoint", metavar="FILE",
        help="weights: checkpoint or folder of a run, published ones, .safetensors (default: those in the package)",
    )  # fmt: skip
    export.add_argument("--format", choices=("onnx", "torch-export"), default="onnx", help="default: onnx")
    export.add_argument("--out", dest="path", metavar="FILE", help="default: NAME.onnx or NAME.pt2")
    export.add_argument("--frames", type=int, metavar="N", help="fix their number (default: free where it can be)")
    export.add_argument("--target", metavar="NAME", help="what the network answers in (default: as it was trained)")
    export.add_argument("--backbone-args", metavar="ARGS", help="arguments of a network of another size")
    export.add_argument("--colours", choices=("bgr", "rgb"), help="of published weights of SAP-Net (default: bgr)")
    export.add_argument("--licence", metavar="TEXT", help="of the weights, written into the file")
    export.set_defaults(run=_export)


def _list_backbones(arguments: argparse.Namespace) -> None:
    from .. import backbones, images

    rows = [("name", "T", "joints", "params", "MACs/clip", "MPJPE, mm", "paper")]
    for name in backbones.names():
        info = backbones.info(name)
        frames = "any" if info.kind == "frame" else str(info.frames)
        joints = f"{info.joints_in[0]} -> {info.joints_out}"
        rows.append((name, frames, joints, *_size(info.params, info.macs), info.published_error, info.paper))
    for name in images.names():
        of = images.info(name)
        error = of.published.get("h36m_mpjpe_mm", "")
        joints, paper = f"-> {of.joints}", of.paper or f"ours, after {of.family}"
        rows.append((name, "image", joints, *_size(of.params, of.macs), f"{error}", paper))
    widths = [max(len(row[k]) for row in rows) for k in range(6)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:6], widths, strict=True)), row[6]]))
    print(
        "\nT: frames of a clip or receptive field; image: a network of structloss.images, with MACs of one image."
        "\nMPJPE as published, on Human3.6M unless it says 3DHP or H3WB; 2D input cpn, sh: detected, gt2d: ground"
        "\ntruth. Empty where no published figure was found."
    )


def _backbone_info(arguments: argparse.Namespace) -> None:
    from dataclasses import fields

    info: Any = _info_of(arguments.name)
    for entry in fields(info):
        value = getattr(info, entry.name)
        if hasattr(value, "items"):
            value = ", ".join(f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in value.items())
        elif isinstance(value, tuple):
            value = ", ".join(map(str, value))
        print(f"{entry.name:12} {value}")


def _size(params: int, macs: int) -> tuple[str, str]:
    return f"{params / 1e6:.2f} M", f"{macs / 1e9:.3g} G"


def _info_of(name: str) -> BackboneInfo | ImageNetworkInfo:
    """What is known about a network of either registry.

    Raises:
        UnknownNameError: neither has the name.
    """
    from .. import backbones, images

    if name in images.names():
        return images.info(name)
    try:
        return backbones.info(name)  # or the flagship of a family
    except UnknownNameError:
        check_name("backbone", name, [*backbones.names(), *images.names()])
        raise


def _file_of(source: str) -> Path:
    """A file as it is, and the best checkpoint of a run's folder."""
    path = Path(source)
    if not path.is_dir():
        return path
    from ..harness.run_folder import read_run

    run = read_run(path)
    if run.checkpoint is None:
        raise MissingFileError(f"{run.folder} has no checkpoint yet, expected one to read.")
    return run.checkpoint


def _convert(arguments: argparse.Namespace) -> None:
    from .. import backbones
    from ..reading import parse_yaml

    source, given = _file_of(arguments.source), arguments.backbone_args
    settings = None if given is None else parse_yaml(given, "the mapping of --backbone-args")
    report = backbones.convert(source, arguments.out, arguments.name, backbone_args=settings, to=arguments.to)
    print(visible_lines(report))
    print(visible(f"written to {arguments.out}"))


def _export(arguments: argparse.Namespace) -> None:
    from ..export import FORMATS, export
    from ..harness.trained_network import trained_network
    from ..reading import parse_yaml

    given = arguments.backbone_args
    settings = None if given is None else parse_yaml(given, "the mapping of --backbone-args")
    checkpoint = None if arguments.checkpoint is None else _file_of(arguments.checkpoint)
    found = trained_network(
        arguments.name, checkpoint, backbone_args=settings, target=arguments.target, colours=arguments.colours
    )
    path = f"{found.name}{FORMATS[arguments.format]}" if arguments.path is None else arguments.path
    check_apart(path, checkpoint=checkpoint)
    written = export(
        found.model,
        path,
        found.name,
        format=arguments.format,
        frames=arguments.frames,
        target=found.target,
        skeleton=found.skeleton,
        colours=found.colours,
        licence=arguments.licence or ("Apache-2.0" if found.packaged else "not told"),
        weights=found.source,
        progress=True,
    )
    print(visible_lines(written))
    print(visible(f"written to {written.path}"))

"""`structloss backbones`: list, info, convert."""

from __future__ import annotations

import argparse

from ._parser import command

__all__ = ["add"]

ORDER = 80


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "backbones",
        "list the backbones, describe one, or convert a published checkpoint",
        "  structloss backbones                         the table of all\n"
        "  structloss backbones info repose-h36m\n"
        "  structloss backbones convert best_epoch.bin repose.safetensors --model repose-h36m\n",
    )
    parser.set_defaults(run=_list_backbones)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="all backbones, a line each").set_defaults(run=_list_backbones)
    info = actions.add_parser("info", help="everything known about one")
    info.add_argument("name")
    info.set_defaults(run=_backbone_info)
    convert = actions.add_parser("convert", help="read a published checkpoint safely, write safetensors")
    convert.add_argument("official", help="published checkpoint (.pth, .bin, .pt, .ckpt or .safetensors)")
    convert.add_argument("out", help="file to write (.safetensors)")
    convert.add_argument("--model", required=True, help="name of the backbone")
    convert.set_defaults(run=_convert)


def _list_backbones(arguments: argparse.Namespace) -> None:
    from .. import backbones

    rows = [("name", "T", "joints", "params", "MACs/clip", "MPJPE, mm", "paper")]
    for name in backbones.names():
        info = backbones.info(name)
        frames = "any" if info.kind == "frame" else str(info.frames)
        joints = f"{info.joints_in[0]} -> {info.joints_out}"
        size = f"{info.params / 1e6:.2f} M", f"{info.macs / 1e9:.3g} G"
        rows.append((name, frames, joints, *size, info.published_error, info.paper))
    widths = [max(len(row[k]) for row in rows) for k in range(6)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:6], widths, strict=True)), row[6]]))
    print(
        "\nT: frames of a clip or receptive field. MPJPE as published, on Human3.6M unless it says 3DHP or H3WB;"
        "\n2D input cpn, sh: detected, gt2d: ground truth. Empty where no published figure was found."
    )


def _backbone_info(arguments: argparse.Namespace) -> None:
    from dataclasses import fields

    from .. import backbones

    info = backbones.info(arguments.name)
    for entry in fields(info):
        value = getattr(info, entry.name)
        if hasattr(value, "items"):
            value = ", ".join(f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in value.items())
        elif isinstance(value, tuple):
            value = ", ".join(map(str, value))
        print(f"{entry.name:12} {value}")


def _convert(arguments: argparse.Namespace) -> None:
    from .. import backbones

    print(backbones.convert(arguments.official, arguments.out, arguments.model))

"""The weights that come with the package: a checkpoint made into one of their files, and their model cards measured.

    python -m bench.weights pack lift-27 runs/lift-27/version_0/checkpoints/last.ckpt
    python -m bench.weights measure lift-27 lift-s --data motion.npz

`pack` writes structloss/backbones/weights/NAME.safetensors: float16, and as metadata what a reader must know. `measure`
scores the file as it is on people who were never trained on, under every kind of 2D, and writes the tables of
NAME.md beside it and of bench/results/weights.csv: a minute or two for each network.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save

from structloss import backbones
from structloss.data import PoseWindows, observe
from structloss.data.loading import EverySample, window_loader
from structloss.data.opening import open_motion
from structloss.errors import DataError
from structloss.files import write_bytes, write_text
from structloss.harness.evaluation import Evaluation, evaluate
from structloss.harness.lifting import LiftingModule
from structloss.harness.load import load_trained, trained_arguments
from structloss.harness.recipe_files import recipe_settings
from structloss.metrics.measures import measure
from structloss.progress import track

__all__ = ["CONDITIONS", "REPORT", "main", "scored", "tables"]

#: subjects of the CMU clips that no network in the package was trained on, or chosen by
REPORT = ("cmu03", "cmu127", "cmu35")
#: what the 2D is like: `detections` of the data module -> in words
CONDITIONS = {
    "exact": "exact 2D",
    "noise:5": "noise of 5 px",
    "noise:10": "noise of 10 px",
    "dropped:0.1": "10 % of the joints missing",
    "dropped:0.3": "30 % of the joints missing",
    "coco": "made from COCO's joints",
    "simulated": "simulated detections",
}
MEASURES = (
    "mpjpe", "pa_mpjpe", "mpjve", "depth_order_joints", "depth_order_frames", "lse", "bone_length_spread",
    "illegal_angle_rate",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results" / "weights.csv"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.weights", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    packing = actions.add_parser("pack", help="a checkpoint to a file in the package")
    packing.add_argument("name", help="of the backbone")
    packing.add_argument("checkpoint", help="of structloss fit")
    measuring = actions.add_parser("measure", help="score files of the package, and write their cards' tables")
    measuring.add_argument("names", nargs="+", help="of backbones")
    measuring.add_argument("--data", required=True, help="clip archive with the subjects " + ", ".join(REPORT))
    given = parser.parse_args(arguments)
    if given.action == "pack":
        print(pack(given.name, given.checkpoint))
        return
    rows: list[dict[str, Any]] = []
    for name in given.names:
        found = {kind: scored(name, given.data, kind) for kind in track(list(CONDITIONS), name, True)}
        write_card(backbones.pretrained_file(name).with_suffix(".md"), tables(found))
        rows += [{"network": name, "detections": kind, **numbers(of)} for kind, of in found.items()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(RESULTS, text.getvalue())


def pack(name: str, checkpoint: str) -> Path:
    """Write the network of a checkpoint as the file of a backbone; returns the file."""
    module, place = load_trained(checkpoint)
    trained = module.hparams
    if backbones.info(trained["backbone"]).name != backbones.info(name).name or trained["backbone_args"]:
        raise DataError(f"{checkpoint} is of {trained['backbone']} {trained['backbone_args'] or ''}, expected {name}.")
    data = trained_arguments(checkpoint)[2]
    told = {
        "backbone": name,
        "target": trained["target"],
        "skeleton": trained["skeleton"],
        "steps": place["step"],
        "batch_size": data.get("batch_size"),
        "seed": trained["seed"],
        "licence": "Apache-2.0; trained on motion of the CMU Graphics Lab Motion Capture Database",
    }
    state = {key: value.half().contiguous() for key, value in module.model.state_dict().items()}
    path = Path(backbones.__file__).parent / "weights" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    return write_bytes(path, save(state, {key: str(value) for key, value in told.items()}))


def scored(name: str, data: str, detections: str) -> Evaluation:
    """Score the weights of a backbone on the subjects for the report, seen by the four cameras of Human3.6M."""
    target = recipe_settings(name)[0]["target"]
    clips = [clip for clip in open_motion(data) if clip.subject in REPORT]
    seen = observe(clips, "test", detections=detections, too_near="move")
    windows = PoseWindows(seen, "test", target=target, **backbones.info(name).cut_for(27))
    network = LiftingModule(name, target=windows.target, objective={"mpjpe": 1.0})
    backbones.load_published(network.model, backbones.pretrained_file(name))
    batches = window_loader(windows, 64, EverySample(windows))
    return evaluate(network, batches, windows.actions, subjects=windows.subjects)


def numbers(found: Evaluation) -> dict[str, str]:
    """Key of a measure -> its number as it is shown."""
    known = {key: measure(key) for key in MEASURES}
    return {key: f"{one.value(found):.{2 if one.decimals is None else one.decimals}f}" for key, one in known.items()}


def tables(found: dict[str, Evaluation]) -> str:
    """Both tables of a card as Markdown."""
    titles = [f"{measure(key).title}, {measure(key).unit} {measure(key).arrow}" for key in MEASURES]
    lines = ["| 2D | " + " | ".join(titles) + " |", "|---" + "|---:" * len(titles) + "|"]
    lines += [f"| {CONDITIONS[kind]} | " + " | ".join(numbers(of).values()) + " |" for kind, of in found.items()]
    kinds = [kind for kind in ("exact", "noise:5", "simulated") if kind in found]
    lines += ["", "MPJPE by action, mm:", "", "| action | " + " | ".join(CONDITIONS[kind] for kind in kinds) + " |"]
    lines.append("|---" + "|---:" * len(kinds) + "|")
    for action in sorted(found[kinds[0]].per_action):
        lines.append(f"| {action} | " + " | ".join(f"{found[kind].per_action[action]:.1f}" for kind in kinds) + " |")
    return "\n".join(lines)


def write_card(card: Path, measured: str) -> None:
    """Put tables between the marks of a card."""
    text = card.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marked.search(text):
        raise DataError(f"{card} has no place for tables, expected <!-- measured --> and <!-- end -->.")
    write_text(card, marked.sub(lambda found: f"{found[1]}{measured}\n{found[2]}", text))


if __name__ == "__main__":
    main()

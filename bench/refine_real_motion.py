"""TP-Net and its rivals on real motion: what they make of a single-frame network's poses of people they haven't seen.

    python -m bench.refine_real_motion motion.npz --out bench/results/refine_real_motion.md

A small SimpleBaseline is trained on some subjects of a clip archive, as simulated detections show them; its predictions
for the clips of these subjects train the refiners, and its predictions for the others score them: MPJPE, velocity error
per frame at 25 frames per second, spread of bone lengths. About six minutes on two cores.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from structloss.data import MotionDataModule
from structloss.files import write_text
from structloss.harness.lifting import LiftingModule
from structloss.harness.refining import RefineModule, train_refiner
from structloss.harness.split_prediction import PredictedSplit, predict_windows
from structloss.harness.training import quiet_lightning
from structloss.metrics import bone_length_spread, mpjpe, mpjve
from structloss.refine import PredictionsDataModule, bone_lengths, fit_skeleton

__all__ = ["main"]

#: title -> arguments of the module, of the data, and which share of the steps it is trained for
REFINERS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "TP-Net, online (19 past)": ({"refiner": "tpnet"}, {"past": 19, "future": 0}, 1.0),
    "TP-Net, semi-online (9 past, 10 future)": ({"refiner": "tpnet"}, {"past": 9, "future": 10}, 1.0),
    "LSTM, whole past": (
        {"refiner": "lstm", "lr": 1e-3},
        {"past": None, "future": 0, "frames": 64, "stride": 8, "batch_size": 32},
        0.3,
    ),
    "Bi-LSTM, windows of 20": (
        {"refiner": "lstm", "refiner_args": {"hidden": 256, "bidirectional": True}, "lr": 1e-3},
        {"past": 9, "future": 10, "batch_size": 64},
        0.8,
    ),
}
MEASURES = (("mpjpe", "MPJPE, mm"), ("mpjve", "velocity error, mm/frame"), ("bone_length_spread", "bone spread, mm"))


def predictions(data: str, folder: Path, steps: int, views: int) -> dict[str, PredictedSplit]:
    """Train a single-frame network; what it predicts of either split, in files in the folder."""
    import lightning as L

    source = MotionDataModule(
        data, window=1, stride=1, batch_size=256, eval_batch_size=2048, views=views, target="camera"
    )
    module = LiftingModule(
        "simplebaseline-16j", {"linear_size": 512, "dropout": 0.25}, objective={"mse": 1.0}, target="camera",
        optimizer="adam", lr=1e-3, weight_decay=0.0, schedule="one_cycle", standardise=True, flip_probability=0.0,
        flip_test=False,
    )  # fmt: skip
    with quiet_lightning():
        L.Trainer(
            max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False, enable_model_summary=False,
            enable_progress_bar=False, limit_val_batches=0, gradient_clip_val=1.0,
        ).fit(module, datamodule=source)  # fmt: skip
    made = {}
    for split in ("train", "test"):
        source.test_set = split  # the same people as the same cameras saw them
        made[split] = predict_windows(module.eval(), source.test_dataset, folder / f"{split}.npz", batch_size=2048)
    return made


def fitted(data: PredictionsDataModule, module: RefineModule | None) -> dict[str, float]:
    """Scores of held-out clips with bones of each clip's own median length."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name, _ in MEASURES}
    weights = []
    for number in range(len(data.val_dataset)):
        batch = data.val_dataset.batch([number])
        with torch.no_grad():
            poses = batch["input"] if module is None else module.model(batch["input"])
            poses = 1000 * fit_skeleton(poses, bone_lengths(poses)[:, None])
            true = 1000 * batch["target"]
            found["mpjpe"].append(mpjpe(poses, true))
            found["mpjve"].append(mpjve(poses, true))
            found["bone_length_spread"].append(bone_length_spread(poses))
        weights.append(poses.shape[1])
    weight = torch.tensor(weights) / sum(weights)
    return {name: float((weight * torch.stack(values)).sum()) for name, values in found.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="clip archive")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--lifter-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=800, help="of TP-Net")
    parser.add_argument("--lr", type=float, default=3e-4, help="of TP-Net at its peak")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--noise", type=float, default=10.0, help="mm, on the refiners' inputs in training")
    parser.add_argument("--only", type=int, help="train only the first so many refiners")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    rows: list[tuple[str, dict[str, float], str]] = []
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = predictions(args.data, folder, args.lifter_steps, args.views)
        trained = time.perf_counter() - started
        print(f"lifter: {trained:.0f} s, MPJPE {made['train'].mpjpe:.1f} (train), {made['test'].mpjpe:.1f}", flush=True)
        for number, (title, (model, data, share)) in enumerate(list(REFINERS.items())[: args.only]):
            begun = time.perf_counter()
            source = PredictionsDataModule(
                str(folder / "train.npz"),
                str(folder / "test.npz"),
                input_noise_mm=args.noise,
                flip_probability=0.5,
                **data,
            )
            module = RefineModule(
                **{"lr": args.lr, "schedule": "one_cycle", **model}, past=data["past"], future=data["future"]
            )
            scores = train_refiner(module, source, epochs=-1, steps=round(share * args.steps), quiet=True)
            if number == 0:
                rows.append(("single frames", {name: scores[f"input_{name}"] for name, _ in MEASURES}, ""))
                rows.append(("single frames, skeleton fitted", fitted(source, None), ""))
            seconds = time.perf_counter() - begun
            rows.append((title, {name: scores[name] for name, _ in MEASURES}, f"{seconds:.0f}"))
            if number == 0:
                rows.append((f"{title}, skeleton fitted", fitted(source, module), ""))
            print(title, {name: round(scores[name], 2) for name, _ in MEASURES}, f"{seconds:.0f} s", flush=True)
    text = table(rows, made, args, trained, time.perf_counter() - started)
    print(text)
    if args.out is not None:
        write_text(args.out, text)
    return 0


def table(
    rows: list[tuple[str, dict[str, float], str]],
    made: dict[str, Any],
    args: argparse.Namespace,
    trained: float,
    seconds: float,
) -> str:
    """The page: what was done, and a row for each network."""
    heads = " | ".join(title for _, title in MEASURES)
    first = rows[0][1]
    lines = [
        "# TP-Net on real motion",
        "",
        f"Made by `python -m bench.refine_real_motion` in {seconds:.0f} s on a shared machine, "
        f"{torch.get_num_threads()} thread(s) of torch {torch.__version__}.",
        "",
        f"A SimpleBaseline of width 512 was trained for {args.lifter_steps} steps ({trained:.0f} s with its "
        f"predictions) on simulated detections of {', '.join(made['train'].subjects)}, {args.views} camera(s) a clip. "
        f"Its error there is {made['train'].mpjpe:.1f} mm, on the held-out {', '.join(made['test'].subjects)} "
        f"{made['test'].mpjpe:.1f} mm. Refiners: {args.steps} steps (LSTM {0.3 * args.steps:.0f}, Bi-LSTM "
        f"{0.8 * args.steps:.0f}) on its predictions for the training clips, every "
        f"second frame of 50 per second, mirrored half of the time, with {args.noise:g} mm of noise on the inputs; "
        f"TP-Net with 4096 hidden neurons, Adam at {args.lr:g} at the peak of a cycle. Scores are of the held-out "
        f"subjects, {made['test'].frames} frames; in brackets the change against single frames.",
        "",
        f"| network | {heads} | s |",
        "|---|" + "---:|" * (len(MEASURES) + 1),
    ]
    for title, scores, took in rows:
        cells = []
        for name, _ in MEASURES:
            change = scores[name] / first[name] - 1
            cells.append(f"{scores[name]:.2f}" + ("" if scores is first else f" ({change:+.0%})"))
        lines.append(f"| {title} | {' | '.join(cells)} | {took} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())

"""`structloss fit`, `validate` and `test`: train and score by a recipe, with Lightning's command line behind it."""

from __future__ import annotations

import argparse
import functools
import textwrap

from ..errors import needs_extra
from ._imports import import_torchmetrics
from ._parser import command
from ._typed import as_typed

__all__ = ["add"]

ORDER = 20

_COMMANDS = {
    "fit": "train a backbone from a recipe",
    "validate": "score a checkpoint on the validation subjects",
    "test": "score a checkpoint with all metrics",
}
_CHECKPOINT = "runs/repose-tiny/version_0/checkpoints/last.ckpt"
_EXAMPLES = {
    "fit": """\
  structloss fit --config repose-tiny
  structloss fit --config repose-tiny --data.data motion.npz --trainer.max_epochs 20
  structloss fit --config repose-h36m --data.data h36m.poses --trainer.precision bf16-mixed
  structloss fit --config repose-tiny --model.objective '{mpjpe: 1.0, depth_ranking_joints: 5.0}'
  structloss fit --config repose-h36m --init-from motionbert_lite.bin    fine-tune a published checkpoint
  structloss fit --config repose-tiny --loss learned --model.learned.net graph-small
  structloss fit --config shape-template-tiny --data.path frames/        2D joints without labels; or rendered people
  torchrun --nproc-per-node 8 -m structloss.cli fit --config repose-h36m --trainer.devices 8 --data.data h36m.poses

A run that was killed or stopped resumes from its last checkpoint when the same command is given again.
""",
    "validate": f"""\
  structloss validate --ckpt_path {_CHECKPOINT}
""",
    "test": f"""\
  structloss test --ckpt_path {_CHECKPOINT}     network and data as they were
  structloss test --config repose-h36m --data.data motion.npz --model.init_from repose_h36m.pth
  structloss test --config d3dp-243 --data.data h36m.poses --init-from d3dp.bin --hypotheses 20 --iterations 10
  structloss test --config mixste-243 --data.data h36m.poses --init-from mixste.bin --root zeroed
  structloss test --ckpt_path {_CHECKPOINT} --data.test_set train     on the training subjects

P1, P2, P3 and MPJVE are measured as the network's own evaluation does, by action and by subject. --root kept, zeroed or
subtracted says otherwise what becomes of the predicted root.
""",
}


def add(commands: argparse._SubParsersAction) -> None:
    from ..harness.recipe_files import recipe_names

    for name, text in _COMMANDS.items():
        about = f"{text[0].upper()}{text[1:]}. RECIPE is your own YAML file, or one of {', '.join(recipe_names())}."
        parser = command(
            commands,
            name,
            text,
            _EXAMPLES[name],
            usage=f"structloss {name} --config RECIPE [--{{data,model,trainer}}.KEY VALUE ...] [options]",
            description=textwrap.fill(about, width=100, break_on_hyphens=False),
            forwards=True,
        )
        _describe(parser, name)
        parser.set_defaults(run=functools.partial(_run, name))


def _describe(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that are used most; Lightning's command line reads them and all others."""
    parser.add_argument("--help-all", action="store_true", help="show every option (takes seconds)")
    ours = parser.add_argument_group("run")
    ours.add_argument("--config", metavar="RECIPE", help="recipe, its values changed by what follows")
    ours.add_argument("--ckpt_path", metavar="FILE", help="training checkpoint to begin with, or last")
    if name == "fit":
        ours.add_argument("--fresh", action="store_true", help="begin anew, though an unfinished run could be resumed")
        ours.add_argument("--restart.every_seconds", metavar="S", help="between checkpoints to resume from (300)")
        ours.add_argument("--logger", metavar="NAME", help="beside metrics.csv: tensorboard, wandb, mlflow, or several")
        ours.add_argument("--seed_everything", metavar="N", help="seed of weights, data and order (0)")
    data = parser.add_argument_group("data")
    data.add_argument("--data.data", metavar="PATH", help="data set of any format (default: synthetic motion)")
    data.add_argument("--data.format", metavar="NAME", help="its format, where a folder has several: bvh, c3d, ...")
    data.add_argument("--data.skip_bad", metavar="true", help="leave out recordings that can't be read")
    data.add_argument("--data.keypoints", metavar="NAME", help="2D of a Human3.6M npz: gt, cpn_ft_h36m_dbb")
    data.add_argument("--data.batch_size", metavar="N", help="windows of a step and process")
    data.add_argument("--data.window", metavar="T", help="frames of a sample")
    data.add_argument("--data.num_workers", metavar="N", help="processes that load data (0: none beside training)")
    data.add_argument("--data.val_subjects", metavar="NAMES", help="held-out subjects, as in '[S9, S11]'")
    data.add_argument("--data.actions", metavar="NAMES", help="these alone, as in '[Walking, Sitting]'")
    if name == "fit":
        data.add_argument(
            "--data.unlabelled", metavar="PATH", help="2D alone to train on too: keypoints, or a data set"
        )
        data.add_argument(
            "--data.random_views",
            metavar="true",
            help="draw cameras anew; also: random_bodies, random_fps, random_keypoints",
        )
    if name == "test":
        data.add_argument("--data.test_set", metavar="NAME", help="test or train: whose subjects to score (test)")
    model = parser.add_argument_group("model and loss")
    model.add_argument(
        "--init-from", metavar="FILE", help="published checkpoint or .safetensors to start from; lift-27, lift-s"
    )
    model.add_argument("--model.backbone", metavar="NAME", help="see structloss backbones list")
    if name == "fit":
        model.add_argument("--loss", metavar="learned", help="train a loss network beside the backbone (SEAL-pose)")
        model.add_argument("--model.learned.KEY", metavar="VALUE", help="its settings: net, weight (auto:0.1), lr, ...")
        model.add_argument("--model.structure_aware", metavar="{}", help="judge 2D alone by anatomy (SAP-Net's losses)")
        model.add_argument("--model.lr", metavar="LR", help="learning rate at the start")
        model.add_argument("--model.ema", metavar="DECAY", help="average the weights; validate and save the average")
    model.add_argument("--model.objective", metavar="LOSSES", help="term: weight, as in '{mpjpe: 1.0, velocity: 0.5}'")
    if name == "test":
        samples = parser.add_argument_group("networks that sample (D3DP)")
        samples.add_argument("--hypotheses", metavar="N", help="poses of each clip (default: 5; paper: 20; 0: none)")
        samples.add_argument("--iterations", metavar="N", help="steps of the sampler (default: 5; paper: 10)")
    trainer = parser.add_argument_group("trainer")
    if name == "fit":
        trainer.add_argument("--trainer.max_epochs", metavar="N", help="epochs of training")
        trainer.add_argument("--trainer.max_steps", metavar="N", help="steps of training")
        trainer.add_argument("--trainer.accumulate_grad_batches", metavar="N", help="batches of an optimizer step")
        trainer.add_argument("--trainer.gradient_clip_val", metavar="NORM", help="longest gradient")
    trainer.add_argument("--trainer.accelerator", metavar="NAME", help="cpu or gpu (default: a GPU if there is one)")
    trainer.add_argument("--trainer.devices", metavar="N", help="GPUs, or processes on the CPU")
    trainer.add_argument("--trainer.precision", metavar="NAME", help="32-true, bf16-mixed, 16-mixed, ...")


def _run(name: str, arguments: argparse.Namespace) -> None:
    with needs_extra("harness"):
        import_torchmetrics()
        from . import _lightning

    with as_typed(arguments.arguments):
        _lightning.run(name, ["--help" if given == "--help-all" else given for given in arguments.arguments])

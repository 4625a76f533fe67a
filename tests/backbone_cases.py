"""Backbones filled with the golden weights, and the inputs that each kind takes."""

import functools
import json
from pathlib import Path

import numpy as np
import torch
from golden.fill import fill_array, fill_input

from structloss import backbones
from structloss.backbones.official import from_official, to_official

GOLDEN = Path(__file__).parent / "golden" / "backbones"
NAMES = backbones.names()
PUBLISHED = [name for name in NAMES if (GOLDEN / f"{name}.npz").exists()]
#: golden files with a test of their own: a whole procedure instead of a forward pass
PROCEDURES = {"d3dp-ddim-tiny"}


def golden(name):
    return np.load(GOLDEN / f"{name}.npz")


def official_shapes(name):
    """Published key -> shape, from the golden file or, for the older ones, from the file beside it."""
    beside = GOLDEN / f"{name}.json"
    return json.loads(beside.read_text() if beside.exists() else str(golden(name)["shapes"]))


def fill(model, adjust=()):
    """Overwrite the weights by their published names, then multiply or add what the golden file says."""
    state = to_official(model)
    for key, value in state.items():
        if not value.is_floating_point():
            continue
        array = torch.from_numpy(fill_array(key, tuple(value.shape)))
        for rule in adjust:
            if key.endswith(rule["suffix"]):
                array = array * rule.get("mul", 1.0) + rule.get("add", 0.0)
        state[key] = array.to(value.dtype)
    model.load_state_dict(from_official(model, state))
    return model


def filled(name, **overrides):
    """The variant with the golden weights, in evaluation mode."""
    model = backbones.create(name, **overrides)
    path = GOLDEN / f"{name}.npz"
    adjust = []
    if path.exists():
        with np.load(path) as file:
            adjust = json.loads(str(file["fill_adjust"])) if "fill_adjust" in file else []
    return fill(model, adjust).eval()


#: families whose clips have one length, and that are the same network with any
_ANY_LENGTH = ("mixste", "ktpformer", "d3dp", "motionagformer", "mhformer")


def small(name):
    """Overrides for one level, and for clips of 9 frames where their length is fixed for no reason of structure."""
    facts = backbones.info(name)
    overrides = {"depth": 1} if "depth" in facts.arguments else {}
    return overrides | ({"frames": 9} if facts.family in _ANY_LENGTH else {})


def different(names):
    """One name of those that differ in sizes only, which run the same code: the one with the least work."""
    found = {}
    for name in sorted(names, key=lambda name: backbones.info(name).macs):
        facts = backbones.info(name)
        choices = {
            key: v for key, v in facts.arguments.items() if isinstance(v, bool) or not isinstance(v, int | float)
        }
        layout = facts.joints_in[0], facts.joints_out, facts.frame_step > 1, facts.keeps
        key = facts.family, facts.kind, *layout, repr(sorted(choices.items())), repr(sorted(facts.arguments))
        found.setdefault(key, name)
    return sorted(found.values())


@functools.cache
def shallow(name):
    """The variant made small; shared, so leave it as it is."""
    return filled(name, **small(name))


def clip(name, batch=2, frames=None, channels=3, model=None):
    """An input of the uniform layout `[B, T, J, C]`; T is as short as the model allows (the small one, if not said
    otherwise), 9 if it takes any."""
    facts = backbones.info(name)
    if frames is None:
        model = model or shallow(name)
        frames = max(model.shortest, min(9, model.longest or 9))
    if facts.kind == "refine" and facts.family == "jointformer":
        channels = 8
    return torch.from_numpy(fill_input(name, (batch, frames, facts.joints_in[0], channels)))


def extras(name, x):
    """Arguments of `forward` beside `x`, where they must be fixed for a result that can be repeated."""
    facts = backbones.info(name)
    batch, frames = x.shape[:2]
    if facts.family == "d3dp":
        noisy = torch.from_numpy(fill_input(f"{name}-x3d", (batch, frames, 17, 3)))
        return {"noisy": noisy.to(x.dtype), "timestep": torch.arange(batch) * 480 + 20}
    if facts.kind == "pretrain":
        ones = torch.arange(frames)
        return {
            "temporal_mask": ones % 3 != 0,
            "spatial_mask": (torch.arange(17)[None] + ones[:, None]) % 8 == 0,
        }
    if name == "pstmo-refine":
        return {"reprojected": x.flip(0) * 0.9}
    return {}


def golden_inputs(name, file):
    """The golden file's input as it stands, and the arguments beside it."""
    x = torch.from_numpy(
        fill_input(str(file["input_name"]) if "input_name" in file else name, tuple(file["input_shape"]))
    )
    if "x3d" in file:
        return x, {"noisy": torch.from_numpy(file["x3d"]), "timestep": torch.from_numpy(file["timestep"])}
    if "temporal_mask" in file:
        return x, {key: torch.from_numpy(file[key]) for key in ("temporal_mask", "spatial_mask")}
    if "xyz_from_uvd" in file:
        return x, {"reprojected": torch.from_numpy(file["xyz_from_uvd"])}
    return x, {}


def run_golden(model, x, **arguments):
    """Run on an input of the published layout: flat, single frames, or clips."""
    if x.dim() == 2 and hasattr(model, "forward_flat"):
        return model.forward_flat(x)
    if x.dim() == 2:
        return model(x.view(len(x), 1, -1, 2)).flatten(1)
    if x.dim() == 3:
        return model(x[:, None])[:, 0]
    return model(x, **arguments)

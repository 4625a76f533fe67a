"""Writes a golden file: what a published network computes for weights and an input that anyone can rebuild from names.

Run it once beside the published code; the file is all that this repository keeps of it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from golden.fill import fill_input, fill_state_dict

FOLDER = Path(__file__).parent / "backbones"


def record(name: str, network: torch.nn.Module, shape: tuple[int, ...], folder: Path = FOLDER) -> Path:
    """Fill the network's weights by their names, run it in evaluation mode, and write outputs and gradients.

    Args:
        name: of the variant, which is also the name of the input.
        network: its state dict has the published names, its `forward` takes the input alone.
        shape: of the input: `[B, T, J, 2 or 3]`, or as the published network takes single frames, `[B, J, 2]` or
            `[B, 2 * J]`.
        folder: where to write `<name>.npz`.

    Returns:
        The path.
    """
    fill_state_dict(network.state_dict())
    network.eval()
    x = torch.from_numpy(fill_input(name, shape)).requires_grad_()
    output = network(x)
    cotangent = torch.from_numpy(fill_input(f"cotangent-{name}", tuple(output.shape)))
    scalar = (output * cotangent).mean()
    scalar.backward()
    trained = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    path = folder / f"{name}.npz"
    np.savez_compressed(
        path,
        input_name=name,
        input_shape=shape,
        output=output.detach().numpy(),
        output_shape=tuple(output.shape),
        cotangent_name=f"cotangent-{name}",
        scalar=float(scalar.detach()),
        input_grad_norm=float(x.grad.norm()),
        param_names=list(trained),
        param_grad_norms=[float(gradient.double().norm()) for gradient in trained.values()],
        shapes=json.dumps({key: list(value.shape) for key, value in network.state_dict().items()}),
    )
    return path

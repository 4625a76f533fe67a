"""A published network: create it, read its authors' checkpoint safely, lift a video of any length.

    python examples/3_published_weights.py [CHECKPOINT]

Without a file, the example makes a stand-in in the published layout: random weights under the authors' names. Nothing
in a checkpoint is executed. Writes videopose3d.bin and videopose3d.safetensors. Takes a few seconds.
"""

import sys
from pathlib import Path

import torch

from structloss import backbones
from structloss.data import normalize_screen
from structloss.errors import CheckpointError

torch.manual_seed(0)

# ---- Which networks are there? dozens of them; `structloss backbones` prints this as a table.
about = backbones.info("videopose3d-27")
print(f"{about.name}: {about.paper}")
print(
    f"{about.params / 1e6:.1f} M parameters, sees {about.frames} frames; published MPJPE, mm: {about.published_error}"
)

# ---- Build it, with fresh weights.
network = backbones.create("videopose3d-27")

# ---- The checkpoint. VideoPose3D's files keep the weights in "model_pos", beside the epoch and the optimizer; trained
# on several GPUs, every key begins with "module.". All of these forms are understood.
if len(sys.argv) > 1:
    checkpoint = Path(sys.argv[1])
else:
    checkpoint = Path("videopose3d.bin")
    published = backbones.to_official(backbones.create("videopose3d-27"))  # the authors' names for the same tensors
    torch.save({"epoch": 80, "model_pos": {f"module.{key}": value for key, value in published.items()}}, checkpoint)

report = backbones.load_published(network, checkpoint)
print(report)
assert report.complete  # otherwise it would have raised: a file that fits by half is refused as a whole

# A file of another network says what is wrong instead of loading some of it.
try:
    backbones.load_published(backbones.create("videopose3d-81"), checkpoint)
except CheckpointError as error:
    print(f"refused: {error}")

# ---- Keypoints of a video: [T, 17, 2] pixels in the joints of Human3.6M, x right and y down. Published networks see
# them on the normalised screen. (Example 5 starts from a detector's file, which has other joints.)
frames, width, height = 100, 1920, 1080
pixels = torch.rand(frames, 17, 2) * torch.tensor([width, height])
keypoints = normalize_screen(pixels, width, height)

# ---- Lift all frames. The network's own test convention is followed: here, a window around every frame, ends repeated,
# averaged with the prediction of the mirrored video.
poses = backbones.predict_video(network, keypoints)
print(f"poses {list(poses.shape)}: x right, y down, z forward, metres")
assert poses.shape == (frames, 17, 3)

# ---- Keep it in a format that can't carry code; load_published reads that as well.
backbones.save_checkpoint(network, "videopose3d.safetensors")
assert backbones.load_published(backbones.create("videopose3d-27"), "videopose3d.safetensors").complete

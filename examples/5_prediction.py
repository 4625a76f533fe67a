"""From a detector's keypoints to 3D: an npz and a BVH file, first from Python, then by the command.

    python examples/5_prediction.py

The keypoints are those of a clip that comes with the package, in COCO's JSON, with what a detector does to them:
errors, joints and frames that are missing. Put your own file in its place. The network comes with the package, too,
and was not trained on this dancer. Writes into the current folder. Some seconds.
"""

import numpy as np
import torch

from structloss import samples
from structloss.cli import main
from structloss.data import load_sample
from structloss.data.formats import read_bvh, read_keypoints, write_bvh
from structloss.harness.predict import load_lifter, predict
from structloss.metrics import mpjpe

# ---- Keypoints. Reading tells people apart and fills gaps; a track is one person in consecutive frames. Where the file
# does not say how large the images are, and at which rate they follow: image_size=(1920, 1080), fps=25.
tracks = read_keypoints(samples.path("dance"))
print(f"{len(tracks)} track, {len(tracks[0])} frames, {tracks[0].skeleton} keypoints")

# ---- From Python: COCO's joints become those of the network, videos of any length are cut and joined. Yours:
# load_lifter("last.ckpt") of `structloss fit`, or backbone and weights of published networks (example 3).
lifter = load_lifter()
made = predict(lifter, tracks[0])
for note in made.notes:
    print(f"note: {note}")
print(f"positions {list(made.positions.shape)} in metres, {made.skeleton} joints, {made.fps:g} frames per second")

made.save("dance.npz")  # positions, keypoints, confidence, scale, meta
write_bvh("dance.bvh", made.positions, made.fps, skeleton=made.skeleton, up="-y")  # camera space: y points down

# ---- How good they are: of the samples, the truth comes with the package, in the camera's frame.
truth = load_sample("dance").truth
truth -= truth[:, :1]  # relative to the pelvis, as predictions are
error = 1000 * mpjpe(torch.from_numpy(made.positions), torch.from_numpy(truth))
print(f"{error:.0f} mm from the truth: an arabesque is not what the network was trained on")

# ---- By the command: the same, for every person in the file.
command = ["predict", "sample:dance", "--out", "poses"]
print("$ structloss " + " ".join(command))
assert main(command) == 0

with np.load("dance.npz") as ours, np.load("poses/dance.npz") as theirs:
    assert np.array_equal(ours["positions"], theirs["positions"])
print(f"read back: {len(read_bvh('poses/dance.bvh', up='y', scale=0.01))} frames")

"""From a detector's keypoints to 3D: an npz and a BVH file, first from Python, then by the command.

    python examples/5_prediction.py

The keypoints are those of a synthetic person, written as AlphaPose writes them; the network is an untrained one, so the
poses mean nothing. Put your own file and weights in their places. Writes into the current folder. Some seconds.
"""

import json
from pathlib import Path

import numpy as np
import torch

from structloss import backbones
from structloss.cli import main
from structloss.data import PoseWindows, denormalize_screen, generate_clips
from structloss.data.formats import read_bvh, read_keypoints, write_bvh
from structloss.harness.predict import load_lifter, predict

torch.manual_seed(0)
WIDTH, HEIGHT, FPS = 1000, 1000, 50.0

# ---- Stand-in for a detector: one entry per frame, 17 COCO keypoints of x, y (pixels) and confidence.
clips = generate_clips(num_subjects=1, clips_per_subject=1, frames=60)
seen = PoseWindows(clips, "test", window=60, views=1)[0]["input"]  # [60, 17, 3] in the joints of Human3.6M
pixels = denormalize_screen(seen[..., :2], WIDTH, HEIGHT)
coco = torch.cat([pixels, seen[..., 2:]], dim=-1)[:, [9, 10, 10, 10, 10, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3]]
Path("walk.json").write_text(
    json.dumps([{"image_id": f"{n}.jpg", "keypoints": row.flatten().tolist()} for n, row in enumerate(coco)])
)

# ---- Stand-in for trained weights. Yours: a checkpoint of `structloss fit`, or published weights (example 3).
backbones.save_checkpoint(backbones.create("repose-tiny"), "weights.safetensors")

# ---- From Python. Reading tells people apart and fills gaps; a track is one person in consecutive frames.
tracks = read_keypoints("walk.json", image_size=(WIDTH, HEIGHT), fps=FPS)
print(f"{len(tracks)} track, {len(tracks[0])} frames, {tracks[0].skeleton} keypoints")

lifter = load_lifter(backbone="repose-tiny", weights="weights.safetensors")  # or load_lifter("last.ckpt")
made = predict(lifter, tracks[0])  # COCO's joints become those of the network, videos of any length are cut and joined
for note in made.notes:
    print(f"note: {note}")
print(f"positions {list(made.positions.shape)} in metres, {made.skeleton} joints, {made.fps:g} frames per second")

made.save("walk.npz")  # positions, keypoints, confidence, scale, meta
write_bvh("walk.bvh", made.positions, made.fps, skeleton=made.skeleton, up="-y")  # camera space: y points down

# ---- By the command: the same, for every person in the file.
command = ["predict", "walk.json", "--backbone", "repose-tiny", "--weights", "weights.safetensors"]
command += ["--image-size", str(WIDTH), str(HEIGHT), "--fps", str(FPS), "--out", "poses"]
print("$ structloss " + " ".join(command))
assert main(command) == 0

with np.load("walk.npz") as ours, np.load("poses/walk.npz") as theirs:
    assert np.array_equal(ours["positions"], theirs["positions"])
print(f"read back: {len(read_bvh('poses/walk.bvh', up='y', scale=0.01))} frames")

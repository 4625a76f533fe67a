"""3D poses of a video by onnxruntime and numpy alone, where neither torch nor structloss is installed.

    structloss backbones export lift-27                # once, where structloss is: writes lift-27.onnx
    python examples/without_torch.py lift-27.onnx person.npz

The npz holds keypoints in pixels, [T, 17, 2], in the joints that the file names, their confidence, [T, 17], and meta,
JSON with the image's width and height; what `structloss predict` writes is such a file. Writes poses.npy.
"""

import json
import sys

import numpy as np
import onnxruntime

# The network, and what its file says of it.
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
joints, field = json.loads(facts["joints_out"]), int(facts["receptive_field"])

# Pixels to the normalised screen (facts["normalisation"]); the confidence is a third channel.
person = np.load(sys.argv[2])
meta = json.loads(str(person["meta"]))
screen = (2 * person["keypoints"] - [meta["width"], meta["height"]]) / meta["width"]
clip = np.concatenate([screen, person["confidence"][..., None]], axis=-1).astype(np.float32)

# A pose for every frame: the first and the last one are repeated beyond the ends.
before = int(facts.get("centre", 0))
clip = np.pad(clip, ((before, field - 1 - before), (0, 0), (0, 0)), mode="edge")
(poses,) = session.run(["poses"], {"keypoints": clip[None]})

print(f"{poses.shape[1]} poses of {len(joints)} joints, {facts['units']}")
print(f"{joints[10]} of the first: {np.round(poses[0, 0, 10], 3)}")
np.save("poses.npy", poses[0])

"""The loss in a training loop of your own: weights, a mask, and the value of every term in the log.

    python examples/1_loss_in_your_loop.py

Everything here is plain PyTorch but the two lines that make the objective and call it. Takes a few seconds.
"""

import torch
from torch import nn

import structloss
from structloss.data import PoseWindows, generate_clips

torch.manual_seed(0)

# ---- Data. Synthetic people, seen by one camera, cut into windows of 27 frames. Take your own data set instead: all
# that the loss wants are poses [batch, frames, joints, xyz].
clips = generate_clips(num_subjects=2, clips_per_subject=2, frames=81)
windows = PoseWindows(clips, "train", window=27, target="camera", views=1)
batches = torch.utils.data.DataLoader(windows, batch_size=8, shuffle=True)

# ---- A network: 2D keypoints [B, T, 17, 3] (x, y, confidence) to poses [B, T, 17, 3] in metres, frame by frame.
network = nn.Sequential(
    nn.Flatten(2), nn.Linear(17 * 3, 256), nn.ReLU(), nn.Linear(256, 17 * 3), nn.Unflatten(2, (17, 3))
)
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

# ---- The loss: the name of each term and its weight (lambda). All terms are computed in one pass over the poses.
# structloss.TERMS lists them; the options of a term are those of its own function, here structloss.illegal_angle.
objective = structloss.nn.Objective(
    {
        "mpjpe": 1.0,  # distance of the joints, metres
        "depth_ranking_joints": 1.0,  # RePOSE's L_S: which joint of a frame is nearer
        "depth_ranking_frames": 1.0,  # RePOSE's L_T: when a joint is nearer
        "bone_symmetry": 0.05,  # left and right limbs of one length
        "illegal_angle": 0.01,  # elbows and knees that bend to the wrong side
    },
    skeleton="h36m",
    options={"illegal_angle": {"normalize_bones": True}},
)

for epoch in range(4):
    logged: dict[str, float] = {}
    for batch in batches:
        prediction = network(batch["input"])

        # The mask: [B, T, J], 0 for a joint that was not seen, 1 (or a confidence) for one that was. A frame of padding
        # is a frame of zeros. Every term leaves out what has no weight, and divides by what is left.
        mask = batch["weight"] * (batch["input"][..., 2] > 0.1)

        loss = objective(prediction, batch["target"], mask)
        optimizer.zero_grad()
        loss.total.backward()  # total: the weighted sum, the one to call backward on
        optimizer.step()

        for name, value in loss.terms.items():  # terms: unweighted and detached, for the log
            logged[name] = logged.get(name, 0.0) + value.item() / len(batches)
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4f}" for name, value in logged.items()))

# ---- Without a module: one call. A lambda may be a tensor; then it receives a gradient, which is the term's value.
strength = torch.tensor(1.0, requires_grad=True)
loss = structloss.objective(prediction.detach(), batch["target"], {"mpjpe": 1.0, "depth_ranking_joints": strength})
loss.total.backward()
assert strength.grad is not None
print(f"value of the term {loss.terms['depth_ranking_joints']:.4f}, gradient of its lambda {strength.grad:.4f}")

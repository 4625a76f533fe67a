"""A loss that is learned beside the network: five lines of a training loop (SCoTL-pose / SEAL-pose).

    python examples/4_learned_loss.py

A second network, the loss network, learns to give true poses less energy than wrong ones; the pose network lowers the
energy of its predictions. After training the loss network is thrown away. Writes loss_net.safetensors. Some seconds.
"""

import torch
from torch import nn

import structloss
from structloss.data import PoseWindows, generate_clips
from structloss.learned import LearnedLoss, LossNet, corrupt

torch.manual_seed(0)

# Poses in metres: target="camera". (For poses in another unit, give metres per unit as `unit` to both calls below.)
clips = generate_clips(num_subjects=4, clips_per_subject=2, frames=81)
windows = PoseWindows(clips, "train", window=27, target="camera", views=1)
batches = torch.utils.data.DataLoader(windows, batch_size=8, shuffle=True)
network = nn.Sequential(
    nn.Flatten(2), nn.Linear(17 * 3, 256), nn.ReLU(), nn.Linear(256, 17 * 3), nn.Unflatten(2, (17, 3))
)
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

# 1. Make it. The weight "auto:0.05" lets the energy pull on predictions with 5 % of the force of the other losses. The
# defaults are the larger loss network "graph" and bones turned by some degrees, which take longer to learn.
learned = LearnedLoss(
    "linear-small", skeleton="h36m", weight="auto:0.05", negatives=("prediction", "limb_swap"), frames=9, lr=1e-3
)

for epoch in range(6):
    for batch in batches:
        x, target, weight = batch["input"], batch["target"], batch["weight"]
        prediction = network(x)

        # 2. Teach it: a step of the loss network's own optimizer, against this prediction and corrupted truths.
        seen = learned.update(x, target, prediction.detach(), weight=weight)

        # 3. The losses that you had before.
        position = structloss.mpjpe(prediction, target, weight=weight)

        # 4. Use it: lambda times the mean energy of the prediction. Its gradient reaches the prediction alone.
        energy = learned(x, prediction, position, weight=weight)

        # 5. One step for both.
        optimizer.zero_grad()
        (position + energy).backward()
        optimizer.step()

    # What to watch: the share of wrong poses that have more energy than the true one. 0.5 is chance.
    told = ", ".join(f"{name} {seen[f'rank/{name}']:.2f}" for name in learned.negatives)
    print(
        f"epoch {epoch}: MPJPE {1000 * position.item():.0f} mm, lambda {learned.force.value:.4f}, ranked right: {told}"
    )

# ---- The loss network by itself: save it, read it again, ask it. `structloss energy` does this on a whole data set.
learned.net.save("loss_net.safetensors")
judge = LossNet.load("loss_net.safetensors").eval()
with torch.no_grad():
    swapped = corrupt("limb_swap", target, judge.skeleton)
    print(f"mean energy: true {judge(x, target).mean():.3f}, limbs swapped {judge(x, swapped).mean():.3f}")

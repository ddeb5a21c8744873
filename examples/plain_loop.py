"""A plain training loop with three lines of foreshock: a CNN meets one mislabelled, over-bright batch, and it shows."""

import sys

import torch
from torch import nn

from foreshock.probes import find_spikes, watch
from foreshock.traces import open_trace

path = sys.argv[1] if len(sys.argv) > 1 else "runs/plain-loop"
torch.manual_seed(0)
model = nn.Sequential()
model.conv1, model.relu1 = nn.Conv2d(1, 8, 3, stride=2), nn.ReLU()
model.conv2, model.relu2 = nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
model.flatten, model.head = nn.Flatten(), nn.Linear(16 * 9, 4)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
patterns = torch.randn(4, 1, 16, 16)  # a class is a pattern under noise

with watch(model, optimizer, path, config={"lr": 1e-3}, overwrite=True) as w:  # 1
    for step in range(400):
        labels = torch.randint(4, (64,))
        images = patterns[labels] + 2 * torch.randn(64, 1, 16, 16)
        if step == 300:
            images, labels = images * 8, labels.roll(1)
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        w.step(loss=loss)  # 2
        optimizer.zero_grad()

for spike in find_spikes(open_trace(path)):  # 3
    print(f"{spike.layer}: {spike.ratio:.0f} times its baseline at step {spike.peak}")

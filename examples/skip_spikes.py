"""A plain training loop in which one over-bright, mislabelled batch makes a spike, and foreshock skips its update."""

import sys

import torch
from torch import nn

from foreshock.probes import watch
from foreshock.probes.interventions.skip_update import SkipUpdate
from foreshock.traces import open_trace

path = sys.argv[1] if len(sys.argv) > 1 else "runs/skip-spikes"
torch.manual_seed(0)
model = nn.Sequential()
model.conv1, model.relu1 = nn.Conv2d(1, 8, 3, stride=2), nn.ReLU()
model.conv2, model.relu2 = nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
model.flatten, model.head = nn.Flatten(), nn.Linear(16 * 9, 4)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
patterns = torch.randn(4, 1, 16, 16)  # a class is a pattern under noise

skip = SkipUpdate("conv1", ratio=4.0)  # or FreezeLayer("conv1", steps=20), or Clip("conv1", factor=1.5)
with watch(model, optimizer, path, overwrite=True, intervene=skip) as w:
    for step in range(400):
        labels = torch.randint(4, (64,))
        images = patterns[labels] + 2 * torch.randn(64, 1, 16, 16)
        if step == 300:
            images, labels = images * 8, labels.roll(1)
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()  # does nothing where conv1 spikes: watch has taken the gradients away
        w.step(loss=loss)
        optimizer.zero_grad()

for event in open_trace(path).events:
    print(f"step {event['step']}: {event['text']}")

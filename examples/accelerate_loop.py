"""A loop with Accelerate and foreshock around it: a bad batch, and which layers felt it before the clip."""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from foreshock.probes import find_spikes
from foreshock.probes.callbacks.accelerate import ForeshockCallback
from foreshock.traces import open_trace

path = sys.argv[1] if len(sys.argv) > 1 else "runs/accelerate"
set_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = nn.Sequential()
model.embed, model.relu, model.head = nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)
model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
centres = 2 * torch.randn(4, 16)

with ForeshockCallback(accelerator, model, optimizer, path, overwrite=True) as watcher:
    for part in range(240):
        labels = torch.randint(4, (32,))
        points = centres[labels] + torch.randn(32, 16)
        if part == 200:
            points, labels = points * 50, labels.roll(1)
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(points), labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            watcher.step(loss=loss)
            optimizer.zero_grad()

for spike in find_spikes(open_trace(path)):
    print(f"{spike.layer}: {spike.ratio:.0f} times its baseline at step {spike.peak}")

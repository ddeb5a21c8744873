"""A Hugging Face Trainer with one callback of foreshock: a bad batch, and which layers felt it before the clip."""

import sys

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from foreshock.probes import find_spikes
from foreshock.probes.callbacks.transformers import ForeshockCallback
from foreshock.traces import open_trace

path = sys.argv[1] if len(sys.argv) > 1 else "runs/transformers"


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, points, labels):
        logits = self.head(self.embed(points).relu())
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


set_seed(0)
labels = torch.randint(4, (120 * 32,))
points = 2 * torch.randn(4, 16)[labels] + torch.randn(len(labels), 16)
points[:32] *= 50  # one bad batch's worth of bad examples, spread by the shuffle
rows = [{"points": p, "labels": y} for p, y in zip(points, labels, strict=True)]
options = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
args = TrainingArguments(f"{path}-trainer", max_steps=120, per_device_train_batch_size=32, max_grad_norm=1.0, **options)
trainer = Trainer(Classifier(), args, train_dataset=rows)
trainer.add_callback(ForeshockCallback(path, trainer, overwrite=True))
trainer.train()
spikes = find_spikes(open_trace(path))
print(f"{len(spikes)} spikes, the largest {max(spike.ratio for spike in spikes):.0f} times its baseline")

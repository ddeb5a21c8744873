"""A Lightning run with one callback of foreshock: a bad batch, and which layers felt it before the clip hid it."""

import sys

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from foreshock.probes import find_spikes
from foreshock.probes.callbacks.lightning import ForeshockCallback
from foreshock.traces import open_trace

path = sys.argv[1] if len(sys.argv) > 1 else "runs/lightning"


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


lightning.seed_everything(0)
labels = torch.randint(4, (120 * 32,))
points = 2 * torch.randn(4, 16)[labels] + torch.randn(len(labels), 16)
bad = slice(100 * 32, 101 * 32)  # one batch too bright and mislabelled
points[bad], labels[bad] = 50 * points[bad], labels[bad].roll(1)
loader = DataLoader(TensorDataset(points, labels), 32)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
watcher = ForeshockCallback(path, sensors=["update_rms"], overwrite=True)
lightning.Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, callbacks=[watcher], **quiet).fit(
    Classifier(), loader
)
for spike in find_spikes(open_trace(path)):
    print(f"{spike.layer}: {spike.ratio:.0f} times its baseline at step {spike.peak}")

"""`watch` for loops that somebody else wrote: one file a framework, each imported only by those who have it.

- `foreshock.probes.callbacks.lightning.ForeshockCallback(path)` for a Lightning `Trainer`;
- `foreshock.probes.callbacks.transformers.ForeshockCallback(path, trainer)` for Hugging Face's `Trainer`;
- `foreshock.probes.callbacks.accelerate.ForeshockCallback(accelerator, model, optimizer, path)` around a loop with
  Accelerate.

All of them look **before** the clip, and take what `watch` takes: `layers`, `sensors`, `config`, `overwrite`. A run
that goes on from a checkpoint at step s goes on in its trace at s. Rank 0 writes.
"""

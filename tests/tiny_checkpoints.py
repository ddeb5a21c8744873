"""A checkpoint of a tiny model and a made-up Fashion-MNIST whose classes differ in tone, for the evaluations' tests."""

from pathlib import Path

from tiny_runs import tiny_config, write_fashion

from foreshock.trainer.loop import train


def write_checkpoint(root: Path, train_images: int = 300, test_images: int = 120) -> Path:
    """Train for 12 steps; the folder of checkpoints, beside the folder `data` with training and test images."""
    write_fashion(root / "data", train_images)
    write_fashion(root / "data", test_images, prefix="t10k")
    train(tiny_config(root / "data", checkpoint_dir=str(root / "saved")))
    return root / "saved"

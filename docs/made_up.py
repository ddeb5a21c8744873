"""Write the made-up runs that the README's pictures of the event, precursor and compare views show.

    python docs/made_up.py OUT
    python docs/screenshots.py OUT/event made-up --view event --event patch_embed@1011 --name event
    python docs/screenshots.py OUT/precursors made-up --view precursors --name precursors
    python docs/screenshots.py OUT/compare frozen-seed1 --view compare --name compare

Spikes and dips are planted at random places: more of both where the patch projection is learned.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import synthetic


def main(out: Path) -> None:
    """Write all of them under `out`."""
    rng = np.random.default_rng(0)
    synthetic.write_run(out / "event" / "made-up")
    often = [synthetic.Planted(at, float(rng.uniform(4, 9)), dip=0.1) for at in range(400, 7800, 340)]
    synthetic.write_run(out / "precursors" / "made-up", synthetic.make(8000, 12, often, seed=5))
    for seed in (1, 2, 3):
        for way, count, frozen in (("learned", 14, ()), ("frozen", 3, ("patch_embed",))):
            places = np.sort(rng.choice(np.arange(300, 2900, 60), count, replace=False))
            planted = [
                synthetic.Planted(int(at), float(rng.uniform(4, 9)), dip=float(rng.uniform(0.04, 0.12)))
                for at in places
            ]
            made = synthetic.make(3000, 12, planted, frozen=frozen, seed=seed * 7 + (way == "frozen"))
            config = {"seed": seed, "method": {"patch_projection": way}}
            writer = synthetic.open_writer(out / "compare" / f"{way}-seed{seed}", made, config=config)
            synthetic.append(writer, made, slice(0, len(made.steps)))
            writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

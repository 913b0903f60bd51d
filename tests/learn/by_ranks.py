"""Trains as test_ranks asks, for torchrun: FOLDER, and the epoch in which rank 1 is killed, once."""

import os
import signal
import sys
from pathlib import Path

from cmxlib import fit
from cmxlib.learn.ranks import process_group, ranks
from tests.learn.test_ranks import DATA, SETTINGS, model

folder, epoch = Path(sys.argv[1]), int(sys.argv[2])
seen, mark = [], folder.with_suffix(".killed")


def kill(images):
    """Kill -9 this process in the middle of the epoch's second step; each rank sees a share of three batches in it."""
    seen.append(len(images))
    if len(seen) == 1 + 3 * (epoch - 1) + 2 and ranks()[0] == 1 and not mark.exists():
        mark.write_text(f"{seen}")
        os.kill(os.getpid(), signal.SIGKILL)
    return images


with process_group():
    fit(model(), DATA, SETTINGS, checkpoint=folder, transform=kill, sync_norm=True, progress=False)

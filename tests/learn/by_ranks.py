"""Trains in FOLDER as test_ranks asks, for torchrun; in the third epoch rank 1 is killed, once, and what it leaves is
kept in FOLDER.left."""

import os
import shutil
import signal
import sys
from pathlib import Path

from cmxlib import fit
from cmxlib.learn.ranks import process_group, ranks
from tests.learn.test_ranks import DATA, SETTINGS, model

folder = Path(sys.argv[1])
seen, mark = [], folder.with_suffix(".killed")


def kill(images):
    """Kill -9 this process in the middle of the epoch's second step; each rank sees a share of three batches in it."""
    seen.append(len(images))
    if len(seen) == 1 + 3 * 2 + 2 and ranks()[0] == 1 and not mark.exists():
        mark.write_text(f"{seen}")
        shutil.copytree(folder, folder.with_suffix(".left"))
        os.kill(os.getpid(), signal.SIGKILL)
    return images


with process_group():
    fit(model(), DATA, SETTINGS, checkpoint=folder, transform=kill, sync_norm=True, progress=False)

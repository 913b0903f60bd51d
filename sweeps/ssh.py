"""A sweep on machines that ssh reaches: python sweeps/ssh.py FILE HOST [HOST ...]

Needs `pip install asyncssh`. The checkout lies at the same place on all of them, on a file system that they share.
"""

import sys

from distributed import Client, SSHCluster

from cmxlib.study.grid import read_grid
from cmxlib.study.sweep import sweep

WORKERS = 1  # of a machine: as many as it has GPUs

if __name__ == "__main__":
    file, *hosts = sys.argv[1:]
    options = {"nthreads": 1, "n_workers": WORKERS}
    with SSHCluster([hosts[0], *hosts], worker_options=options, remote_python=sys.executable) as cluster:
        with Client(cluster) as client:
            sys.exit(bool(sweep(read_grid(file), client)))

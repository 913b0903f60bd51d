"""A sweep on machines that ssh reaches: python sweeps/ssh.py FILE HOST [HOST ...]

Needs `pip install asyncssh`. The checkout lies at the same place on all of them, on a file system that they share.
"""

import argparse
import sys

from distributed import Client, SSHCluster

from cmxlib.paths import told
from cmxlib.study.grid import check_data, read_grid
from cmxlib.study.sweep import sweep

WORKERS = 1  # of a machine: as many as it has GPUs


def main() -> bool:
    """Whether a unit of the sweep failed."""
    parser = argparse.ArgumentParser(description="A sweep on machines that ssh reaches.")
    parser.add_argument("file")
    parser.add_argument("hosts", nargs="+", metavar="HOST")
    args, options = parser.parse_args(), {"nthreads": 1, "n_workers": WORKERS}
    grid = read_grid(args.file)
    check_data(grid)
    hosts = [args.hosts[0], *args.hosts]  # the scheduler's, and the workers'
    try:
        cluster = SSHCluster(hosts, worker_options=options, remote_python=sys.executable)
    except RuntimeError as error:  # asyncssh is not there, or a host does not answer
        raise OSError(str(error)) from error
    with cluster, Client(cluster) as client:
        return bool(sweep(grid, client))


if __name__ == "__main__":
    sys.exit(told(main, "ssh.py"))

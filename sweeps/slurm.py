"""A sweep on Slurm, each worker a job: python sweeps/slurm.py FILE JOBS

Run it where jobs can be submitted, in the checkout, on a file system that all nodes share. With `--script` it prints
the script of a job and submits nothing. Partition, memory and time are those of one cluster: change them to yours.
"""

import argparse
import shutil
import subprocess
import sys

from dask_jobqueue import SLURMCluster
from distributed import Client

from cmxlib.files.commands import count
from cmxlib.paths import cache_dir, checkout, told
from cmxlib.study.grid import check_data, read_grid
from cmxlib.study.sweep import sweep

CORES = 4  # of a job, for torch; a worker measures one unit at a time


def cluster() -> SLURMCluster:
    """Workers of one thread, for a unit each, on a GPU each."""
    return SLURMCluster(
        queue="gpu",
        cores=1,
        processes=1,
        job_cpu=CORES,
        memory="16GB",
        walltime="08:00:00",
        job_extra_directives=["--gres=gpu:1"],
        worker_extra_args=["--lifetime", "470m", "--lifetime-stagger", "5m"],  # end before Slurm ends the job
        job_script_prologue=[
            f"cd {checkout()}",
            f"export CMX_CACHE={cache_dir()}",
            f"export OMP_NUM_THREADS={CORES}",
            "export DASK_DISTRIBUTED__WORKER__DAEMON=False",  # a chapter starts processes
        ],
    )


def main() -> bool:
    """Whether a unit of the sweep failed."""
    parser = argparse.ArgumentParser(description="A sweep on Slurm, each worker a job.")
    parser.add_argument("file", nargs="?", default="sweeps/grid.toml")
    parser.add_argument("jobs", nargs="?", type=count, default=8)
    parser.add_argument("--script", action="store_true", help="print the job's script and submit nothing")
    args = parser.parse_args()
    grid = [] if args.script else read_grid(args.file)
    if not (args.script or shutil.which("sbatch")):
        parser.error("there is no sbatch here: run it where jobs can be submitted, or print the job with --script")
    check_data(grid)
    with cluster() as jobs:
        if args.script:
            print(jobs.job_script())
            return False
        test = subprocess.run(["sbatch", "--test-only"], input=jobs.job_script(), capture_output=True, text=True)
        if test.returncode:  # dask would submit again and again
            raise OSError(f"sbatch does not take the job that --script prints: {test.stderr.strip()}")
        jobs.adapt(minimum_jobs=1, maximum_jobs=args.jobs)
        with Client(jobs) as client:
            client.wait_for_workers(1)
            return bool(sweep(grid, client))


if __name__ == "__main__":
    sys.exit(told(main, "slurm.py"))

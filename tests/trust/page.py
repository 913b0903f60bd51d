"""The text of RELIABILITY.md."""

from collections import Counter

PAGE = """# Reliability

What `make reliability` (`python -m tests.trust`) did and found. It wrote this page; `make test` does less of the same.
{system}; {minutes:.0f} minutes.

## Faults

{kills} processes were killed (SIGKILL), about half of them at a random moment, the others before one of the calls
that change a file. After each, every file was the old one or the new one; done again, the job went on and gave the
same, to the bit, nothing twice, and no temporary file was left.

| killed | times |
|---|---:|
{killed}

{full} jobs on a full disk, {closed} in folders that were not theirs and {interrupts} stopped by Ctrl-C, at a random
moment or before such a call, lost nothing and were finished when given again; what could not be written was told in a
sentence that names the file. {workers} batches lost a worker process: that was told and its files tried once more; a
file that kills each worker is named. {memory} calls that ran out of memory said in one sentence what to give less of,
and took no file for damaged. {clocks} times files and locks had dates of 1970 or 2096: who is alive, not the clock,
tells what may be swept or begun. A loss that is no number stops a training with the checkpoint of the last good epoch
(`tests/learn/test_train.py`). A sweep goes on when a Dask worker is killed; after its scheduler was killed it is given
again: the same rows, nothing twice (`tests/study/test_sweep.py`).

## Bad and hostile input

{calls} wrong calls over all rooms, and {commands} wrong commands and hostile files: each got, within 30 seconds, the
exception, or the exit status, that is documented, with one sentence. {outside} more were thought of, before any was
tried, by somebody who had not written the code and had seen no list (`tests/trust/test_outside.py`): none hangs, gives
a wrong answer or shows a traceback any more; LOG.md tells how many did at first. The parsers of key files, images,
records, arrays, models, checkpoints, tables of rows and sweeps read {fuzz:,} files that chance had changed{guided}.
Each was taken or refused. Models and data are read as safetensors, JSON, ONNX and `torch.load` of weights alone; the
one pickle, CIFAR-10's own, after its MD5 sum was found right.

## Secrets

In {files} files, {texts} printed texts and tracebacks with variables, and the arguments and environment of
{processes} processes, the secrets of the session's keys were found 0 times: raw, in hexadecimal, in base64 at any
place, as a text of bytes or a list of numbers. They stand in key files alone, which are written with mode 0600 and
refused when others can read them. Secrets are compared by `hmac.compare_digest`.

What Python cannot do is delete one. `del key` frees the memory and does not overwrite it; bytes never change, and may
have been copied by the interpreter, by a library or into swap before. So whoever can read the memory of a process that
has used a key, or a dump of it, can read the key. Use keys in processes that end soon, without swap or core dumps
(`ulimit -c 0`) where that matters; a file is gone for good only from an encrypted disk.

## Load

| what | most memory of a process | seconds |
|---|---:|---:|
{loads}
"""


def page(
    counts: Counter, calls: int, commands: int, outside: int, guided: dict, loads: dict, system: str, seconds: float
) -> str:
    """The page, from what was counted."""
    killed = {name.partition(": ")[2]: n for name, n in counts.items() if name.startswith("kills: ")}
    by_coverage = ""
    if guided:
        by_coverage = f"; atheris tried\n{sum(guided.values()):,} more, guided by the lines of code that they reach"
    return PAGE.format(
        system=system,
        minutes=seconds / 60,
        kills=counts["kills"],
        killed="\n".join(f"| {name} | {n} |" for name, n in killed.items()),
        full=counts["full disks"],
        closed=counts["closed folders"],
        interrupts=counts["interrupts"],
        workers=counts["workers"],
        memory=counts["out of memory"],
        clocks=counts["clocks"],
        calls=calls,
        commands=commands,
        outside=outside,
        fuzz=counts["fuzz executions"],
        guided=by_coverage or " (atheris was not installed)",
        files=counts["files searched"],
        texts=counts["texts searched"],
        processes=counts["processes searched"],
        loads="\n".join(
            f"| {name}: {found['said']} | {found['GiB']:.1f} GiB | {found['seconds']:.0f} |"
            for name, found in loads.items()
        ),
    )

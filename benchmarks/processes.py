"""Whole processes: peak memory of a training run at every grid point, and start-up times.

    python benchmarks/processes.py [--points 0,3]

Every figure comes from a process of its own: the peak is the operating system's account of it at its end,
added to those of the processes that it shares the work with (what they have in common counts in each); the
times are the best of several starts.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from machine import describe
from training import GRID

HERE = Path(__file__).parent

TRAIN = """
import sys
sys.path.insert(0, {here!r})
import numpy as np
from machine import python_text
from processes import peak_of_all
from training import {kind}_step
H, B, T, layers = {point}
text = python_text()
offsets = np.random.default_rng(1).integers(len(text) - T - 1, size=B)
step = {kind}_step(H, B, T, layers, text[offsets + np.arange(T + 1)[:, None]].astype(np.int64))
for _ in range(3):
    step()
print(peak_of_all())
"""


def run(*arguments):
    """(seconds, output) of one finished process."""
    start = time.perf_counter()
    process = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if process.returncode:
        raise SystemExit(f"{arguments} failed")
    return time.perf_counter() - start, process.stdout


def peak_of_all():
    """The peak memory in bytes of this process and of its children, each counted whole."""
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    status = [Path(f"/proc/{pid}/status").read_text() for pid in ("self", *children)]
    return sum(1024 * int(text.split("VmHWM:")[1].split()[0]) for text in status)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default=",".join(map(str, range(len(GRID)))), help="indices into the grid")
    arguments = parser.parse_args()
    print(describe())
    print("| start-up | seconds |")
    print("|---|---|")
    empty = min(run("-c", "pass")[0] for _ in range(7))
    for name, command in (
        ("python -c pass", ("-c", "pass")),
        ("pydarknet --version", ("-m", "pydarknet", "--version")),
        ("import pydarknet", ("-c", "import pydarknet")),
        ("import torch", ("-c", "import torch")),
    ):
        seconds = min(run(*command)[0] for _ in range(7))
        print(f"| {name} | {seconds:.3f} ({seconds - empty:+.3f} to an empty Python) |", flush=True)
    print("\n| H | B | T | layers | peak MB pydarknet | peak MB PyTorch |")
    print("|---|---|---|---|---|---|")
    for n in map(int, arguments.points.split(",")):
        peaks = [int(run("-c", TRAIN.format(here=str(HERE), kind=kind, point=GRID[n]))[1]) for kind in ("pydarknet", "torch")]
        print("| {} | {} | {} | {} | {:.0f} | {:.0f} |".format(*GRID[n], *(peak / 1e6 for peak in peaks)), flush=True)


if __name__ == "__main__":
    main()

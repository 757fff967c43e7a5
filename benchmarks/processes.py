"""Whole processes: peak memory of a training run at every grid point, and start-up times.

    python benchmarks/processes.py [--points 0,3]

Every figure comes from a process of its own: the peak is the operating system's account of the
finished process, the times are the best of several starts.
"""

import argparse
import os
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
from training import {kind}_step
H, B, T, layers = {point}
text = python_text()
offsets = np.random.default_rng(1).integers(len(text) - T - 1, size=B)
step = {kind}_step(H, B, T, layers, text[offsets + np.arange(T + 1)[:, None]].astype(np.int64))
for _ in range(3):
    step()
"""


def run(*arguments):
    """(seconds, peak bytes) of one finished process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default=",".join(map(str, range(len(GRID)))), help="indices into the grid")
    arguments = parser.parse_args()
    print(describe())
    print("| start-up | seconds |")
    print("|---|---|")
    empty = min(run("-c", "pass")[0] for _ in range(7))
    for name, command in (("python -c pass", ("-c", "pass")), ("pydarknet --version", ("-m", "pydarknet", "--version")),
                          ("import pydarknet", ("-c", "import pydarknet")), ("import torch", ("-c", "import torch"))):
        seconds = min(run(*command)[0] for _ in range(7))
        print(f"| {name} | {seconds:.3f} ({seconds - empty:+.3f} to an empty Python) |", flush=True)
    print("\n| H | B | T | layers | peak MB pydarknet | peak MB PyTorch |")
    print("|---|---|---|---|---|---|")
    for n in map(int, arguments.points.split(",")):
        peaks = [run("-c", TRAIN.format(here=str(HERE), kind=kind, point=GRID[n]))[1] for kind in ("pydarknet", "torch")]
        print("| {} | {} | {} | {} | {:.0f} | {:.0f} |".format(*GRID[n], *(peak / 1e6 for peak in peaks)), flush=True)


if __name__ == "__main__":
    main()

"""Two ranks of MPI against two processes: the time of an iteration of whole runs on this machine, in turn.

    python benchmarks/ranks.py [--rounds 5]

A round runs ``train --processes 2`` and ``mpirun -n 2 pydarknet train --mpi`` one after the other, and its ratio is that of the
median times of their iterations: above 1 the ranks are faster. The table has the median ratio and the extremes.
"""

import argparse
import tempfile
from statistics import median

from commands import seconds_of
from machine import describe

SIZES = [(64, 16, 32), (128, 32, 50), (256, 64, 64)]  # H, B, T
ITERATIONS = [60, 30, 12]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(describe())
    print("| H | B | T | --processes 2 | 2 ranks | times as fast | least | most |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size, iterations in zip(SIZES, ITERATIONS):
            pairs = []
            for _ in range(rounds):
                processes = median(seconds_of(folder, size, iterations, "--processes", "2"))
                pairs.append((processes, median(seconds_of(folder, size, iterations, ranks=2))))
            ratios = sorted(processes / ranks for processes, ranks in pairs)
            times = " | ".join(f"{1e3 * median(column):.1f} ms" for column in zip(*pairs))
            print(
                f"| {' | '.join(map(str, size))} | {times} | {median(ratios):.2f} | {ratios[0]:.2f} | {ratios[-1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What more ranks of MPI would bring: a model of a step, fitted here, held against what it was not fitted to, and its answer.

    python benchmarks/scaling.py --out figures.json       # measure, fit, check, extrapolate: some minutes
    python benchmarks/scaling.py --from figures.json      # the same without measuring again

The time of a step of a network with P parameters and N ranks of b streams each is taken to be

    t = (a + d b) P  +  u P  +  l rounds(N)  +  2 (N - 1) / N * 4 P / W

a, d: forward and backward, a part for the weights and one for each stream; u: the update, which every rank does whole; l: the
latency of one round of the sum; W: its bandwidth. What a rank does by itself takes N / cores as long if cores are fewer. a and
d come from steps of one rank with several b, u is measured alone, l and W come from sums of blocks of 1 to 64 MB. Steps of two
and four ranks are the check: nothing is fitted to them. A time is the least of several, of one rank by the processor's clock.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from commands import CFG, MPIEXEC, seconds_of
from machine import describe, python_text

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.network import Network
from pydarknet.optim.optimizers import clip_gradient
from pydarknet.text.corpus import Corpus
from pydarknet.training.trainer import Trainer

V, T = 256, 32
UNITS, STREAMS = (256, 512, 1024), (8, 16, 32, 64)
BLOCKS = (1, 4, 16, 64)  # MB
RANKS = (2, 4)
LINKS = {"10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9}  # bytes a second
LATENCY = 30e-6  # of a round between hosts: an assumption, on the slow side for a cluster's network
MANY, BATCH, STREAMS_OF_A_RANK = (8, 64, 512), 512, 64


def parameters(H):
    """Of one LSTM layer and what is behind it."""
    return 4 * H * (V + H + 2) + V * (H + 1)


# Measuring


def allreduce_times():
    """In each rank: {MB: seconds of a sum}; rank 0 prints it."""
    from mpi4py import MPI

    found = {}
    for size in BLOCKS:
        block, times = np.zeros(size * 250_000, np.float32), []
        for _ in range(max(9, 60 // size)):
            MPI.COMM_WORLD.Barrier()
            start = time.perf_counter()
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, block, MPI.SUM)
            times.append(time.perf_counter() - start)
        found[size] = min(times)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(found))


def own_times(H, b, iterations=5):
    """Processor seconds of a step of one rank with ``b`` streams, and of its update alone."""
    network = Network(parse_cfg_text(CFG.format(H=H, B=b, T=T), "net.cfg"), srand=1)
    trainer = Trainer(network, Corpus.from_symbols(python_text()), 1 + iterations, srand=1, train_call=network.train_call)
    trainer.step()
    return least(trainer.step, iterations), least(lambda: update(trainer), iterations)


def update(trainer):
    clip_gradient(trainer.network.parameters, 1.0)
    trainer.optimizer.update(trainer.network.parameters, 0.0, 1)


def least(work, count):
    times = []
    for _ in range(count):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measured(rounds):
    """All figures, as JSON can hold them: lists of [H, streams of a rank, ranks, seconds], and the sums."""
    own = {(H, b): own_times(H, b) for H in UNITS for b in STREAMS}
    updates = {str(H): min(own[H, b][1] for b in STREAMS) for H in UNITS}
    sums = {}
    for count in RANKS:
        result = subprocess.run(
            [MPIEXEC, "-n", str(count), sys.executable, __file__, "--allreduce"], capture_output=True, check=True
        )
        sums[str(count)] = json.loads(result.stdout)
    whole = dict.fromkeys([(H, STREAMS[-1] // count, count) for H in UNITS for count in RANKS], math.inf)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for H, b, count in whole:
                whole[H, b, count] = min(whole[H, b, count], *seconds_of(folder, (H, b * count, T), 6, ranks=count))
    steps = [[*case, 1, seconds] for case, (seconds, _) in own.items()] + [[*case, seconds] for case, seconds in whole.items()]
    return {"machine": describe(), "cores": os.cpu_count(), "steps": steps, "sums": sums, "updates": updates}


# Fitting


class Model:
    """The formula above, its constants fitted to the figures ``found``."""

    def __init__(self, found):
        self.cores = found["cores"]
        P = np.array([parameters(H) for H in UNITS], float)
        self.u = np.mean([found["updates"][str(H)] for H in UNITS] / P)
        one = np.array([(parameters(H), b, seconds) for H, b, ranks, seconds in found["steps"] if ranks == 1])
        share = one[:, 2] / one[:, 0] - self.u
        self.a, self.d = least_squares(np.stack([np.ones(len(one)), one[:, 1]], axis=1), share)
        sums = [(int(N), 1e6 * float(MB), seconds) for N, each in found["sums"].items() for MB, seconds in each.items()]
        terms = np.array([(rounds(N), 2 * (N - 1) / N * size) for N, size, _ in sums])
        self.latency, inverse = least_squares(terms, np.array([seconds for *_, seconds in sums]))
        self.bandwidth = 1 / inverse if inverse > 0 else math.inf

    def here(self, H, b, N):
        """Seconds of a step of ranks that share this machine."""
        crowd = max(1, N / self.cores)
        return crowd * self.alone(H, b) + self.latency * rounds(N) + 8 * (N - 1) / N * parameters(H) / self.bandwidth

    def alone(self, H, b):
        """Of what a rank does by itself."""
        return (self.a + self.d * b + self.u) * parameters(H)

    def linked(self, H, b, N, bandwidth):
        """Of a step of ranks that have a host each, over a network of so many bytes a second."""
        return self.alone(H, b) + LATENCY * rounds(N) + 8 * (N - 1) / N * parameters(H) / bandwidth


def least_squares(terms, values):
    """Non-negative coefficients of two ``terms`` for the ``values``, each error counted relative to its value."""
    weights = 1 / values
    found = np.linalg.lstsq(terms * weights[:, None], values * weights, rcond=None)[0]
    for n in np.flatnonzero(found < 0):
        found[:] = 0
        other = terms[:, 1 - n] * weights
        found[1 - n] = (other @ np.ones(len(values))) / (other @ other)
    return found


def rounds(N):
    """Rounds of messages of a sum over N ranks: there and back along a tree."""
    return 2 * math.ceil(math.log2(N)) if N > 1 else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--allreduce", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--from", dest="source")
    parser.add_argument("--rounds", type=int, default=3, help="of the runs of two and four ranks")
    parser.add_argument("--out", help="keep the figures in this file")
    options = parser.parse_args()
    if options.allreduce:
        allreduce_times()
        return
    found = json.loads(Path(options.source).read_text()) if options.source else measured(options.rounds)
    if options.out:
        Path(options.out).write_text(json.dumps(found))
    model = Model(found)
    print(found["machine"])
    print("\n| ranks | " + " | ".join(f"sum of {MB} MB" for MB in BLOCKS) + " |\n|---|" + "---|" * len(BLOCKS))
    for N, each in found["sums"].items():
        print(f"| {N} | " + " | ".join(f"{1e3 * seconds:.2f} ms" for seconds in each.values()) + " |")
    print(f"\nfitted: a {model.a:.2e} s, d {model.d:.2e} s a stream, u {model.u:.2e} s, each a parameter;", end=" ")
    print(f"latency {1e6 * model.latency:.0f} us a round, bandwidth {model.bandwidth / 1e9:.2f} GB/s")
    print("\n| H | streams of a rank | ranks | step | the model's | off by | |\n|---|---|---|---|---|---|---|")
    for H, b, N, seconds in found["steps"]:
        guess = model.here(H, b, N)
        kind = "fitted to" if N == 1 else "not fitted to"
        times = f"{1e3 * seconds:.1f} ms | {1e3 * guess:.1f} ms | {100 * (guess / seconds - 1):+.0f} %"
        print(f"| {H} | {b} | {N} | {times} | {kind} |")
    extrapolate(model)


def extrapolate(model):
    """Two tables: what ranks on hosts of their own, one core each, bring for a batch that stays, and for one that grows."""
    cells = [(H, name, speed) for H in (256, 512, 1024, 2048) for name, speed in LINKS.items()]
    head = " | ".join(f"{N} ranks" for N in MANY)
    print(f"\nTimes as fast as one rank, a batch of {BATCH} streams shared out (in brackets: of the time computing):")
    print(f"\n| H | link | {head} | pays up to |\n|---|---|{'---|' * len(MANY)}---|")
    for H, name, speed in cells:
        step = lambda N, H=H, speed=speed: model.linked(H, BATCH / N, N, speed)  # noqa: E731
        busy = {N: (model.a + model.d * BATCH / N) * parameters(H) / step(N) for N in MANY}
        row = " | ".join(f"{step(1) / step(N):.1f} ({100 * busy[N]:.0f} %)" for N in MANY)
        print(f"| {H} | {name} | {row} | {pays_up_to(step)} |")
    b = STREAMS_OF_A_RANK
    print(f"\nCharacters a second in times of one rank's, {b} streams for each rank:")
    print(f"\n| H | link | {head} |\n|---|---|{'---|' * len(MANY)}")
    for H, name, speed in cells:
        row = " | ".join(f"{N * model.alone(H, b) / model.linked(H, b, N, speed):.1f}" for N in MANY)
        print(f"| {H} | {name} | {row} |")


def pays_up_to(step):
    """The largest power of two of ranks whose last doubling made a step at least 1.5 times as fast."""
    N = 1
    while 2 * N <= BATCH and step(N) >= 1.5 * step(2 * N):
        N *= 2
    return N


if __name__ == "__main__":
    main()

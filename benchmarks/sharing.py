"""Who should share out the work: every way that pydarknet could choose, alone and beside one other busy process.

    python benchmarks/sharing.py [--layer lstm] [--norm 1] [--processes 1] [--seconds 1.5] [--what train,valid,generate]

For each size each way works in turn for a while, and again; a figure is the mean time of a step (of a call of 512
characters for ``valid``, of a character for ``generate``) over all its turns. The last column is the time of what
pydarknet chooses by itself over that of the best way: 1 says that it chose the best.
"""

import argparse
import multiprocessing
import time
from contextlib import ExitStack, contextmanager

import numpy as np
from machine import describe, python_text

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.network import Network
from pydarknet.optim.optimizers import SGD
from pydarknet.sharing import Sharing, sharing_of_a_call, sharing_of_training
from pydarknet.training.processes import stream_processes

V, T = 256, 32
UNITS, STREAMS = (32, 64, 128, 256, 512), (4, 16, 64)
OPTIONS = {"lstm": "", "gru": "tanh=1\n", "rnn": "activation=tanh\n"}


def make(layer, H, B, norm):
    body = f"[{layer}]\noutput={H}\nbatch_normalize={norm}\n{OPTIONS[layer]}"
    text = f"[net]\ninputs={V}\nbatch={B}\ntime_steps={T}\n{body}[connected]\noutput={V}\nactivation=linear\n[softmax]\n"
    return Network(parse_cfg_text(text, "benchmark.cfg"), srand=1)


def training(stack, sharing, layer, H, B, norm, text):
    network = make(layer, H, B, norm)
    optimizer = SGD(network.parameters, momentum=0.9, decay=0)
    network.sharing = Sharing(threads=sharing.threads)
    train_call = stack.enter_context(stream_processes(network, sharing.processes))
    ids = symbols(text, T, B)

    def step():
        network.parameters.clear_gradients()
        train_call(ids[:-1], ids[1:])
        optimizer.update(network.parameters, 0.1, T * B)

    return step


def validation(stack, sharing, layer, H, B, norm, text):
    network = make(layer, H, B, norm)
    network.sharing = sharing
    ids = symbols(text, 512 // B, B)
    return lambda: network.nats(ids[:-1], ids[1:])


def symbols(text, steps, B):
    offsets = np.random.default_rng(1).integers(len(text) - steps - 1, size=B)
    return text[offsets + np.arange(steps + 1)[:, None]].astype(np.int64)


@contextmanager
def busy(wanted):
    """A process that does nothing but keep a core busy, if ``wanted``."""
    if not wanted:
        yield
        return
    process = multiprocessing.get_context("fork").Process(target=spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def spin():
    while True:
        pass


def measure(steps, seconds, turns=4):
    """The mean time of each of ``steps``, in turn."""
    spent, count = np.zeros(len(steps)), np.zeros(len(steps))
    for _ in range(turns):
        for n, step in enumerate(steps):
            step()
            start = time.perf_counter()
            while (now := time.perf_counter()) < start + seconds / turns:
                step()
                count[n] += 1
            spent[n] += now - start
    return spent / count


def ways_of(what, H, B, norm, only_one_process):
    ways = [Sharing(), Sharing(threads=2)]
    if what == "train" and not norm and not only_one_process and B >= 2:
        ways.append(Sharing(processes=2))
    return ways


def chosen(what, layer, H, B, norm, only_one_process):
    network = make(layer, H, B, norm)
    if what == "train" and not only_one_process:
        return sharing_of_training(network)
    return sharing_of_a_call(network.layers, B, what == "train")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer", default="lstm", choices=OPTIONS)
    parser.add_argument("--norm", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0, help="1: as with --processes 1")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each way")
    parser.add_argument("--what", default="train,valid")
    parser.add_argument("--alone", type=int, default=1, help="0: only beside a busy process")
    options = parser.parse_args()
    print(describe())
    text = python_text()
    kinds = {"train": training, "valid": validation}
    print("| what | H | B | beside | " + " | ".join(("one thread", "2 threads", "2 processes")) + " | chosen | of the best |")
    print("|---|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for what in options.what.split(","):
        for H in UNITS:
            for B in STREAMS:
                case = options.layer, H, B, options.norm
                ways = ways_of(what, H, B, options.norm, options.processes == 1)
                pick = chosen(what, *case, options.processes == 1)
                for beside in (False, True) if options.alone else (True,):
                    with ExitStack() as stack:
                        steps = [kinds[what](stack, way, *case, text) for way in ways]
                        for step in steps:
                            step()
                        with busy(beside):
                            times = measure(steps, options.seconds)
                    ratio = times[ways.index(pick)] / times.min()
                    worst = max(worst, ratio)
                    cells = [f"{1e3 * value:.2f} ms" for value in times] + [""] * (3 - len(ways))
                    name = "a busy process" if beside else "nothing"
                    print(f"| {what} | {H} | {B} | {name} | {' | '.join(cells)} | {pick} | {ratio:.2f} |", flush=True)
    print(f"\nthe worst: {worst:.2f}")


if __name__ == "__main__":
    main()

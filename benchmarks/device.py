"""Training with the gradients of PyTorch on a device against the engine: the time of an iteration, and whether losses agree.

    python benchmarks/device.py --device cuda [--quick]

Both train the same network from the same first weights on the same text, iteration by iteration in turn. A time is the
median; the last column is the largest relative difference of a loss in the first 20 iterations. It ends with 1 if that is more
than 1e-4 somewhere. (Later an RNN of this size amplifies the last digits: its losses in float32 and in float64 differ by 5 %
after 150 iterations, all by the engine.)
"""

import argparse
import sys
from contextlib import ExitStack

import numpy as np
from machine import describe, python_text

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.network import Network
from pydarknet.sharing import sharing_of_training
from pydarknet.text.corpus import Corpus
from pydarknet.training.device import torch_device
from pydarknet.training.processes import stream_processes
from pydarknet.training.trainer import Trainer

TOLERANCE = 1e-4
COMPARED = 20  # iterations
SIZES = [  # layer, units, layers, streams, steps
    ("lstm", 128, 1, 32, 50),
    ("lstm", 512, 1, 64, 64),
    ("lstm", 1024, 3, 128, 64),
    ("gru", 512, 1, 64, 64),
    ("rnn", 256, 1, 64, 20),
]
OPTIONS = {"lstm": "", "gru": "tanh=1\n", "rnn": "activation=tanh\n"}


def trainer_of(layer, H, count, B, T, iterations):
    net = f"[net]\ninputs=256\nbatch={B}\ntime_steps={T}\nadam=1\nlearning_rate=.001\nclip_norm=1\nmax_batches={iterations}\n"
    layers = f"[{layer}]\noutput={H}\n{OPTIONS[layer]}" * count
    cfg = parse_cfg_text(net + layers + "[connected]\noutput=256\nactivation=linear\n[softmax]\n", "benchmark.cfg")
    return Trainer(Network(cfg, srand=1), Corpus.from_symbols(python_text()), srand=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="20 iterations of the small sizes, not 50 of all")
    options = parser.parse_args()
    print(describe() + f", device {options.device}")
    print("| layer | H | layers | B | T | engine | device | times as fast | largest difference of a loss |")
    print("|---|---|---|---|---|---|---|---|---|")
    worst, iterations = 0.0, COMPARED if options.quick else 50
    for size in [size for size in SIZES if not options.quick or size[1] * size[2] <= 512]:
        with ExitStack() as stack:
            engine, device = (trainer_of(*size, iterations) for _ in range(2))
            processes = sharing_of_training(engine.network).processes
            engine.train_call = stack.enter_context(stream_processes(engine.network, processes))
            device.train_call = stack.enter_context(torch_device(device.network, options.device))
            steps = [(engine.step(), device.step()) for _ in range(iterations)]
        losses, seconds = (np.array([[getattr(step, name) for step in pair] for pair in steps]) for name in ("loss", "seconds"))
        difference = np.abs(losses[:COMPARED, 1] / losses[:COMPARED, 0] - 1).max()
        worst = max(worst, difference)
        ours, theirs = np.median(seconds[2:], axis=0)
        times = f"{1e3 * ours:.1f} ms | {1e3 * theirs:.1f} ms | {ours / theirs:.2f} | {difference:.1e}"
        print(f"| {' | '.join(map(str, size))} | {times} |", flush=True)
    print(f"\nlargest relative difference of a loss: {worst:.1e}; at most {TOLERANCE:.0e} is expected")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()

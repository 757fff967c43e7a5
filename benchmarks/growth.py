"""What grows with what: cost and memory against the length of the text, and time of a step against T and B.

    python benchmarks/growth.py [--largest 1000]

Texts of 1 MB to 1 GB (megabytes, ``--largest``) are made of standard library source in a temporary folder. Each
training run is a process of its own; its peak memory is the operating system's account.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import describe, python_text
from processes import HERE, run
from training import pydarknet_step, side_by_side

CFG = """[net]
inputs=256
batch=32
time_steps=50
learning_rate=.1
max_batches={iterations}
[lstm]
output=128
[connected]
output=256
activation=linear
[softmax]
"""

# As the command trains; it prints the median seconds of an iteration and the peak memory of all its processes.
TRAIN = """
import sys
sys.path.insert(0, {here!r})
import numpy as np
import pydarknet
from processes import peak_of_all
from pydarknet.sharing import sharing_of_training
from pydarknet.training.processes import stream_processes
network = pydarknet.load_network({cfg!r}, srand=1)
with pydarknet.Corpus.open({text!r}) as text, stream_processes(network, sharing_of_training(network).processes) as train_call:
    steps = list(pydarknet.Trainer(network, text, srand=1, train_call=train_call).run())
    print(np.median([step.seconds for step in steps]), peak_of_all())
"""


def growth_with_text(largest, iterations=300):
    print("| text MB | us a character | peak memory MB |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "growth.cfg").write_text(CFG.format(iterations=iterations))
        piece = python_text().tobytes()
        megabytes = 1
        while megabytes <= largest:
            text = folder / "text.txt"
            with open(text, "wb") as file:
                for _ in range(megabytes):
                    file.write(piece[:1_000_000].ljust(1_000_000))
            _, printed = run("-c", TRAIN.format(here=str(HERE), cfg=str(folder / "growth.cfg"), text=str(text)))
            seconds, peak = map(float, printed.split())
            print(f"| {megabytes} | {1e6 * seconds / (32 * 50):.2f} | {peak / 1e6:.0f} |", flush=True)
            megabytes *= 10


def growth_with_shape(H=128):
    print("\n| H | B | T | ms a step | us a character |")
    print("|---|---|---|---|---|")
    text = python_text()
    for B, T in ((32, 25), (32, 50), (32, 100), (32, 200), (64, 50), (128, 50), (256, 50)):
        offsets = np.random.default_rng(1).integers(len(text) - T - 1, size=B)
        ids = text[offsets + np.arange(T + 1)[:, None]].astype(np.int64)
        (seconds,) = side_by_side([pydarknet_step(H, B, T, 1, ids)], 0.2, 4)
        print(f"| {H} | {B} | {T} | {1e3 * seconds:.2f} | {1e6 * seconds / (T * B):.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=1000, help="the longest text, in MB")
    arguments = parser.parse_args()
    print(describe())
    growth_with_text(arguments.largest)
    growth_with_shape()


if __name__ == "__main__":
    sys.exit(main())

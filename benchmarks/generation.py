"""Symbols a second written at batch 1, and 16 texts at once, pydarknet against PyTorch, side by side.

    python benchmarks/generation.py             # beside PyTorch
    python benchmarks/generation.py controls    # what whole characters and the sampling controls cost

PyTorch runs the same network, one step at a time under inference mode, with a one-hot input and a
multinomial draw. Each figure is the best of several turns. The controls are measured on the network of
weights/rnn.weights and on an untrained one, in bytes a second beside plain ``generate``, which writes whole characters.
"""

import sys
import time
from pathlib import Path

import numpy as np
from machine import describe

V = 256


def pydarknet_writer(H, layers, streams):
    from pydarknet.darknet.cfg import parse_cfg_text
    from pydarknet.darknet.randomness import CRandom
    from pydarknet.inference.sample import generate
    from pydarknet.network import Network

    text = (
        f"[net]\ninputs={V}\n" + f"[lstm]\noutput={H}\n" * layers + f"[connected]\noutput={V}\nactivation=linear\n[softmax]\n"
    )
    network = Network(parse_cfg_text(text, "benchmark.cfg"), srand=1)

    def write(length):
        for _ in generate(network, b"\n", length, 0.7, CRandom(1), streams):
            pass

    return write


def torch_writer(H, layers, streams):
    import torch
    from torch.nn import functional

    lstm, linear = torch.nn.LSTM(V, H, layers), torch.nn.Linear(H, V)

    def write(length):
        with torch.inference_mode():
            symbol, state = torch.zeros(1, streams, dtype=torch.long), None
            for _ in range(length):
                h, state = lstm(functional.one_hot(symbol, V).float(), state)
                p = functional.softmax(linear(h[0]) / 0.7, dim=1)
                symbol = torch.multinomial(p, 1).T

    return write


def rate(write, length):
    start = time.perf_counter()
    write(length)
    return length / (time.perf_counter() - start)


CONTROLS = {
    "Darknet's bytes": dict(utf8=False),
    "plain": {},
    "temperature 0": dict(temperature=0),
    "top_k=40": dict(top_k=40),
    "top_p=.9": dict(top_p=0.9),
    "min_p=.05": dict(min_p=0.05),
    "repetition_penalty=1.1": dict(repetition_penalty=1.1),
    "all of them": dict(top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.1),
}


def controls():
    from pydarknet import load_network
    from pydarknet.darknet.randomness import CRandom
    from pydarknet.inference.sample import generate

    root = Path(__file__).parent.parent

    def bytes_a_second(network, streams, temperature=0.7, utf8=True, **options):
        written, start = 0, time.perf_counter()
        for step in generate(network, b"\n", 10**9, temperature, CRandom(1), streams, utf8=utf8, **options):
            written += len(step)
            if written % (streams << 6) == 0 and time.perf_counter() - start > 0.4:
                return written / (time.perf_counter() - start)

    print("| network | texts at once | " + " | ".join(CONTROLS) + " |")
    print("|---" * (2 + len(CONTROLS)) + "|")
    for name, weights in (("weights/rnn.weights", root / "weights" / "rnn.weights"), ("untrained", None)):
        network = load_network(root / "cfg" / "rnn.cfg", weights, srand=1)
        for streams in (1, 16):
            best = dict.fromkeys(CONTROLS, 0.0)
            for _ in range(8):  # in turns, so that what else the machine does meets all of them
                for label, options in CONTROLS.items():
                    best[label] = max(best[label], bytes_a_second(network, streams, **options))
            cells = [f"{rate:,.0f} ({rate / best['plain'] - 1:+.0%})" for rate in best.values()]
            print(f"| {name} | {streams} | " + " | ".join(cells) + " |", flush=True)


def main():
    import torch

    torch.set_num_threads(2)
    print("| H x layers | texts at once | pydarknet chars/s | PyTorch chars/s | ratio |")
    print("|---|---|---|---|---|")
    for H, layers, streams in ((128, 1, 1), (512, 2, 1), (128, 1, 16), (512, 2, 16)):
        writers = pydarknet_writer(H, layers, streams), torch_writer(H, layers, streams)
        lengths = [int(max(50, rate(write, 50) * 0.5)) for write in writers]
        best = np.zeros(2)
        for _ in range(6):
            for n, (write, length) in enumerate(zip(writers, lengths)):
                best[n] = max(best[n], streams * rate(write, length))
        print(f"| {H} x {layers} | {streams} | {best[0]:,.0f} | {best[1]:,.0f} | {best[0] / best[1]:.1f} |", flush=True)


if __name__ == "__main__":
    print(describe())
    controls() if sys.argv[1:] == ["controls"] else main()

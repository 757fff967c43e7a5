"""One whole training step (forward, loss, backward, update), pydarknet against PyTorch, side by side.

    python benchmarks/training.py [--quick] [--points 0,3,5]

Both run from this process, pydarknet with the processes and threads that the command would use, PyTorch
with two threads, in turn, in bursts of a few steps; the figure of each is its best step over all bursts,
so that neither a slow moment of the machine nor the other's idle threads weigh on it.
The floating-point operations counted are those of the dense matrix products alone: the one-hot input
of the first layer counts for nothing, although PyTorch multiplies with it.
"""

import argparse
import time
from contextlib import ExitStack

import numpy as np
from machine import describe, matrix_product_peak, python_text

GRID = [
    (64, 16, 32, 1),
    (128, 32, 50, 1),
    (128, 50, 50, 2),
    (256, 64, 64, 1),
    (256, 64, 64, 2),
    (512, 64, 64, 1),
    (512, 128, 100, 2),
    (1024, 64, 64, 1),
    (1024, 128, 32, 3),
]
V = 256
KEPT = ExitStack()  # what ends with the benchmark: pydarknet's processes


def pydarknet_step(H, B, T, layers, ids):
    """A function that does one training step of pydarknet, as the command trains, on the symbols ``ids`` (T+1, B)."""
    from pydarknet.darknet.cfg import parse_cfg_text
    from pydarknet.network import Network
    from pydarknet.optim.optimizers import SGD
    from pydarknet.sharing import sharing_of_training
    from pydarknet.training.processes import stream_processes

    text = (
        f"[net]\ninputs={V}\nbatch={B}\ntime_steps={T}\n"
        + f"[lstm]\noutput={H}\n" * layers
        + f"[connected]\noutput={V}\nactivation=linear\n[softmax]\n"
    )
    network = Network(parse_cfg_text(text, "benchmark.cfg"), srand=1)
    optimizer = SGD(network.parameters, momentum=0.9, decay=0)
    train_call = KEPT.enter_context(stream_processes(network, sharing_of_training(network).processes))

    def step():
        network.parameters.clear_gradients()
        train_call(ids[:-1], ids[1:])
        optimizer.update(network.parameters, 0.1, T * B)

    return step


def torch_step(H, B, T, layers, ids):
    """The same with torch.nn.LSTM, Linear, cross-entropy, a one-hot input and SGD with momentum."""
    import torch
    from torch.nn import functional

    lstm, linear = torch.nn.LSTM(V, H, layers), torch.nn.Linear(H, V)
    optimizer = torch.optim.SGD([*lstm.parameters(), *linear.parameters()], lr=0.1, momentum=0.9)
    x, y = torch.from_numpy(ids[:-1].copy()), torch.from_numpy(ids[1:].reshape(-1).copy())
    state = None

    def step():
        nonlocal state
        h, new = lstm(functional.one_hot(x, V).float(), state)
        loss = functional.cross_entropy(linear(h).reshape(-1, V), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(s.detach() for s in new)
        return loss.item()

    return step


def side_by_side(steps, burst_seconds, rounds):
    """The best time of each of ``steps``, run in turn in bursts."""
    best = []
    for step in steps:
        step()
        start = time.perf_counter()
        step()
        best.append(time.perf_counter() - start)
    for _ in range(rounds):
        for n, step in enumerate(steps):
            for _ in range(max(2, int(burst_seconds / best[n]))):
                start = time.perf_counter()
                step()
                best[n] = min(best[n], time.perf_counter() - start)
    return best


def dense_operations(H, B, T, layers):
    """Floating-point operations of the matrix products of a step: forward, and twice as many backward."""
    recurrent = sum(4 * H * (H + (H if layer else 0)) for layer in range(layers))
    return 3 * 2 * T * B * (recurrent + V * H)


def symbols(text, point):
    """Symbols (T+1, B) from random places of ``text``, for the point number ``point`` of the grid."""
    _, B, T, _ = GRID[point]
    offsets = np.random.default_rng(1).integers(len(text) - T - 1, size=B)
    return text[offsets + np.arange(T + 1)[:, None]].astype(np.int64)


def arguments(description):
    """The command line: ``points``, and how many ``rounds`` of how long a ``burst``, in seconds."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--points", type=lambda text: [int(n) for n in text.split(",")], default=range(len(GRID)), help="indices into the grid"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    parsed = parser.parse_args()
    parsed.rounds, parsed.burst = (3, 0.1) if parsed.quick else (8, 0.3)
    return parsed


def main():
    options = arguments(__doc__)
    import torch

    torch.set_num_threads(2)
    print(describe())
    text = python_text()
    ratios = []
    print("| H | B | T | layers | pydarknet ms | PyTorch ms | PyTorch / pydarknet | GFLOP/s | of peak |")
    print("|---|---|---|---|---|---|---|---|---|")
    for n in options.points:
        H, B, T, layers = GRID[n]
        ids = symbols(text, n)
        ours, theirs = side_by_side(
            [pydarknet_step(H, B, T, layers, ids), torch_step(H, B, T, layers, ids)], options.burst, options.rounds
        )
        peak = matrix_product_peak()
        rate = dense_operations(H, B, T, layers) / ours
        ratios.append(theirs / ours)
        print(
            f"| {H} | {B} | {T} | {layers} | {1e3 * ours:.2f} | {1e3 * theirs:.2f} | {theirs / ours:.2f} | "
            f"{rate / 1e9:.0f} | {rate / peak:.0%} |",
            flush=True,
        )
    print(f"\ngeometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.2f}")


if __name__ == "__main__":
    main()

"""How much faster than PyTorch a training step could be if nothing but its matrix products were left.

    python benchmarks/limit.py [--quick] [--points 0,3,5]

The products of the step, as many and as large as the equations ask for, are done by NumPy with nothing
between them: by this process with the matrix library's threads, and by two processes with half of the
streams and one thread each; the faster of the two counts. Beside it, in turn, one whole step of PyTorch
and of pydarknet, as in training.py. The one-hot input of the first layer, which needs no product, is left
out. It is a limit for these two ways to share out the products: threads that share out the units, as
pydarknet has for large layers, are not tried.
"""

import multiprocessing

import numpy as np
import training
from machine import describe, python_text
from training import GRID, V

from pydarknet.system.threads import blas_limited


def products_step(H, B, T, layers):
    """A function that does the matrix products of one training step of B streams."""
    random = np.random.default_rng(0)

    def array(*shape):
        return random.random(shape, np.float32)

    W, W_T, h, dz = array(4 * H, H), array(H, 4 * H), array(H, T * B), array(4 * H, T * B)
    h_t, dz_t, z_t, dh_t = array(H, B), array(4 * H, B), array(4 * H, B), array(H, B)
    dW, outputs, W_out, dW_out, dy = array(4 * H, H), array(V, T * B), array(V, H), array(V, H), array(H, T * B)

    def step():
        for layer in range(layers):
            for _ in range(T):
                np.matmul(W, h_t, out=z_t)
            for _ in range(T):
                np.matmul(W_T, dz_t, out=dh_t)
            np.matmul(dz, h.T, out=dW)
            if layer:  # the input from below: forward, and the gradients of weights and input
                np.matmul(W, h, out=dz)
                np.matmul(dz, h.T, out=dW)
                np.matmul(W_T, dz, out=dy)
        np.matmul(W_out, h, out=outputs)
        np.matmul(outputs, h.T, out=dW_out)
        np.matmul(W_out.T, outputs, out=dy)

    return step


def two_processes(make):
    """A function that calls ``make()``'s in this process and in a fork of it at once, on one thread each."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    own = make()

    def work():
        other = make()
        with blas_limited(1):
            while theirs.recv():
                other()
                theirs.send(True)

    context.Process(target=work, daemon=True).start()

    def step():
        ours.send(True)
        with blas_limited(1):
            own()
        ours.recv()

    return step


def main():
    options = training.arguments(__doc__)
    import torch

    # Before PyTorch has threads, which a fork would not survive.
    halves = {n: two_processes(lambda n=n: products_step(GRID[n][0], GRID[n][1] // 2, *GRID[n][2:])) for n in options.points}
    torch.set_num_threads(2)
    print(describe())
    text = python_text()
    print("| H | B | T | layers | products ms | pydarknet ms | PyTorch ms | PyTorch / pydarknet | PyTorch / products |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios = []
    for n in options.points:
        ids = training.symbols(text, n)
        steps = [products_step(*GRID[n]), halves[n], training.pydarknet_step(*GRID[n], ids), training.torch_step(*GRID[n], ids)]
        *products, ours, theirs = training.side_by_side(steps, options.burst, options.rounds)
        ratios.append((theirs / ours, theirs / min(products)))
        times = (f"{1e3 * t:.2f}" for t in (min(products), ours, theirs))
        print("| " + " | ".join([*map(str, GRID[n]), *times, *(f"{ratio:.2f}" for ratio in ratios[-1])]) + " |", flush=True)
    print("\ngeometric means of the ratios:", *(f"{mean:.2f}" for mean in np.exp(np.mean(np.log(ratios), axis=0))))


if __name__ == "__main__":
    main()

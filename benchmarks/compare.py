"""One checkout of pydarknet against another, in turn: training steps over the grid of ``training.py``.

    python benchmarks/compare.py OTHER_CHECKOUT [--quick] [--points 0,3,5] [--processes 1]

Each checkout has a process of its own, which waits while the other works. The figure of each is its best step
over all bursts; the ratio is the other's time over ours, so that above 1 ours is faster.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import describe, python_text
from training import GRID, V, symbols

HERE = Path(__file__).resolve().parent.parent
OPTIONS = {"lstm": "", "gru": "tanh=1\n", "rnn": "activation=tanh\n"}


def make_step(H, B, T, layers, ids, processes, layer, norm):
    """One training step of the pydarknet that this process finds, of today's layout or of the flat one before it."""
    try:
        from pydarknet.darknet.cfg import parse_cfg_text
        from pydarknet.optim.optimizers import SGD
        from pydarknet.training.processes import stream_processes
    except ImportError:
        from pydarknet.cfg import parse_cfg_text
        from pydarknet.optimizers import SGD
        from pydarknet.parallel import stream_processes
    from pydarknet.network import Network

    options = OPTIONS[layer] + f"batch_normalize={norm}\n"
    text = (
        f"[net]\ninputs={V}\nbatch={B}\ntime_steps={T}\n"
        + f"[{layer}]\noutput={H}\n{options}" * layers
        + f"[connected]\noutput={V}\nactivation=linear\n[softmax]\n"
    )
    network = Network(parse_cfg_text(text, "benchmark.cfg"), srand=1)
    optimizer = SGD(network.parameters, momentum=0.9, decay=0)
    context = stream_processes(network, processes or automatic(network))
    train_call = context.__enter__()

    def step():
        network.parameters.clear_gradients()
        train_call(ids[:-1], ids[1:])
        optimizer.update(network.parameters, 0.1, T * B)

    step.keep = context
    return step


def automatic(network):
    """As many processes as the checkout would use by itself."""
    try:
        from pydarknet.sharing import sharing_of_training

        return sharing_of_training(network).processes
    except ImportError:
        from pydarknet.parallel import suitable_processes

        return suitable_processes(network)


def worker(point, processes, layer, norm):
    """Read a number of seconds, work as long, and write the best time of a step; and again."""
    H, B, T, layers = GRID[point]
    step = make_step(H, B, T, layers, symbols(python_text(), point), processes, layer, norm)
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        best, end, count = np.inf, time.perf_counter() + float(line), 0
        while time.perf_counter() < end or count < 2:
            start = time.perf_counter()
            step()
            best, count = min(best, time.perf_counter() - start), count + 1
        print(best, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", nargs="?")
    parser.add_argument("--points", type=lambda text: [int(n) for n in text.split(",")], default=range(len(GRID)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=0, help="0: as the checkout chooses")
    parser.add_argument("--layer", default="lstm", choices=OPTIONS)
    parser.add_argument("--norm", type=int, default=0, help="1: with batch_normalize=1")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker, options.processes, options.layer, options.norm)
        return
    print(describe())
    print("| H | B | T | layers | ours ms | other ms | other / ours |\n|---|---|---|---|---|---|---|")
    rounds, burst = (6, 0.15) if options.quick else (16, 0.3)
    ratios = []
    for point in options.points:
        workers = [start(checkout, point, options) for checkout in (HERE, options.other)]
        best = [np.inf, np.inf]
        for _ in range(rounds):
            for n, process in enumerate(workers):
                process.stdin.write(f"{burst}\n")
                process.stdin.flush()
                best[n] = min(best[n], float(process.stdout.readline()))
        for process in workers:
            process.stdin.close()
            process.wait()
        ratios.append(best[1] / best[0])
        row = " | ".join(map(str, GRID[point]))
        print(f"| {row} | {1e3 * best[0]:.2f} | {1e3 * best[1]:.2f} | {ratios[-1]:.3f} |", flush=True)
    print(f"\ngeometric mean: {np.exp(np.mean(np.log(ratios))):.3f}")


def start(checkout, point, options):
    arguments = [f"--worker={point}", f"--processes={options.processes}", f"--layer={options.layer}", f"--norm={options.norm}"]
    setting = f"import sys; sys.path.insert(0, {str(checkout)!r}); sys.argv = ['compare.py', *{arguments!r}]"
    code = setting + "; import compare; compare.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=HERE / "benchmarks", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


if __name__ == "__main__":
    main()

"""A run that is killed again and again: python3 tests/soak.py --minutes 60

It trains with workers, a held-out text and frequent saves, and every half minute (--seconds) the run, one of its workers, or
both get a SIGKILL; then every file must be whole, nothing of what was saved lost, and --resume goes on. In the end the same run
is made without a stop, which takes as long again, and every file must be the same to the bit.
"""

import argparse
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from runs import LAYERS, bytes_of, check_whole, kill_some, start, write_cfg, write_text

LAYERS = LAYERS.replace("output=7", "output=96").replace("[connected]", "[dropout]\nprobability=.2\n[connected]")
SAVE_EVERY = 100
TRAIN = ("train", "tiny.cfg", "text.bin", "--srand", 1, "--processes", 2, "--save-every", SAVE_EVERY, "--valid-fraction", 0.1)
TRAIN = (*TRAIN, "--valid-every", 50, "--no-sample", "--print-every", 100)


def killed(folder, seconds, resume, moments):
    """Run for about so many ``seconds``, then kill; what was killed, and the last line that was said."""
    with open(folder / "said", "w+") as said:
        process = start(*TRAIN, "--max-batches", 10**9, *resume, cwd=folder, stdout=said, stderr=said)
        time.sleep(seconds * moments.uniform(0.5, 1.5))
        whom = kill_some(process, moments)
        code = process.wait(120)
        said.seek(0)
        lines = said.read().splitlines()
    if code != -signal.SIGKILL and not (whom != "run" and code == 1 and "a process that shared the work" in lines[-1]):
        raise SystemExit(f"the run ended with {code}: {lines[-5:]}")
    wrong = [line for line in lines if "Traceback" in line or "warning" in line]
    if wrong:
        raise SystemExit(f"the run said: {wrong}")
    return whom


def finish(folder, iterations, *options):
    with open(folder / "said", "w") as said:
        code = start(*TRAIN, "--max-batches", iterations, *options, cwd=folder, stdout=said, stderr=said).wait()
    if code:
        raise SystemExit(f"{(folder / 'said').read_text()}the run ended with {code}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of kills; the undisturbed run takes as long again")
    parser.add_argument("--seconds", type=float, default=30, help="between two kills, on average")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    options = parser.parse_args()
    folder, moments = Path(tempfile.mkdtemp(prefix="pydarknet-soak-")), random.Random(options.seed)
    write_cfg(folder, LAYERS, batch=32, subdivisions=2, time_steps=32, learning_rate=0.1)
    write_text(folder, 60_000)
    end, counts, reached = time.monotonic() + 60 * options.minutes, {"run": 0, "worker": 0, "both": 0}, 0
    while time.monotonic() < end:
        counts[killed(folder, options.seconds, ["--resume"] if reached else ["--overwrite"], moments)] += 1
        before, reached = reached, check_whole(folder)
        print(f"killed {counts}, the checkpoint is of iteration {reached}", flush=True)
        if reached < before:
            raise SystemExit(f"{folder}: the checkpoint was of iteration {before}")
    # A run that lost a worker saved at an iteration of its own: two more regular saves take the place of that.
    last = (reached // SAVE_EVERY + 2) * SAVE_EVERY
    finish(folder, last, "--resume")
    finish(folder, last, "--backup", "whole")
    a, b = bytes_of(folder / "whole"), bytes_of(folder / "backup")
    different = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    if different:
        raise SystemExit(f"{folder}: not as in the run without a stop: {different}")
    print(f"{sum(counts.values())} kills, {last} iterations, {len(a)} files: all as in the run without a stop")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""How many planted mistakes of typing `pydarknet score` puts first, by each of its measures.

    python benchmarks/mistakes.py tinyshakespeare.txt

40 lines of the part of tiny Shakespeare that weights/shakespeare.weights has not seen get a mistake each: two letters
change places, one is left out, doubled, or another.
"""

import random
import sys
from pathlib import Path

import numpy as np

from pydarknet import Corpus, load_network
from pydarknet.inference.score import MEASURES, lines_of, most_surprising
from pydarknet.inference.valid import blocks_of_corpus, surprise

ROOT = Path(__file__).parent.parent
HELD_OUT, SCORED, PLANTED = 111_540, 60_000, 40


def with_mistake(line, random):
    """``line`` with a mistake in the middle of a word."""
    places = [
        n
        for n in range(1, len(line) - 2)
        if line[n - 1].isalpha() and line[n].islower() and line[n + 1].islower() and line[n] != line[n + 1]
    ]
    n = random.choice(places)
    before, letter, following, rest = line[:n], line[n], line[n + 1], line[n + 2 :]
    return (
        before
        + random.choice(
            [following + letter, following, 2 * letter + following, random.choice("abcdefghijklmnopqrstuvwxyz") + following]
        )
        + rest
    )


def main(path):
    chance = random.Random(5)
    lines = Path(path).read_bytes()[-HELD_OUT:][:SCORED].decode().split("\n")
    planted = set(chance.sample([n for n, line in enumerate(lines) if len(line) > 25], PLANTED))
    for n in planted:
        lines[n] = with_mistake(lines[n], chance)
    data = "\n".join(lines).encode()
    network = load_network(ROOT / "cfg" / "shakespeare.cfg", ROOT / "weights" / "shakespeare.weights")
    blocks = blocks_of_corpus(Corpus.from_symbols(data), network.inputs)
    scored = lines_of(data, np.concatenate([nats for *_, nats in surprise(network, blocks)]))
    print(f"{PLANTED} mistakes in {len(scored)} lines; found among the first 20, 40, 80:")
    for measure in MEASURES:
        found = [line.number - 1 in planted for line in most_surprising(scored, 80, measure)]
        print(f"{measure}: {sum(found[:20])}, {sum(found[:40])}, {sum(found)}")


if __name__ == "__main__":
    main(sys.argv[1])

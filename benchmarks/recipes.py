"""One cell of docs/recipes.md again: a recipe's network, trained on so many characters, and its loss on a part held out.

python benchmarks/recipes.py novel.txt --characters 1e6 --set gru.output=160 --set net.batch=16

The first 80 % of the text are trained on, the next 10 % measure. With --test the last 10 % do: once, when all is chosen.
Everything goes by characters, not seconds: a cell is the same on a slow machine, and beside other work.
"""

import argparse
import json
import time

from pydarknet import Corpus, Trainer, load_network
from pydarknet.darknet.cfg import parse_cfg, parse_cfg_text
from pydarknet.training.recipe import Recipe, batch_of, dropout, learning_rate, output_rate, vocabulary
from pydarknet.training.validation import Validation

LONGEST = 200_000  # characters that are measured


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text")
    parser.add_argument("--characters", type=float, default=1e6, help="how many to train on")
    parser.add_argument("--output", type=int, default=160, help="units")
    parser.add_argument("--train", type=float, default=0.8, help="the share of the text, from its beginning, to train on")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--replace", action="append", default=[], metavar="A=B", help="replace A by B in the recipe: gru=lstm")
    parser.add_argument("--cfg", help="a cfg file in place of the recipe's")
    parser.add_argument("--measurements", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="measure the last tenth")
    options = parser.parse_args()

    whole = Corpus.open(options.text)
    n = len(whole)
    text = whole.slice(0, int(n * options.train))
    measured = whole.slice(int(n * 0.9), n) if options.test else whole.slice(int(n * 0.8), int(n * 0.9))
    measured = measured if options.test else measured.slice(0, min(len(measured), LONGEST))
    inputs, batch = vocabulary(whole), batch_of(options.characters)
    parameters = 3 * options.output * (options.output + inputs) + options.output * inputs
    drops = dropout(parameters, options.characters / len(text), len(text))
    rates = learning_rate(options.output), output_rate(options.characters)
    recipe = Recipe(inputs, options.output, *batch, *drops, *rates, 10**6)
    cfg_text = recipe.text()
    for pair in options.replace:
        cfg_text = cfg_text.replace(*pair.split("=", 1))
    cfg = parse_cfg(options.cfg) if options.cfg else parse_cfg_text(cfg_text, "recipe.cfg")
    for setting in options.settings:
        cfg.set(setting)
    batch = int(cfg.net.options["batch"][0]) * int(cfg.net.options["time_steps"][0])
    iterations = max(1, int(options.characters / batch))
    cfg.set(f"net.max_batches={iterations}")
    cfg.set(f"net.burn_in={max(1, min(100, iterations // 20))}")
    network = load_network(cfg, srand=options.seed)
    every = max(1, iterations // options.measurements)
    trainer = Trainer(network, text, srand=options.seed, validation=Validation(network, measured, every))
    begun = time.perf_counter()
    for step in trainer.run():
        if step.valid_loss is None:
            continue
        found = {"iteration": step.iteration, "training": round(step.avg_loss, 4), "held_out": round(step.valid_loss, 4)}
        print(json.dumps({**found, "seconds": round(time.perf_counter() - begun)}), flush=True)


if __name__ == "__main__":
    main()

"""``pydarknet new``: a cfg that suits a text and this machine, without training."""

import os
import time

import click

from pydarknet.cli.commands import Number, argument, command, to_copy
from pydarknet.cli.options import PATH, settings_option, showing_trials
from pydarknet.cli.streams import tell
from pydarknet.errors import InputError
from pydarknet.system.files import check_output, check_writable, reported, show, write_atomically
from pydarknet.text.corpus import Corpus
from pydarknet.training.recipe import MINUTES, cfg_to_save, held_out_of, make_recipe, measurements_every


@command()
@click.argument("cfg", type=PATH)
@click.option(
    "--text", "texts", type=PATH, multiple=True, required=True, help="The text, a file or folder; several are joined."
)
@click.option("--minutes", type=Number(0.1, 100000), default=MINUTES, show_default=True, help="How long a run may take here.")
@click.option("-tokenized", "--tokenized", is_flag=True, help="TEXT holds whole numbers, one a symbol, instead of bytes.")
@settings_option
@click.option("--overwrite", is_flag=True, help="Replace CFG if it exists.")
def new(cfg, texts, minutes, tokenized, settings, overwrite):
    """Write a CFG that suits a text, this machine and the time that you give it.

    Candidates are tried for a few seconds, and what is chosen, and why, stands at the top of the file. `pydarknet train TEXT`
    does the same and trains at once. The parts of the text that it would hold out are not looked at.

    Example: pydarknet new my.cfg --text novel.txt --minutes 60
    """
    begun = time.perf_counter()
    check_output(cfg, texts)
    if os.path.lexists(cfg) and not overwrite:
        raise InputError(f"{show(cfg)}: already exists: give another name, or --overwrite to replace it")
    with reported(InputError, cfg, "cannot write the cfg"):
        check_writable(cfg)
    corpus = Corpus.open(texts, tokenized=tokenized)
    fraction, parts = held_out_of(len(corpus))
    training, held_out = corpus.split(fraction, parts)
    seconds = minutes * 60 - (time.perf_counter() - begun)
    with showing_trials() as trying:
        recipe = make_recipe(training, len(held_out), seconds, trying=trying, settings=settings)
    parsed = recipe.cfg(cfg)
    for setting in settings:
        parsed.set(setting)
    with reported(InputError, cfg, "cannot write the cfg"):
        write_atomically(cfg, [(cfg_to_save(parsed, recipe) or "").encode()])
    for line in recipe.why:
        tell(line)
    every = measurements_every(len(held_out), recipe.streams, recipe.steps)
    words = ["pydarknet", "train", *map(argument, (cfg, *texts)), *(["--tokenized"] if tokenized else [])]
    words += ["--valid-fraction", f"{fraction:g}", "--valid-parts", str(parts), "--valid-every", str(every)]
    click.echo(f"Wrote {show(cfg)}; train it with: {to_copy(words)}")

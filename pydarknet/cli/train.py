"""``pydarknet train``: the loop of :class:`~pydarknet.trainer.Trainer` with its reports, backups and signals."""

import signal
import sys
from contextlib import ExitStack, contextmanager

import click

from pydarknet.backups import Backups
from pydarknet.cli.options import PATH, dialect_option, split_weights, srand_option
from pydarknet.cli.report import JsonLog, make_report
from pydarknet.corpus import Corpus
from pydarknet.network import load_network
from pydarknet.trainer import Trainer


@click.command()
@click.argument("cfg", type=PATH)
@click.argument("paths", metavar="[WEIGHTS] TEXT...", nargs=-1, type=PATH)
@click.option("-file", "--file", "text_file", type=PATH, help="The text, as Darknet spells it; then [WEIGHTS] may have any name.")
@click.option("--weights", type=PATH, help="Weights file to start from; they are drawn at random otherwise.")
@click.option("-clear", "--clear", is_flag=True, help="Count iterations from 0, whatever the weights have behind them.")
@click.option("-tokenized", "--tokenized", is_flag=True, help="TEXT holds whole numbers, one a symbol, instead of bytes.")
@click.option("--max-batches", type=click.IntRange(1, 2**31 - 1), help="Number of the last iteration, in place of the cfg's max_batches.")
@click.option("--backup", "folder", type=PATH, default="backup", show_default=True, help="Folder for the weights, made when missing.")
@click.option("--save-every", type=click.IntRange(1), metavar="N",
              help="Refresh BASE.backup and keep BASE_ITERATION.weights every N iterations "
                   "(default, as in Darknet: 100 and 10000).")
@click.option("--log", "log_file", type=PATH, help="Append one JSON object an iteration to this file.")
@srand_option("a run")
@dialect_option
def train(cfg, paths, text_file, weights, clear, tokenized, max_batches, folder, save_every, log_file, srand, dialect):
    """Train the network of CFG on the text of one or more files or folders.

    A first path named *.weights or *.backup is the weights file to start from. The weights go to
    the folder `backup` under Darknet's names. Ctrl-C saves and stops.

    Example: pydarknet train cfg/rnn.cfg data/stdlib.txt --max-batches 500
    """
    if text_file is not None:
        if len(paths) > 1 or (paths and weights):
            raise click.UsageError("with -file, at most one more path is allowed: the weights to start from")
        paths, weights = (text_file,), paths[0] if paths else weights
    else:
        paths, weights = split_weights(paths, weights)
    if not paths:
        raise click.UsageError("Missing argument 'TEXT': the file or folder to train on.")
    network = load_network(cfg, weights, dialect=dialect, srand=srand)
    if clear:
        network.seen = 0
    corpus = Corpus.open(paths, tokenized=tokenized)
    trainer = Trainer(network, corpus, max_batches, srand)
    backups = Backups(network, folder, save_every)
    with ExitStack() as stack:
        log = stack.enter_context(JsonLog(log_file)) if log_file else None
        report = stack.enter_context(make_report(trainer))
        stopped_by = stack.enter_context(stop_signals())
        for step in trainer.run():
            report(step)
            if log:
                log.write(step)
            if stopped_by:
                break
            backups.after(step.iteration)
    if stopped_by:
        path = backups.save_backup()
        click.echo(f"pydarknet: stopped after iteration {trainer.iteration}; go on with: "
                   f"pydarknet train {cfg} {path} ...", err=True)
        sys.exit(128 + stopped_by[0])
    click.echo(f"Saved {backups.save_final()}")


@contextmanager
def stop_signals():
    """While it lasts, SIGINT and SIGTERM are only noted, in the list it gives; a second SIGINT interrupts at once.

    So an iteration is always whole: an interrupted update would leave half of the parameters moved.
    """
    noted = []

    def note(number, frame):
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

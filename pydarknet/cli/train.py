"""``pydarknet train``: the loop of :class:`~pydarknet.training.trainer.Trainer` with its reports, backups and signals."""

import os
import re
import shlex
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from pydarknet.cli.commands import Number, argument, command, to_copy, typed_without, typed_words, with_options
from pydarknet.cli.log import Picture, check_log, check_names, header, open_log
from pydarknet.cli.options import (
    PATH,
    check_name,
    dialect_option,
    settings_option,
    showing_trials,
    split_cfg,
    split_weights,
    srand_option,
)
from pydarknet.cli.ranks import make_ranks
from pydarknet.cli.run import follow, run_and_tell, tell_what_next
from pydarknet.cli.signals import StopSignals
from pydarknet.cli.streams import tell
from pydarknet.cli.tensorboard import TensorBoard, summary_writer
from pydarknet.darknet.recipes import cfg_path
from pydarknet.darknet.weights import read_header
from pydarknet.errors import LONGEST, TrainingError
from pydarknet.network import load_network
from pydarknet.sharing import sharing_in_processes, sharing_of_training
from pydarknet.system.files import check_output, check_outside, check_writable, reported, show
from pydarknet.system.kinds import CFG, CHECKPOINT, is_kind
from pydarknet.text.corpus import Corpus
from pydarknet.text.utf8 import is_utf8, unit_of
from pydarknet.training.backups import Backups, base_name, base_of_text, check_folder, lock_to_resume, newest_checkpoint
from pydarknet.training.checkpoint import read_checkpoint
from pydarknet.training.processes import stream_processes
from pydarknet.training.recipe import MINUTES, cfg_to_save, held_out_of, make_recipe, measurements_every
from pydarknet.training.samples import Samples
from pydarknet.training.trainer import Trainer
from pydarknet.training.validation import Validation
from pydarknet.views.picture import check_picture

OF_THE_RUN_BEFORE = ("resume", "minutes", "overwrite", "clear", "weights")  # options that a run of its own does without


@command(
    sections={
        "Text and weights": "text_file tokenized weights dialect clear resume",
        "Length and files": "minutes max_batches settings folder name save_every overwrite",
        "Progress": "sample_every no_sample log_file log_every tensorboard plot_file print_every quiet verbose",
        "Held-out text": "valid_file valid_fraction valid_parts valid_every plateau patience",
    }
)
@click.argument("paths", metavar="[CFG] [WEIGHTS] TEXT...", nargs=-1, type=PATH)
@click.option(
    "-file", "--file", "text_file", type=PATH, help="The text, as Darknet spells it; then [WEIGHTS] may have any name."
)
@click.option("--weights", type=PATH, help="Weights file to start from; they are drawn at random otherwise.")
@click.option("-clear", "--clear", is_flag=True, help="Count iterations from 0, however long the weights were trained before.")
@click.option(
    "--resume", is_flag=True, help="Go on from the checkpoint in the backup folder, exactly as if the run had not stopped."
)
@click.option("-tokenized", "--tokenized", is_flag=True, help="TEXT holds whole numbers, one a symbol, instead of bytes.")
@click.option(
    "--minutes",
    type=Number(0.1, 100000),
    help="Without CFG: how long the run may take here, its preparation included (default: 5).",
)
@click.option(
    "--max-batches", type=click.IntRange(1, 2**31 - 1), help="Number of the last iteration, in place of the cfg's max_batches."
)
@settings_option
@click.option(
    "--backup", "folder", type=PATH, default="backup", show_default=True, help="Folder for the weights, made when missing."
)
@click.option("--name", callback=check_name, help="Begin the names of the files with NAME, not with that of the cfg.")
@click.option(
    "--save-every",
    type=click.IntRange(1),
    metavar="N",
    help="Refresh BASE.backup and keep BASE_ITERATION.weights every N iterations (default, as in Darknet: 100 and 10000).",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files; without it those of an earlier run get another name.")
@click.option(
    "--sample-every",
    type=click.IntRange(1),
    metavar="N",
    help="Show what the network writes every N iterations (default: at measurements, for at most a hundredth of the time).",
)
@click.option("--no-sample", is_flag=True, help="Show no samples of what the network writes during training.")
@click.option(
    "--log",
    "log_file",
    type=PATH,
    help="Append one JSON object per iteration to this file, or one row if its name ends in .csv.",
)
@click.option(
    "--log-every", type=click.IntRange(1), default=1, metavar="N", help="Log every N iterations, and those with a measurement."
)
@click.option("--tensorboard", type=PATH, metavar="DIR", help="Log for TensorBoard too; needs tensorboardX.")
@click.option(
    "--plot", "plot_file", type=PATH, metavar="FILE", help="Keep an .svg or .png of the curves up to date; needs matplotlib."
)
@click.option(
    "--print-every",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Away from a terminal, print the line of every N iterations, and of those with a measurement.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--verbose", is_flag=True, help="Say how the work is shared out: one thread, several threads or several processes."
)
@click.option(
    "--valid",
    "valid_file",
    type=PATH,
    help="Held-out text to measure the loss on; the best weights are kept as BASE_best.weights.",
)
@click.option(
    "--valid-fraction",
    type=Number(0, 1, min_open=True, max_open=True),
    help="Hold out this fraction of TEXT, from its end, to measure the loss on.",
)
@click.option(
    "--valid-parts",
    type=click.IntRange(1),
    metavar="N",
    help="Cut TEXT into N stretches and hold out that fraction of each, so that no chapter is left out whole.",
)
@click.option(
    "--valid-every",
    type=click.IntRange(1),
    metavar="N",
    help="Measure every N iterations (default: 100, or more to keep it to a tenth of the time; without CFG 20, or "
    "more to keep it to 3 %).",
)
@click.option(
    "--plateau", type=click.IntRange(1), metavar="N", help="Halve the rate after every N measurements without a new best."
)
@click.option("--patience", type=click.IntRange(1), metavar="N", help="Stop after N measurements without a new best.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Share the streams of the batch out to N processes (default: one a core where that is faster). "
    "Another N adds numbers in another order, so that runs differ in the last digits.",
)
@click.option(
    "--device",
    metavar="NAME",
    help="Let PyTorch compute the gradients, on this device: cuda, mps or cpu. The run is the same but for the last digits.",
)
@click.option(
    "--mpi",
    is_flag=True,
    help="Share the streams out to the ranks that mpirun starts: mpirun -n N pydarknet train --mpi CFG TEXT",
)
@srand_option("run")
@dialect_option
def train(
    paths,
    text_file,
    weights,
    clear,
    resume,
    tokenized,
    minutes,
    max_batches,
    settings,
    folder,
    name,
    save_every,
    overwrite,
    sample_every,
    no_sample,
    log_file,
    log_every,
    tensorboard,
    plot_file,
    print_every,
    quiet,
    verbose,
    valid_file,
    valid_fraction,
    valid_parts,
    valid_every,
    plateau,
    patience,
    processes,
    device,
    mpi,
    srand,
    dialect,
    cfg=None,  # of `rnn train`
):
    """Train a network on the text of one or more files or folders.

    Without CFG, a network is chosen that suits the text, this machine and the --minutes; it is written beside the weights,
    and small parts of the text are held out to measure it. A path after CFG named *.weights or *.backup is the weights file to
    start from; one named *.checkpoint is a run to continue. The weights go to the folder `backup` under Darknet's names, with a
    checkpoint beside them; files of an earlier run are renamed, not replaced. Ctrl-C saves and stops; the same command with
    --resume goes on.

    Example: pydarknet train novel.txt --minutes 10
    """
    begun = time.perf_counter()
    all_ranks = make_ranks(mpi)
    if cfg is None:
        cfg, paths = split_cfg(paths)
    paths, start = _start_and_text(paths, text_file, weights)
    begun_with = start
    _check_usage(
        cfg,
        paths,
        start,
        resume,
        clear,
        dialect,
        minutes,
        valid_file,
        valid_fraction,
        valid_parts,
        valid_every,
        plateau,
        patience,
    )
    if sum(map(bool, (processes, device, mpi))) > 1:
        raise click.UsageError("--processes, --device and --mpi cannot be combined: give only one of them")
    if mpi and cfg is None:
        raise click.UsageError("--mpi needs a CFG, the same for all ranks: `pydarknet new` makes one for a text")

    base = name or (base_name(cfg) if cfg else base_of_text(paths[0]))
    with ExitStack() as stack:
        ranks = stack.enter_context(all_ranks)
        checkpoint = lock = None
        if resume:
            with ranks.together():
                if ranks.first:
                    lock = stack.enter_context(lock_to_resume(folder, base))
            checkpoint = ranks.from_first(lambda: _checkpoint_to_resume(folder, base, dialect))
            if not quiet and ranks.first:
                _tell_what_counts_no_longer(start, clear, minutes)
            start, clear = None, False
        elif start and _is_checkpoint(start):
            checkpoint, start = ranks.from_first(lambda: read_checkpoint(start)), None
        if checkpoint:
            dialect = checkpoint.fact("dialect", str)
        elif start and mpi:
            dialect = ranks.from_first(lambda: dialect or read_header(start).dialect)
        with ranks.together():
            corpus, held_out = _texts(paths, tokenized, valid_file, valid_fraction, valid_parts, recipe=cfg is None)
            as_bytes = corpus.unit == "byte" and not is_utf8(corpus)
            recipe, made = None, str(Path(folder) / f"{base}.cfg")
            inputs = [*([cfg_path(cfg)] if cfg else []), *corpus.names, *(held_out.names if held_out else ())]
            if ranks.first:
                read = [*paths, *([valid_file] if valid_file else [])]
                _check_outputs(log_file, plot_file, tensorboard, folder, [*inputs, start] if start else inputs, read)
            if cfg is None and not resume:
                check_folder(folder, base)
                seconds = (minutes or MINUTES) * 60 - (time.perf_counter() - begun)
                gradients = partial(_gradients, processes=processes, device=device)
                with showing_trials(quiet) as trying:
                    recipe = make_recipe(corpus, len(held_out), seconds, gradients, trying, settings)
                if not quiet:
                    for line in recipe.why:
                        tell(line)
            network = load_network(
                cfg or (recipe.cfg(made) if recipe else made),
                start if ranks.first else None,
                dialect=dialect,
                srand=srand,
                settings=settings,
            )
            if clear:
                network.seen = 0
            if cfg is None and not valid_every:
                valid_every = measurements_every(len(held_out), network.streams, network.time_steps)
            validation = None
            if held_out:
                validation = ranks.measured(Validation(network, held_out, valid_every, patience, plateau))
            train_call = stack.enter_context(_gradients(network, processes, device, ranks if mpi else None, verbose))
            trainer = Trainer(network, corpus, max_batches, srand, validation=validation, train_call=train_call)
            if as_bytes and not quiet and ranks.first:
                tell(f"{corpus.title}: not UTF-8: the network learns its bytes, and `generate --bytes` writes them")
        ranks.check_alike(trainer)
        with ranks.together():
            if checkpoint:
                run = f"{Path(folder) / base}" if resume else re.sub(r"\.checkpoint(\.new|\.previous)?$", "", begun_with)
                symbols = None if cfg else len(corpus) + len(held_out)
                trainer.restore(checkpoint, _command_for_this_text(run, begun_with, symbols))
        if not checkpoint:
            ranks.share(trainer)
        with ranks.together():
            reports, after = [], trainer.iteration if resume else None
            if ranks.first:
                to_save = cfg_to_save(network.cfg, recipe)
                backups = Backups(trainer, folder, save_every, resume, overwrite, base, to_save, begun_with, lock)
                stack.enter_context(backups)
                for path in backups.planned():
                    check_output(path, inputs)
                check_names([path for path in (log_file, plot_file) if path], backups)
            stop = stack.enter_context(StopSignals(mpi, ranks.first))
            stop.agreed = ranks.hear(stop.numbers)
            trainer.interrupted = lambda: bool(stop)
            if log_file and ranks.first:
                head = header(trainer, shlex.join(["pydarknet", *typed_words()]), srand)
                at = after, trainer.avg_loss, trainer.unfinished
                reports.append(stack.enter_context(open_log(log_file, head, *at, log_every)))
            if tensorboard and ranks.first:
                reports.append(stack.enter_context(TensorBoard(tensorboard, after and after - trainer.unfinished)))
            if plot_file and ranks.first:
                reports.append(stack.enter_context(Picture(plot_file, unit_of(corpus))))
        if not ranks.first:
            follow(trainer, ranks.steps(trainer, None), stop)
            return
        stop.descriptors.update(number for number in (report.fileno() for report in reports) if number is not None)
        samples = (
            None
            if no_sample or (quiet and not reports)
            else Samples(network, trainer.max_batches, sample_every, as_bytes=as_bytes)
        )
        steps = ranks.steps(trainer, backups.checkpoint)
        run_and_tell(trainer, steps, backups, reports, samples, None if quiet else print_every, checkpoint, stop)
        if not quiet:
            tell_what_next(trainer, backups, cfg, begun_with, as_bytes)


def _check_outputs(log_file, plot_file, tensorboard, folder, inputs, read):
    """What could not be drawn or written, or would be read as text the next time, is told before the trials."""
    for output in filter(None, (log_file, plot_file)):
        check_output(output, inputs)
    for output in filter(None, (plot_file, tensorboard)):  # a log in a folder of texts is known for one, and skipped
        check_outside(output, read)
    outputs = {"picture": plot_file} if plot_file else {}
    if log_file and not os.path.lexists(log_file):  # to one that is there, a pipe too, it is appended
        outputs["log"] = log_file
    for what, path in outputs.items():
        in_backups = os.path.realpath(os.path.dirname(path)) == os.path.realpath(folder)
        if not (in_backups and not os.path.isdir(folder)):  # which is made when the run begins
            with reported(TrainingError, path, f"cannot write the {what}"):
                check_writable(path)
    if log_file:
        check_log(log_file)
    if plot_file:
        check_picture(plot_file)
    if tensorboard:
        summary_writer()


def _gradients(network, processes, device, ranks=None, verbose=False):
    """The context that gives the ``train_call``; with ``verbose``, who computes is said."""
    if device:
        from pydarknet.training.device import torch_device

        who, calls = f"PyTorch on {show(device)}", torch_device(network, device)
    elif ranks:
        who, calls = f"{ranks.size} rank{'s' * (ranks.size > 1)} of MPI share out the streams", ranks.calls(network)
    else:
        sharing = sharing_of_training(network) if processes is None else sharing_in_processes(network, processes)
        who, calls = sharing, stream_processes(network, sharing.processes)
    if verbose:
        tell(who)
    return calls


def _start_and_text(paths, text_file, weights):
    """The paths of the text, and the file to start from or None."""
    if text_file is not None:
        if len(paths) > 1 or (paths and weights):
            raise click.UsageError("with -file, at most one more path is allowed: the weights to start from")
        return (text_file,), paths[0] if paths else weights
    if weights is None and paths and _is_checkpoint(paths[0]):
        paths, weights = paths[1:], paths[0]
    paths, weights = split_weights(paths, weights)
    if not paths:
        raise click.UsageError("Missing argument 'TEXT': the file or folder to train on.")
    return paths, weights


def _texts(paths, tokenized, valid_file, valid_fraction, valid_parts, recipe):
    """The text to train on, and the one to measure by or None; with a ``recipe`` there is one in any case."""
    corpus = Corpus.open(paths, tokenized=tokenized)
    if valid_file:
        return corpus, Corpus.open(valid_file, tokenized=tokenized)
    if valid_fraction:
        return corpus.split(valid_fraction, valid_parts or 1)
    if recipe:
        return corpus.split(*held_out_of(len(corpus)))
    return corpus, None


def _is_checkpoint(path):
    return path.endswith(".checkpoint") or is_kind(path, CHECKPOINT)


def _checkpoint_to_resume(folder, base, dialect):
    checkpoint = newest_checkpoint(folder, base, lambda message: tell(f"warning: {message}"))
    if dialect and dialect != (its := checkpoint.fact("dialect", str)):
        raise checkpoint.error(f"goes on as it was, of {its}: leave --dialect {dialect} out")
    return checkpoint


def _command_for_this_text(run, start, symbols):
    """The command, to be copied, that trains on this text from the weights of ``run``, the path of its files without ending.

    It is the command as typed, without what belongs to the old run, such as ``start``, the file it began with. If the network
    was chosen for a text, it names the saved cfg, and holds out the share that suits a text of ``symbols``. None if there are
    no weights, or if it is too long for a message.
    """
    files = (f"{run}{ending}" for ending in ("_best.weights", ".backup", "_final.weights"))
    weights = next(filter(os.path.isfile, files), None)
    if weights is None or "train" not in typed_words():
        return None
    words, more = typed_without(OF_THE_RUN_BEFORE, start), ["--weights", argument(weights), "-clear"]
    if symbols:
        words = typed_without((*OF_THE_RUN_BEFORE, "settings"), start)  # which the cfg has
        words.insert(words.index("train") + 1, argument(f"{run}.cfg"))
        given = click.get_current_context().params
        if not (given["valid_file"] or given["valid_fraction"]):
            fraction, parts = held_out_of(symbols)
            more += ["--valid-fraction", str(fraction), "--valid-parts", str(parts)]
    told = to_copy(["pydarknet", *with_options(words, more)])
    return told if len(told) <= LONGEST // 2 else None


def _tell_what_counts_no_longer(start, clear, minutes):
    """With --resume the same command goes on, whatever in it was about the beginning."""
    given = (start, start and show(start)), (clear, "-clear"), (minutes, "--minutes")
    if words := [word for value, word in given if value]:
        longer = "; --max-batches N makes it longer" if minutes else ""
        counts = "count" if words[1:] else "counts"
        tell(f"{' and '.join(words)} {counts} when a run begins, and this one goes on from its checkpoint{longer}")


def _check_usage(
    cfg, paths, start, resume, clear, dialect, minutes, valid_file, valid_fraction, valid_parts, valid_every, plateau, patience
):
    """What does not go together: it would have no effect, and nobody should find that out later."""
    if cfg is None and (late := [path for path in paths if is_kind(path, CFG)]):
        raise click.UsageError(f"{show(late[0])} is a cfg: give it before the text: pydarknet train CFG TEXT")
    if cfg is None and start:
        raise click.UsageError(f"give the cfg that {show(start)} was trained with before it: pydarknet train CFG ...")
    if minutes and cfg:
        raise click.UsageError("--minutes chooses a network: with a CFG, --max-batches N says how long to train")
    if start and _is_checkpoint(start) and not resume and (clear or dialect):
        raise click.UsageError("-clear and --dialect are for weights: a checkpoint goes on as it was")
    if valid_file and valid_fraction:
        raise click.UsageError("--valid and --valid-fraction cannot be combined: give only one of them")
    if valid_parts and not valid_fraction:
        raise click.UsageError("--valid-parts needs --valid-fraction")
    if cfg and not (valid_file or valid_fraction) and (valid_every or plateau or patience):
        raise click.UsageError("--valid-every, --plateau and --patience need --valid or --valid-fraction")

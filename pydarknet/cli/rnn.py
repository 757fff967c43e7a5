"""``pydarknet rnn ...``: Darknet's own spelling of the commands, so that old scripts run.

They are the same commands, with what is particular to ``darknet rnn``: every option is taken by every
sub-command, wherever it stands on the line, and those that mean nothing to it are ignored, as are
words that Darknet doesn't know, with a warning; the text of ``train`` is ``-file``, of the others standard
input; ``valid`` prints a line for every character. Source: ``run_char_rnn`` in Darknet's ``examples/rnn.c``.
"""

import copy
import os
import re
from functools import partial

import click

from pydarknet.cli.commands import Command, Group, like_option, words_of
from pydarknet.cli.generate import generate, generatetactic
from pydarknet.cli.streams import tell
from pydarknet.cli.train import train
from pydarknet.cli.valid import valid, validtactic
from pydarknet.cli.vec import vec
from pydarknet.inference.sample import DEFAULT_SEED
from pydarknet.system.files import show
from pydarknet.system.kinds import TEXT, is_kind

DEFAULT_TEXT = "data/shakespeare.txt"
WITH_VALUE = ("-file", "-seed", "-len", "-temp", "-srand", "-tokens", "-i")
FLAGS = ("-clear", "-tokenized", "-nogpu")
PATHS = 2  # the cfg and the weights are all that Darknet looks at
SWITCH = re.compile("[01]|yes|no|true|false|on|off", re.IGNORECASE)  # what people write after a flag
NUMBER = re.compile(r"-[\d.,]+")  # the value of an unknown option may be negative


class DarknetCommand(Command):
    """A command that passes over, with a warning, the words that ``darknet rnn`` passes over."""

    def parse_args(self, ctx, args):
        """Darknet takes the options that it knows out of the line; of what is left it reads the first two words."""
        words, paths, unknown = [], 0, None  # unknown: whether the word before was an option that Darknet doesn't know
        for option, found in words_of(self, ctx, args):
            word = found[0]
            after, unknown = unknown, None
            if option and not (option.is_flag and "=" in word):
                words += found
                unknown = False if option.is_flag else None
            elif option or (option is False and not (after and NUMBER.fullmatch(word))):
                self._pass_over(ctx, word)
                unknown = True
            elif (after is not None and self._is_value(word, after)) or paths == PATHS:
                self._pass_over(ctx, word)
            else:
                words.append(word)
                paths += 1
        return super().parse_args(ctx, words)

    @staticmethod
    def _is_value(word, unknown):
        """Whether ``word`` is no path but the value of the unknown option, or of the flag, before it."""
        return not os.path.exists(word) if unknown else SWITCH.fullmatch(word)

    def _pass_over(self, ctx, word):
        if not ctx.resilient_parsing:
            hint = like_option(self, ctx, word.partition("=")[0]) if word.startswith("-") else ""
            tell(f"warning: {word!r} is ignored: neither Darknet nor `rnn {ctx.info_name}` knows it.{hint}")


class DarknetGroup(Group):
    """A group whose sub-command's options may also stand before its name."""

    def parse_args(self, ctx, args):
        words, place = list(args), 0
        while place < len(words) and words[place] not in self.commands:
            place += 2 if words[place] in WITH_VALUE else 1
        if 0 < place < len(words):
            words.insert(0, words.pop(place))
        return super().parse_args(ctx, words)


@click.group(cls=DarknetGroup)
def rnn():
    """The commands as Darknet spells them, for old scripts.

    Example: pydarknet rnn generate cfg/rnn.cfg rnn.weights -len 500 -srand 0
    """


def _add(command, example, help, callback=None, fixed=None, paths=None, **defaults):
    """Add ``command`` to ``rnn``, taking all of Darknet's options; ``defaults`` and what is ``fixed`` by parameter.

    ``paths`` is what its help calls the arguments.
    """
    fixed = fixed or {}
    added = DarknetCommand(
        command.name,
        callback=partial(callback or command.callback, **fixed),
        params=[copy.copy(parameter) for parameter in command.params if parameter.name not in fixed],
        help=f"{help}\n\nExample: pydarknet rnn {command.name} {example}",
    )
    for parameter in added.params:
        if parameter.name == "paths":
            parameter.metavar = paths
        parameter.default = defaults.get(parameter.name, parameter.default)
    added.sections = {title: [name for name in names if name not in fixed] for title, names in command.sections.items()}
    known = {name for parameter in added.params for name in parameter.opts}
    added.params += [
        click.Option([name], is_flag=name in FLAGS, hidden=True, expose_value=False, callback=_passed_over)
        for name in WITH_VALUE + FLAGS
        if name not in known
    ]
    rnn.add_command(added)


def _passed_over(ctx, parameter, value):
    # Who gives -file to another command expects it to be read; Darknet reads standard input.
    if parameter.name == "file" and value is not None:
        tell(f"warning: -file {value} is ignored, as in Darknet: `rnn {ctx.info_name}` reads standard input")


def _train(paths, **others):
    """The first path is the cfg, whatever its name: Darknet chooses no network."""
    if not paths:
        raise click.UsageError("Missing argument 'CFG'.")
    if paths[1:] and is_kind(paths[1], TEXT):
        raise click.UsageError(f"{show(paths[1])} is no weights file: a text is given with -file")
    return train.callback(paths=paths[1:], cfg=paths[0], **others)


def _generate(seed, seed_file, tokens_file, **others):
    """To Darknet each byte of the seed is a symbol, of a vocabulary also."""
    if tokens_file is not None and seed_file is None:
        seed = " ".join(str(byte) for byte in (DEFAULT_SEED if seed is None else os.fsencode(seed)))
    return generate.callback(seed=seed, seed_file=seed_file, tokens_file=tokens_file, **others)


_add(
    train,
    "cfg/rnn.cfg -file text.txt",
    "Train the network of CFG on the text of -file, from WEIGHTS or from the beginning.\n\n"
    "The weights go to the folder `backup` under Darknet's names, with a checkpoint beside them; files of an earlier run are "
    "renamed, not replaced. Ctrl-C saves and stops; the same command with --resume goes on.",
    _train,
    {"minutes": None},
    "CFG [WEIGHTS]",
    text_file=DEFAULT_TEXT,
    no_sample=True,
)
_add(
    generate,
    "cfg/rnn.cfg rnn.weights -len 500 -srand 0",
    "Write text with the network of CFG and WEIGHTS, byte for byte as Darknet does.\n\n"
    "The seed is written first, then what goes on from it. With the same weights and -srand it is Darknet's text.",
    _generate,
    {"as_bytes": True},
)
_add(
    generatetactic,
    "cfg/rnn.cfg coq.weights < proof.txt",
    "Write the tactic that continues a proof, read from standard input: up to a full stop followed by a newline.\n\n"
    "The proof is not written again. The bytes are Darknet's.",
    fixed={"text": None, "as_bytes": True},
)
_add(
    valid,
    "cfg/rnn.cfg rnn.weights < text.txt",
    "Measure how well the network of CFG and WEIGHTS predicts the text on standard input.\n\n"
    "Prints a line for every character but the first, as Darknet does: its number, then the bits per character (BPC), the "
    "perplexity and the word perplexity so far.",
    fixed={"texts": ()},
    every=1,
)
_add(
    validtactic,
    "cfg/rnn.cfg coq.weights < proofs.txt",
    "Measure how well a network predicts the tactics in the proofs on standard input.\n\n"
    "A tactic stands between >> and a full stop at the end of a line; nothing else is counted.",
    fixed={"texts": ()},
    every=1,
)
_add(
    vec,
    "cfg/rnn.cfg rnn.weights < names.txt",
    "Print a vector for each line of standard input: what the first layer puts out when it has read the line.\n\n"
    "A line is printed without its blanks and tabs, which the network does not read either, then the numbers with commas "
    "between.",
    fixed={"texts": (), "as_bytes": True},
)

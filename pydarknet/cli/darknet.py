"""``pydarknet rnn ...``: Darknet's own spelling of the commands, so that old scripts run.

They are the same commands, with what is particular to ``darknet rnn``: every option is taken by every
sub-command, wherever it stands on the line, and those that mean nothing to it are passed over; the
text of ``train`` is ``-file``, of the others standard input; ``valid`` prints a line for every
character. Source: ``run_char_rnn`` in Darknet's ``examples/rnn.c``.
"""

import copy
import os

import click

from pydarknet.cli.generate import generate, generatetactic
from pydarknet.cli.train import train
from pydarknet.cli.valid import valid, validtactic
from pydarknet.cli.vec import vec

DEFAULT_TEXT = "data/shakespeare.txt"
WITH_VALUE = ("-file", "-seed", "-len", "-temp", "-srand", "-tokens", "-i")
FLAGS = ("-clear", "-tokenized", "-nogpu")


class DarknetGroup(click.Group):
    """A group whose sub-command's options may also stand before its name."""

    def parse_args(self, ctx, args):
        args, first = list(args), []
        while args and args[0] in WITH_VALUE + FLAGS:
            count = 2 if args[0] in WITH_VALUE else 1
            first, args = first + args[:count], args[count:]
        return super().parse_args(ctx, args[:1] + first + args[1:])


@click.group(cls=DarknetGroup)
def rnn():
    """The commands as Darknet spells them, for old scripts.

    Example: pydarknet rnn generate cfg/rnn.cfg rnn.weights -len 500 -seed CHAPTER -temp .8 -srand 0
    """


def _add(command, callback=None, **defaults):
    """Add to ``rnn`` a copy of ``command`` that takes all of Darknet's options; ``defaults`` by parameter."""
    command = copy.copy(command)
    command.callback = callback or command.callback
    command.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in command.params:
        parameter.default = defaults.get(parameter.name, parameter.default)
    known = {name for parameter in command.params for name in parameter.opts}
    command.params += [
        click.Option([name], is_flag=name in FLAGS, hidden=True, expose_value=False, callback=_passed_over)
        for name in WITH_VALUE + FLAGS
        if name not in known
    ]
    rnn.add_command(command)


def _passed_over(ctx, parameter, value):
    # Who gives -file to another command expects it to be read; Darknet reads standard input.
    if parameter.name == "file" and value is not None:
        click.echo(
            f"pydarknet: warning: -file {value} is passed over, as in Darknet: `rnn {ctx.info_name}` reads standard input",
            err=True,
        )


def _generate(seed, tokens_file, **others):
    """To Darknet each byte of the seed is a symbol, of a vocabulary also."""
    if tokens_file is not None:
        seed = " ".join(str(byte) for byte in os.fsencode("\n\n" if seed is None else seed))
    return generate.callback(seed=seed, tokens_file=tokens_file, **others)


_add(train, text_file=DEFAULT_TEXT)
_add(generate, _generate)
_add(generatetactic)
_add(valid, every=1)
_add(validtactic, every=1)
_add(vec)

"""Options that several commands share. Darknet's spelling (``-srand``) and GNU's (``--srand``) both work."""

import click

from pydarknet.dialect import Dialect

PATH = click.Path(path_type=str)

dialect_option = click.option(
    "--dialect", type=click.Choice([d.value for d in Dialect]), default=None,
    help="Order and conventions of the weights file; by default its header says which fork wrote it.")


def srand_option(what):
    return click.option("-srand", "--srand", type=click.IntRange(0, 2**32 - 1), default=None,
                        help=f"Seed of the random numbers, for {what} that can be made again.")


def split_weights(paths, weights):
    """Take the weights file out of the positional ``paths``: the first, if it is named like one."""
    if paths and weights is None and paths[0].endswith((".weights", ".backup")):
        return paths[1:], paths[0]
    return paths, weights

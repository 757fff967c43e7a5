"""``pydarknet corpus``: texts to train on that every machine has."""

import platform

import click

from pydarknet.cli.commands import Group
from pydarknet.cli.options import PATH
from pydarknet.system.files import show
from pydarknet.text import stdlib as library


@click.group(cls=Group)
def corpus():
    """Make a text to train on.

    Example: pydarknet corpus stdlib stdlib.txt
    """


@corpus.command()
@click.argument("out", type=PATH)
@click.option("--max-bytes", type=click.IntRange(1), metavar="N", help="Stop after N bytes; by default all is taken.")
@click.option("--overwrite", is_flag=True, help="Replace a file that this command did not make.")
def stdlib(out, max_bytes, overwrite):
    """Write the source of Python's standard library to OUT, about 10 MB.

    An earlier text of this command is replaced; any other file is not.

    Example: pydarknet corpus stdlib stdlib.txt
    """
    size, count = library.build(out, max_bytes, overwrite)
    click.echo(f"{show(out)}: {size:,} bytes from {count} files of Python {platform.python_version()}")

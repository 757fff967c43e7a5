"""The commands for weights files: ``average``, ``convert``, ``denormalize``, ``ops``, ``partial``, ``statistics``."""

import click

from pydarknet import weight_tools
from pydarknet.cli.commands import command
from pydarknet.cli.options import DIALECTS, PATH, cfg_argument, dialect_option, weights_argument
from pydarknet.cli.streams import tell
from pydarknet.darknet.dialect import Dialect
from pydarknet.errors import WeightsError
from pydarknet.network import load_network
from pydarknet.system.files import check_output, check_writable, reported, show

out_argument = click.argument("out", type=PATH)


def _load(cfg, weights, dialect, out=None):
    """The network; with ``out``, when it is one from which a tool may write that file."""
    if out is not None:
        check_output(out, [cfg, weights])
    network = load_network(cfg, weights, dialect=dialect)
    if out is not None:
        weight_tools.check_complete(network)
    return network


@command()
@cfg_argument
@out_argument
@click.argument("weights", type=PATH, nargs=-1, required=True)
@dialect_option
def average(cfg, out, weights, dialect):
    """Write the mean of several weights files of one CFG to OUT.

    Every number is averaged, those of batch norm also; the count of samples is the first file's.
    An existing OUT is replaced.

    Example: pydarknet average cfg/rnn.cfg mean.weights backup/rnn_1000.weights backup/rnn_2000.weights
    """
    check_output(out, weights)
    network = _load(cfg, weights[0], dialect, out)
    weight_tools.average(network, weights, dialect)
    network.save_weights(out)
    click.echo(f"Saved {show(out)}")


@command()
@cfg_argument
@weights_argument
@out_argument
@click.option("--to", "target", type=DIALECTS, required=True, help="The fork whose order OUT is to have.")
@dialect_option
def convert(cfg, weights, out, target, dialect):
    """Write the weights to OUT in the order of Darknet's other fork.

    Warns where the forks compute different results with the same weights. Converting there and back
    gives the same file. --dialect is that of WEIGHTS. An existing OUT is replaced.

    Example: pydarknet convert cfg/lstm.train.cfg old.weights new.weights --to alexeyab
    """
    network = _load(cfg, weights, dialect, out)
    for sentence in weight_tools.convert(network, out, Dialect(target)):
        tell(f"warning: {sentence}")
    same = f": a copy, as {show(weights)} is of {target} already" if target == network.dialect.value else ""
    click.echo(f"Saved {show(out)}{same}")


@command()
@cfg_argument
@weights_argument
@out_argument
@click.option(
    "--cfg-out", type=PATH, metavar="FILE", help="Write the cfg that OUT is for, CFG with batch_normalize=0, to FILE."
)
@dialect_option
def denormalize(cfg, weights, out, cfg_out, dialect):
    """Fold batch norm into the weights and write them to OUT; the network computes the same.

    OUT is for CFG with batch_normalize=0 in every section, which --cfg-out writes. A [batchnorm]
    section stays. Existing files at OUT and --cfg-out are replaced.

    Example: pydarknet denormalize cfg/bn.cfg bn.weights plain.weights --cfg-out cfg/plain.cfg
    """
    if cfg_out is not None:
        check_output(cfg_out, [cfg, weights, out])
        with reported(WeightsError, cfg_out, "cannot write the cfg"):
            check_writable(cfg_out)
    network = _load(cfg, weights, dialect, out)
    weight_tools.denormalized(network).save_weights(out)
    if cfg_out is not None:
        weight_tools.write_denormalized_cfg(network, cfg_out)
    click.echo(f"Saved {show(out)}{f' and {show(cfg_out)}' if cfg_out else ''}")


@command()
@cfg_argument
@weights_argument
@out_argument
@click.argument("count", metavar="N", type=click.IntRange(1))
@dialect_option
def partial(cfg, weights, out, count, dialect):
    """Write the weights of the first N layers to OUT, to begin another network with.

    Layers without weights count too, as in Darknet. The count of samples becomes 0. The other
    network's cfg must have dontload=1 in every section after those N.

    Example: pydarknet partial cfg/rnn.cfg backup/rnn_final.weights first.weights 1
    """
    network = _load(cfg, weights, dialect, out)
    weight_tools.write_partial(network, out, count)
    click.echo(f"Saved {show(out)}")


@command()
@cfg_argument
@weights_argument
@dialect_option
def statistics(cfg, weights, dialect):
    """Print size, root mean square, mean, deviation and range of everything in a weights file.

    Example: pydarknet statistics cfg/rnn.cfg backup/rnn_final.weights
    """
    rows = [
        (f"{s.layer} {s.type}", s.name, f"{s.size:,}", *(f"{x:.6f}" for x in (s.rms, s.mean, s.deviation, s.least, s.greatest)))
        for s in weight_tools.statistics(_load(cfg, weights, dialect))
    ]
    header = "layer type", "array", "numbers", "rms", "mean", "deviation", "least", "greatest"
    _print_table(header, rows, words=2, gap=" ")  # a narrow one, so that most networks' fit into 80 columns


@command()
@cfg_argument
@dialect_option
def ops(cfg, dialect):
    """Print a table of the layers: output shape, parameters, and multiply-adds a character.

    The shape is steps x streams x features of a call in training. Only the products of matrices are
    counted; the last line counts them as Darknet does, two operations for a multiply-add.

    Example: pydarknet ops cfg/rnn.cfg
    """
    layers = list(weight_tools.operations(load_network(cfg, dialect=dialect)))
    parameters, multiply_adds = (sum(getattr(layer, name) for layer in layers) for name in ("parameters", "multiply_adds"))
    rows = [
        (str(layer.layer), layer.type, " x ".join(map(str, layer.shape)), f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
        for layer in layers
    ]
    rows.append(("total", "", "", f"{parameters:,}", f"{multiply_adds:,}"))
    _print_table(("layer", "type", "output", "parameters", "multiply-adds"), rows, words=2)
    click.echo(f"Floating Point Operations: {2 * multiply_adds}")


def _print_table(header, rows, words, gap="  "):
    """Columns as wide as they need be; the first ``words`` of them begin, the others end at the same place."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for row in (header, *rows):
        cells = (cell.ljust(width) if n < words else cell.rjust(width) for n, (cell, width) in enumerate(zip(row, widths)))
        click.echo(gap.join(cells).rstrip())

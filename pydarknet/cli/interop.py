"""``pydarknet export`` and ``import``: a network in the formats of others, and back."""

import os

import click

from pydarknet.cli.commands import command
from pydarknet.cli.options import PATH, cfg_argument, dialect_option, weights_argument
from pydarknet.darknet.weights import read_header
from pydarknet.errors import InputError
from pydarknet.network import load_network
from pydarknet.system.files import check_output, show

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace files that already exist.")


def _check_new(path, inputs, overwrite):
    check_output(path, inputs)
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{show(path)}: already exists; --overwrite replaces it")


def _check_read(network):
    for section, layer in zip(network.cfg.layers, network.layers):
        if layer.dontload and layer.stored(network.dialect):
            raise section.error(
                "dontload=1: these weights are not read, so there are none to export; take the line out", "dontload"
            )


@command()
@cfg_argument
@weights_argument
@click.argument("model", type=PATH)
@dialect_option
@overwrite_option
def export(cfg, weights, model, dialect, overwrite):
    """Write the network as MODEL.safetensors or MODEL.onnx.

    A .safetensors file holds every number of the weights file under the names of a PyTorch module, and the cfg; `import`
    turns it back into the same files. An .onnx file computes probabilities from symbols and states; it is compared with
    pydarknet over 1,000 characters, if onnxruntime is there. Needs pydarknet[safetensors] or pydarknet[onnx].

    Example: pydarknet export cfg/rnn.cfg weights/rnn.weights rnn.safetensors
    """
    kind = os.path.splitext(model)[1].lower()
    if kind not in (".safetensors", ".onnx"):
        raise InputError(f"{show(model)}: the model's name must end in .safetensors or .onnx")
    _check_new(model, [cfg, weights], overwrite)
    network = load_network(cfg, weights, dialect=dialect)
    _check_read(network)
    if kind == ".safetensors":
        from pydarknet.interop.safetensors import write_safetensors

        header = read_header(weights)
        write_safetensors(network, model, (header.major, header.minor, header.revision))
        click.echo(f"Saved {show(model)}")
        return
    from pydarknet.interop.onnx import write_onnx

    difference = write_onnx(network, model)
    click.echo(f"Saved {show(model)}")
    if difference is None:
        click.echo("Not compared with pydarknet: onnxruntime is missing (python3 -m pip install onnxruntime)")
    else:
        click.echo(f"Largest difference from pydarknet over 1,000 characters: {difference:.1e} of a probability")


@command("import")
@click.argument("model", type=PATH)
@click.argument("cfg", metavar="OUT.cfg", type=PATH)
@click.argument("weights", metavar="OUT.weights", type=PATH)
@overwrite_option
def import_(model, cfg, weights, overwrite):
    """Make a cfg and a weights file from MODEL.safetensors.

    MODEL is what `export` has written, or the state dict of a PyTorch model of your own: stacked nn.LSTM, one nn.Linear on
    top, and in front of them one-hot symbols or an nn.Embedding. Needs pydarknet[safetensors]; a .pt file needs PyTorch.

    Example: pydarknet import rnn.safetensors rnn.cfg rnn.weights
    """
    for path, other in ((cfg, weights), (weights, cfg)):
        _check_new(path, [model, other], overwrite)
    from pydarknet.interop.files import read_model

    imported = read_model(model)
    imported.write(cfg, weights)
    click.echo(f"Saved {show(cfg)} and {show(weights)}")
    if imported.network.inputs != 256:
        last = imported.network.inputs - 1
        click.echo(
            f"Its symbols are the numbers 0 to {last}; -tokens of `pydarknet generate` names a file of what each stands for"
        )

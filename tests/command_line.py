"""The command line run in this process, for tests that need not start Python anew."""

import contextlib
import io
import sys
import warnings
from typing import NamedTuple

from pydarknet.cli import main

TINY = """[net]
inputs=256
[{layer}]
output=6
{options}
[connected]
output=256
activation=linear
[softmax]
"""


class Result(NamedTuple):
    code: int
    out: bytes
    err: str


def run(*arguments, stdin=b""):
    """What ``pydarknet ARGUMENTS`` returns and writes when ``stdin`` is its standard input."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.StringIO()
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            code = main([str(argument) for argument in arguments])
    finally:
        sys.stdin = before
    return Result(code, out.buffer.getvalue(), err.getvalue())


def done(*arguments, stdin=b""):
    """The output of a command that must succeed."""
    result = run(*arguments, stdin=stdin)
    assert result.code == 0, result
    return result.out


def make_network(folder, layer="lstm", options="", name="net", text=TINY, srand=1, scale=3.0, seen=7, dialect=None):
    """Write NAME.cfg and NAME.weights to ``folder``, with weights that matter; return both paths and the network."""
    import numpy as np

    from pydarknet.network import load_network

    cfg, weights = folder / f"{name}.cfg", folder / f"{name}.weights"
    cfg.write_text(text.format(layer=layer, options=options))
    network = load_network(cfg, srand=srand, dialect=dialect)
    random = np.random.default_rng(srand)
    block = network.parameters
    block.values[:] = scale * block.values + random.normal(0, 0.3, block.values.size)
    block.statistics[:] = random.uniform(0.05, 2, block.statistics.size)
    network.seen = seen
    network.save_weights(weights)
    return cfg, weights, network

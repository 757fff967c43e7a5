"""A vector for each line of a text: what a layer puts out when it has read the line, as in Darknet's ``vec``.

Source: ``vec_char_rnn`` in Darknet's ``examples/rnn.c``.
"""

import numpy as np

from pydarknet.errors import InputError, WeightsError
from pydarknet.inference.sample import DEFAULT_SEED, OVERFLOW

BLOCK = 512  # steps at once: the memory needed does not depend on the line's length
STRIPPED = b" \t\n\r"  # what Darknet's strip() takes out of a line, everywhere in it


def line_vectors(network, lines, seed=DEFAULT_SEED, layer=0):
    """Yield (line, vector) for the byte strings ``lines``: what ``layer`` puts out when it has read the line.

    As in Darknet's ``vec``, blanks, tabs and line ends are first taken out of the line, all of them,
    and the network reads the seed, the line and one blank. It starts each line with an empty state
    (Darknet means to, but clears it on a GPU only). ``vector`` is (H,). Raises InputError for a layer
    or a symbol that the network does not have.
    """
    if not 0 <= layer < len(network.layers):
        raise InputError(f"layer {layer}: this network has the layers 0 to {len(network.layers) - 1} before its softmax")
    for line in lines:
        line = line.translate(None, STRIPPED)
        network.reset_state()
        text = np.frombuffer(seed + line + b" ", np.uint8)[:, None]
        for t in range(0, len(text), BLOCK):
            with np.errstate(over="ignore", invalid="ignore"):
                output = network.layer_output(layer, text[t : t + BLOCK])
        if not np.isfinite(output[-1, 0]).all():
            raise WeightsError(OVERFLOW)
        yield line, output[-1, 0].copy()

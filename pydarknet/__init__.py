"""pydarknet: Darknet's recurrent networks, trained and run on a CPU in plain NumPy.

    network = pydarknet.load_network("cfg/rnn.cfg", "rnn.weights")     a network of a cfg and a weights file
    text = pydarknet.Corpus.open("novel.txt")                          a text
    trainer = pydarknet.Trainer(network, text)                         trains it: for step in trainer.run(): ...

Every mistake that a user can make is a :class:`PydarknetError`, whose message is one line.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydarknet.errors import PydarknetError
    from pydarknet.network import Network, load_network
    from pydarknet.text.corpus import Corpus
    from pydarknet.training.trainer import Step, Trainer

__version__ = "0.1.0"

__all__ = ["Corpus", "Network", "PydarknetError", "Step", "Trainer", "load_network"]

_HOMES = {
    "Corpus": "text.corpus",
    "Network": "network",
    "PydarknetError": "errors",
    "Step": "training.trainer",
    "Trainer": "training.trainer",
    "load_network": "network",
}


def __getattr__(name):
    """Import a public name when it is asked for, so that ``pydarknet --version`` need not wait for numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return [*__all__, "__version__"]

"""pydarknet: Darknet's recurrent networks, trained and run on a CPU in plain NumPy."""

import importlib

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

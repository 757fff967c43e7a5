"""pydarknet: Darknet's recurrent networks, trained and run on a CPU in plain NumPy."""

__version__ = "0.1.0"

__all__ = ["Corpus", "Network", "PydarknetError", "Step", "Trainer", "load_network"]

from pydarknet.corpus import Corpus
from pydarknet.errors import PydarknetError
from pydarknet.network import Network, load_network
from pydarknet.trainer import Step, Trainer

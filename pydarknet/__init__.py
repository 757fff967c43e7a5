"""pydarknet: Darknet's recurrent networks, trained and run on a CPU in plain NumPy."""

__version__ = "0.1.0"

__all__ = ["Network", "load_network", "PydarknetError", "__version__"]

from pydarknet.errors import PydarknetError
from pydarknet.network import Network, load_network

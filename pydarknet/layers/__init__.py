"""The layers, from the contract (:mod:`~pydarknet.layers.base`) up to the recurrent ones."""

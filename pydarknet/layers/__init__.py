"""The layers, from the contract (:mod:`~pydarknet.layers.layer`) up to the recurrent ones."""

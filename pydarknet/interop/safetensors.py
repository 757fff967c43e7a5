"""``.safetensors`` files: a network's tensors (:mod:`pydarknet.interop.tensors`) and its metadata, so that nothing is lost."""

import numpy as np

from pydarknet.errors import WeightsError
from pydarknet.interop.extras import need
from pydarknet.interop.metadata import metadata
from pydarknet.interop.tensors import tensors
from pydarknet.system.files import open_regular, reported, show, write_atomically


def write_safetensors(network, path, version=None):
    """Write ``network`` to ``path``, atomically. ``version`` is that of the header of its weights file, if it has one.

    Raises InputError for a missing package or a layer without names, WeightsError when the file can't be written.
    """
    numpy_format = need("safetensors.numpy", "safetensors")
    arrays = {name: np.ascontiguousarray(array, "<f4") for name, array in tensors(network).items()}
    data = numpy_format.save(arrays, metadata(network, version))
    with reported(WeightsError, path, "cannot write the model"):
        write_atomically(path, [data])


def read_safetensors(path):
    """The tensors of a file, {name: array}, and its metadata. Raises InputError for a missing package, WeightsError."""
    library = need("safetensors", "safetensors")
    with reported(WeightsError, path, "cannot read the model"):
        with open_regular(path) as file:
            data = file.read()
        try:
            found = library.deserialize(data)
            with library.safe_open(path, framework="numpy") as file:
                facts = file.metadata() or {}
        except library.SafetensorError as error:
            raise WeightsError(f"{show(path)}: cannot be read as safetensors: {' '.join(str(error).split())}") from None
    return {name: _array(path, name, **fields) for name, fields in found}, facts


def _array(path, name, dtype, shape, data):
    if dtype == "BF16":  # the upper half of a float32, which NumPy has no name for
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    kind = {"F": "f", "I": "i", "U": "u"}.get(dtype[0])
    if kind is None or dtype[1:] not in ("16", "32", "64"):
        raise WeightsError(f"{show(path)}: tensor {name} is of {dtype}: convert it to float32 first")
    return np.frombuffer(data, f"<{kind}{int(dtype[1:]) // 8}").reshape(shape)

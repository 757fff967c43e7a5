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
        open_regular(path).close()
        try:
            with library.safe_open(path, framework="numpy") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (library.SafetensorError, TypeError, AttributeError, ImportError) as error:
            raise WeightsError(f"{show(path)}: cannot be read as safetensors: {' '.join(str(error).split())}") from None

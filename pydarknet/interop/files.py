"""Any file that ``pydarknet import`` takes: a ``.safetensors`` file, or what ``torch.save`` wrote."""

import os
import warnings
import zipfile

from pydarknet.errors import InputError, WeightsError
from pydarknet.interop.extras import need
from pydarknet.interop.foreign import network_of_state_dict
from pydarknet.interop.metadata import is_ours, network_of
from pydarknet.interop.safetensors import read_safetensors
from pydarknet.system.files import open_regular, reported, show

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how a file of torch.save begins


def read_model(path):
    """The :class:`~pydarknet.interop.metadata.Imported` of the file at ``path``. Raises InputError, WeightsError, CfgError."""
    with reported(WeightsError, path, "cannot read the model"), open_regular(path) as file:
        head = file.read(4)
    given, facts = (_read_pickled(path), {}) if head.startswith(PICKLED) else read_safetensors(path)
    return (network_of if is_ours(facts) else network_of_state_dict)(given, facts, path)


def _read_pickled(path):
    """The state dict of a file of ``torch.save``, {name: array}: read as tensors alone, so that it can't run code."""
    shown = show(path)
    advice = f"write safetensors.torch.save_file(model.state_dict(), {os.path.splitext(shown)[0] + '.safetensors'!r}) in Python"
    try:
        torch = need("torch", "torch")
    except InputError:
        raise InputError(
            f"{shown}: is a file of torch.save, which PyTorch alone can read: install 'pydarknet[torch]', or {advice}"
        ) from None
    size = os.path.getsize(path)
    try:
        if _unpacked_size(path) > size:  # a few kilobytes may stand for gigabytes; torch.save compresses nothing
            raise ValueError("it is compressed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how old the file's pickle is
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, for what is damaged and for what is no tensor
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise WeightsError(f"{shown}: can't be read as tensors alone ({reason}): {advice}") from None
    if isinstance(found, dict):  # a checkpoint holds the state dict beside other things
        inner = [value for value in found.values() if isinstance(value, dict) and _is_state_dict(value, torch)]
        found = found if _is_state_dict(found, torch) else inner[0] if len(inner) == 1 else None
    if not isinstance(found, dict):
        raise WeightsError(f"{shown}: holds no state dict: {advice}")
    for name, tensor in found.items():
        if tensor.layout is not torch.strided or _is_special(tensor):
            raise WeightsError(
                f"{shown}: tensor {name} is sparse, nested, quantized, complex or without data: save it as plain numbers"
            )
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > 2 * size:  # tied ones have one place in it
        raise WeightsError(f"{shown}: its tensors repeat a few numbers many times, as expand() does: {advice}")
    return {
        name: tensor.detach().double().resolve_neg().numpy() if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in found.items()
    }


def _unpacked_size(path):
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as file:
        return sum(member.file_size for member in file.infolist())


def _is_special(tensor):
    return tensor.is_nested or tensor.is_quantized or tensor.is_meta or tensor.is_complex()


def _is_state_dict(found, torch):
    return bool(found) and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items())

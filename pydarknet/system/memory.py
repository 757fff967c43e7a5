"""Sizes that no machine can hold are refused before the memory is taken, with the number of bytes.

The estimates are from below, so that what would fit is never refused; between them and the truth lies
less than a factor of two. Without them a slip in a cfg (``output=2000000000``) ends in a machine that
swaps, or in the kernel ending some process of its choice.
"""

import os
import resource
from contextlib import suppress

from pydarknet.errors import InputError, TrainingError

# Files in which Linux tells how much memory a container may have: version 2 and version 1 of its control groups.
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_layer_memory(sections, layers):
    """Raise CfgError at the first of the ``sections`` whose layer's parameters, with those before, exceed the memory at hand.

    The layers have only been built: their parameters have taken no memory yet.
    """
    at_hand = memory_at_hand()
    total = 0
    for section, layer in zip(sections, layers):
        total += 2 * sum(parameter.size for parameter in layer.parameters) * layer.dtype.itemsize  # value and gradient
        if at_hand is not None and total > at_hand:
            raise section.error(
                f"the parameters up to here need {total:,} bytes of memory, and {at_hand:,} can be had: "
                "give a smaller output, or fewer inputs",
                "output",
            )


def check_training_memory(network):
    """Raise TrainingError if training ``network`` needs more memory than can be had beyond what it has already."""
    needed, kept = training_memory(network)
    at_hand = memory_at_hand()
    if at_hand is not None and needed > at_hand:
        streams = network.streams_here or network.streams
        raise TrainingError(
            f"{network.cfg.path}: training needs {needed:,} bytes of memory, {kept:,} of them for "
            f"time_steps={network.time_steps} of {streams} streams, and {at_hand:,} can be had: "
            "give a smaller batch, time_steps or output"
        )


def training_memory(network):
    """Bytes that training ``network`` takes beyond its parameters, and how many of them for the steps of all streams.

    The others are the gradients, what the optimizer remembers, and weights that are put aside while some are dropped.
    """
    T, B, itemsize = network.time_steps, network.streams_here or network.streams, network.dtype.itemsize
    kept = network.inputs * T * B * itemsize + 2 * 8 * (T + 1) * B  # the softmax, and the symbols
    kept += sum(layer.tape_bytes(T, B) for layer in network.layers)
    per_parameter = 3 if network.optimizer_options.adam else 2
    return per_parameter * network.parameters.values.nbytes + network.parameters.thinned_bytes + kept, kept


def check_memory(needed, what, advice):
    """Raise InputError if ``what`` needs more bytes of memory than can be had."""
    at_hand = memory_at_hand()
    if at_hand is not None and needed > at_hand:
        raise InputError(f"{what}: this needs {needed:,} bytes of memory, and {at_hand:,} can be had: {advice}")


def step_memory(network, streams):
    """Bytes that a step of ``streams`` takes: of each a row of every product, the probabilities, and as much to choose by."""
    rows = sum(len(matrix.weights) for layer in network.layers for matrix in layer.matrices.values())
    return streams * (rows + 2 * network.inputs) * network.dtype.itemsize


def memory_at_hand():
    """An upper bound, in bytes, on the memory that this process can get; None where the system does not tell."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        found.append(_available_of_linux())
    if not found:
        with suppress(OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            with open(path, encoding="ascii") as file:
                found.append(int(file.read()))
    with suppress(OSError, ValueError):
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            found.append(limit)
    return min(found, default=None)


def _available_of_linux():
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(line for line in file if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024

"""What a checkpoint says of a training run, and how a run goes on from it, bit for bit.

Whatever the next iteration reads is here, and each part belongs to its owner, which gives and takes it: the network
(parameters, rolling statistics, recurrent states, ``seen``), the optimizer (its memory), the validation (what it has
seen) and the trainer (offsets, running average). An owner has ``arrays()``, its memory by name; ``facts()``, what JSON can
hold; ``check(facts, arrays)``, which raises ValueError for what it could never have; and ``take(facts)``. A checkpoint
also names the cfg and the text that it belongs to, and goes on with no others. ``max_batches`` may change: a longer
run is the same run, longer (only a rate that falls towards the end, as with ``policy=poly``, then falls towards the new one).
"""

import numpy as np

from pydarknet.network import IMAGE_KEYS
from pydarknet.training.checkpoint import Checkpoint

_NOT_OF_THE_RUN = frozenset((*IMAGE_KEYS, "max_batches"))


def checkpoint_of(owners, cfg_meaning, text_digest):
    """The :class:`~pydarknet.training.checkpoint.Checkpoint` of a run between two iterations.

    Its arrays are the owners' own, not copies: write them before the next iteration.
    """
    facts = {"cfg": cfg_meaning, "text": text_digest, "validation": None, "random": {}}
    for owner in owners:
        given = owner.facts()
        facts["random"] |= given.pop("random", {})  # generators by name: more than one owner has one
        facts |= given
    return Checkpoint(facts, _arrays(owners))


def restore(owners, checkpoint, cfg_meaning, text_digest, command=None):
    """Put the ``owners`` where ``checkpoint`` was made. ``command`` would start another run from its weights; it is told.

    Raises CheckpointError, with the owners as they were, if the checkpoint belongs to another cfg or
    text, or holds what no run of this cfg could have.
    """
    _check_cfg(checkpoint, cfg_meaning)
    if checkpoint.fact("text", str) != text_digest:
        raise checkpoint.error(
            "belongs to another text: this one differs from the one the run was trained on, in content or in the part "
            "held out; give that text to go on, or start a run of its own from the weights"
            + (f": {command}" if command else "")
        )
    arrays = _arrays(owners)
    _check_arrays(checkpoint, arrays)
    for owner in owners:
        try:
            owner.check(checkpoint.facts, checkpoint.arrays)
        except ValueError as error:
            raise checkpoint.error(str(error)) from None
    for name, array in arrays.items():
        array[...] = checkpoint.arrays[name]
    for owner in owners:
        owner.take(checkpoint.facts)


def _arrays(owners):
    return {name: array for owner in owners for name, array in owner.arrays().items()}


def _check_arrays(checkpoint, arrays):
    if checkpoint.arrays.keys() != arrays.keys():
        different = sorted(checkpoint.arrays.keys() ^ arrays.keys())
        raise checkpoint.error(f"does not hold what this network needs (it differs in {different[0]!r})")
    for name, array in arrays.items():
        found = checkpoint.arrays[name]
        if found.shape != array.shape or found.dtype != array.dtype:
            raise checkpoint.error(f"{name} is {found.dtype} {found.shape}, and this network needs {array.dtype} {array.shape}")
        if not np.isfinite(found).all():
            raise checkpoint.error(f"{name} holds numbers that are not finite")


# Which cfg a checkpoint belongs to: by what the file means, not by how it is spaced and commented.


def meaning(network):
    """The sections and options that make the run what it is, as JSON can hold them."""
    cfg = network.cfg
    sections = [[section.type, _options(section)] for section in (cfg.net, *cfg.layers)]
    sections[0][1].update(
        inputs=network.inputs,
        batch=network.streams * network.subdivisions,
        subdivisions=network.subdivisions,
        time_steps=network.time_steps,
    )
    return sections


def _options(section):
    unread = {key for key, _ in section.unused()} | _NOT_OF_THE_RUN
    return {
        key: ",".join(_number(item) for item in value.split(","))
        for key, (value, _) in sorted(section.options.items())
        if key not in unread
    }


def _number(text):
    """``.9``, ``0.90`` and ``9e-1`` as one and the same text."""
    try:
        value = float(text)
    except ValueError:
        return text
    return repr(int(value) if value.is_integer() else value)


def _check_cfg(checkpoint, sections):
    theirs = checkpoint.fact("cfg", list)
    if theirs == sections:
        return
    raise checkpoint.error(
        f"belongs to another cfg: {_difference(theirs, sections)}; use that cfg to go on, or begin a new run from its weights"
    )


def _difference(theirs, ours):
    try:
        if len(theirs) != len(ours):
            return f"it had {len(theirs) - 1} layers, this one has {len(ours) - 1}"
        for number, ((their_type, their_options), (our_type, our_options)) in enumerate(zip(theirs, ours)):
            if their_type != our_type:
                return f"layer {number - 1} was [{their_type}], and is [{our_type}]"
            for key in sorted(their_options.keys() | our_options.keys()):
                was, now = their_options.get(key, "not set"), our_options.get(key, "not set")
                if was != now:
                    return f"[{our_type}] {key} was {was}, and is {now}"
    except (TypeError, ValueError, AttributeError):  # a header that only looks like ours
        pass
    return "it cannot be compared"

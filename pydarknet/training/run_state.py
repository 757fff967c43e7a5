"""What a checkpoint says of a training run, and how a run goes on from it, bit for bit.

Whatever the next iteration reads is here: parameters, rolling statistics, the optimizer's memory,
``seen``, the streams' offsets and recurrent states, the random generators, the running average, and
what validation has seen. A checkpoint also names the cfg and the text that it belongs to, and goes on
with no others. ``max_batches`` may change: a longer run is the same run, longer (only a rate that falls
towards the end, as with ``policy=poly``, then falls towards the new one).
"""

import math

import numpy as np

from pydarknet.network import IMAGE_KEYS
from pydarknet.training.checkpoint import Checkpoint

_NOT_OF_THE_RUN = frozenset((*IMAGE_KEYS, "max_batches"))
_VALIDATION = ("best_loss", "best_iteration", "lowest_loss", "since_lowest", "since_cut", "rate_factor")


def checkpoint_of(trainer):
    """The :class:`~pydarknet.training.checkpoint.Checkpoint` of ``trainer`` between two iterations.

    Its arrays are the trainer's own, not copies: write them before the next iteration.
    """
    network = trainer.network
    facts = {
        "cfg": _meaning(network),
        "dialect": network.dialect.value,
        "text": trainer.text_digest,
        "iteration": trainer.iteration,
        "seen": network.seen,
        "avg_loss": trainer.avg_loss,
        "random": {name: random.bit_generator.state for name, random in _generators(trainer).items()},
        "validation": None,
    }
    if trainer.validation:
        facts["validation"] = {
            "text": trainer.validation.corpus.digest(),
            **{name: getattr(trainer.validation, name) for name in _VALIDATION},
        }
    return Checkpoint(facts, _arrays(trainer))


def restore(trainer, checkpoint):
    """Put ``trainer`` where ``checkpoint`` was made.

    Raises CheckpointError, with the trainer as it was, if the checkpoint belongs to another cfg or
    text, or holds what no run of this cfg could have.
    """
    network = trainer.network
    _check_cfg(checkpoint, _meaning(network))
    if checkpoint.fact("dialect", str) != network.dialect.value:
        raise checkpoint.error(
            f"is of a network of the dialect {checkpoint.facts['dialect']!r}, and this one is of {network.dialect.value!r}"
        )
    if checkpoint.fact("text", str) != trainer.text_digest:
        raise checkpoint.error(
            "belongs to another text: this one differs from the one the run was trained on, in content or in the part "
            "held out; give that text to go on, or start from its weights, a file of their own"
        )
    arrays = _arrays(trainer)
    _check_arrays(checkpoint, arrays)
    if (checkpoint.arrays["offsets"] < 0).any() or (checkpoint.arrays["offsets"] >= len(trainer.corpus)).any():
        raise checkpoint.error("has offsets outside the text")
    seen, avg_loss = checkpoint.fact("seen", int), checkpoint.fact("avg_loss", float, type(None))
    if not 0 <= seen < 2**63:
        raise checkpoint.error(f"says that {seen} characters were seen")
    _check_adam(checkpoint, seen // trainer.samples)
    states = _random_states(checkpoint, _generators(trainer))
    validation = _validation(trainer, checkpoint)

    for name, array in arrays.items():
        array[...] = checkpoint.arrays[name]
    for name, random in _generators(trainer).items():
        random.bit_generator.state = states[name]
    network.seen, trainer.avg_loss = seen, avg_loss
    for name, value in validation.items():
        setattr(trainer.validation, name, value)


def _arrays(trainer):
    """Every array of the run by name: the memory itself."""
    network = trainer.network
    arrays = {"values": network.parameters.values, "statistics": network.parameters.statistics, "offsets": trainer.offsets}
    for name, array in trainer.optimizer.arrays().items():
        arrays[f"{trainer.optimizer.name}.{name}"] = array
    for number, layer in enumerate(network.layers):
        for name, array in layer.state(network.streams).items():
            arrays[f"layer {number}.{name}"] = array
    return arrays


def _generators(trainer):
    return {"offsets": trainer.random, "dropout": trainer.network.dropout_random}


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


def _check_adam(checkpoint, iteration):
    """Hold what Adam remembers, if it is Adam, against what ``iteration`` updates can have left."""
    t, v = checkpoint.arrays.get("adam.t"), checkpoint.arrays.get("adam.v")
    if t is not None and not (0 <= t[0] <= iteration and (v >= 0).all()):
        raise checkpoint.error(
            "has no usable memory of the optimizer: its count of updates, or a mean of squares, is impossible"
        )


def _random_states(checkpoint, generators):
    states = checkpoint.fact("random", dict)
    if states.keys() != generators.keys():
        raise checkpoint.error("has no usable random state")
    for state in states.values():
        try:
            np.random.PCG64(0).state = state
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
            raise checkpoint.error("has no usable random state") from None
    return states


def _validation(trainer, checkpoint):
    """What the validation of ``trainer`` is to know; nothing if the checkpoint's measured another text."""
    if trainer.validation is None or checkpoint.facts.get("validation") is None:
        return {}
    known = checkpoint.fact("validation", dict)
    if known.get("text") != trainer.validation.corpus.digest():
        return {}
    for name in _VALIDATION:
        value = known.get(name, "")
        number = type(value) in (int, float) and math.isfinite(value) and value >= 0
        whole = type(value) is int or not name.startswith(("since", "best_iteration"))
        if not ((number and whole) or (value is None and name.startswith(("best", "lowest")))):
            raise checkpoint.error(f"has no usable {name!r} of its validation")
    return {name: known[name] for name in _VALIDATION}


# Which cfg a checkpoint belongs to: by what the file means, not by how it is spaced and commented.


def _meaning(network):
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
        f"belongs to another cfg: {_difference(theirs, sections)}; "
        "use that cfg to go on, or start from its weights, a file of their own"
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

"""Fuzz target: any bytes as a checkpoint, and if it is one, a run that goes on from it and saves.

The checksum would stop every changed file at the door, so the first byte says how much of the file is made
good: 0 nothing, 1 the checksum, 2 and more also the start (then the header ends at the first NUL).
"""

import hashlib
import struct

from shared import as_file, no_cfg_warnings

from pydarknet.network import load_network
from pydarknet.text.corpus import Corpus
from pydarknet.training.checkpoint import MAGIC, VERSION, read_checkpoint, write_checkpoint
from pydarknet.training.trainer import Trainer
from pydarknet.training.validation import Validation

CFG = as_file(
    b"[net]\ninputs=4\nbatch=2\ntime_steps=2\nadam=1\nmax_batches=2000000000\n[lstm]\noutput=2\n"
    b"[dropout]\n[connected]\noutput=4\nactivation=linear\n[softmax]\n",
    "tiny.cfg",
)
TEXT = Corpus.from_symbols(bytes((n * n + n // 3) % 4 for n in range(60)))
no_cfg_warnings()


def _trainer():
    network = load_network(CFG, srand=1)
    return Trainer(network, TEXT, srand=1, validation=Validation(network, TEXT, every=1))


def _seeds():
    trainer = _trainer()
    trainer.step()
    path = as_file(b"", "seed.checkpoint")
    write_checkpoint(path, trainer.checkpoint())
    with open(path, "rb") as file:
        content = file.read()
    header = struct.unpack_from("<I", content, 12)[0]
    return [b"\0" + content, b"\1" + content[:-16], b"\2" + content[16 : 16 + header] + b"\0" + content[16 + header : -16]]


SEEDS = _seeds()


def one_input(data):
    kind, body = data[:1], data[1:]
    if kind > b"\1":
        header, _, arrays = body.partition(b"\0")
        body = MAGIC + struct.pack("<II", VERSION, len(header)) + header + arrays
    if kind > b"\0":
        body += hashlib.blake2b(body, digest_size=16).digest()
    checkpoint = read_checkpoint(as_file(body))
    trainer = _trainer()
    trainer.restore(checkpoint)
    # What was accepted can be saved, and is read again as what it is; so is the iteration after it.
    for _ in range(2):
        _check_saved(trainer)
        if trainer.done:
            return
        trainer.step()


def _check_saved(trainer):
    path = as_file(b"", "saved.checkpoint")
    checkpoint = trainer.checkpoint()
    write_checkpoint(path, checkpoint)
    again = read_checkpoint(path)
    assert again.facts == checkpoint.facts
    assert again.arrays.keys() == checkpoint.arrays.keys()
    assert all(again.arrays[name].tobytes() == array.tobytes() for name, array in checkpoint.arrays.items())
    _trainer().restore(again)

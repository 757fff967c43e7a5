"""Fuzz target: any bytes as a cfg file, and if it is one, a network of it and a call of training."""

import numpy as np
from shared import as_file, little_memory, no_cfg_warnings

from pydarknet.network import load_network
from pydarknet.system.memory import check_training_memory

NET = b"[net]\ninputs=9\nbatch=4\nsubdivisions=2\ntime_steps=3\nlearning_rate=.1\nmax_batches=50\n"
END = b"[connected]\noutput=9\nactivation=linear\n[softmax]\n"
SEEDS = [
    NET + b"momentum=.9\ndecay=.001\npolicy=steps\nsteps=10,20\nscales=.1,.1\nburn_in=5\n[lstm]\noutput=5\n" + END,
    NET + b"adam=1\nB1=.9\nB2=.999\neps=1e-7\npolicy=sgdr\nsgdr_cycle=9\n[gru]\noutput=5\ntanh=1\nbatch_normalize=1\n" + END,
    NET + b"policy=poly\npower=2\n[rnn]\noutput=4\nhidden=3\nlogistic=1\nshortcut=1\n[dropout]\nprobability=.2\n" + END,
    NET
    + b"clip_norm=1\n[crnn]\nsize=1\noutput=4\nhidden=3\nactivation=leaky\n[batchnorm]\n[activation]\nactivation=elu\n"
    + END
    + b"temperature=2\n[cost]\ntype=sse\nscale=.5\n",
]
LONG = 10_000  # of what is long: a number, a list, a line, a comment, a file of many sections
SEEDS += [
    NET.replace(b".1", b"1" * LONG) + END,
    NET + b"policy=steps\nsteps=" + b",".join(b"%d" % n for n in range(LONG)) + b"\nscales=" + b".1," * LONG + b"1\n" + END,
    NET + b"#" + b"x" * LONG + b"\n" + b" \t" * LONG + b"\n" + b"k" * LONG + b"=" + b"v" * LONG + b"\n" + END,
    NET + b"[activation]\nactivation=elu\n" * (LONG // 100) + END,
]
OPTIONS = ["-max_len=100000"]
little_memory()
no_cfg_warnings()


def one_input(data):
    network = load_network(as_file(data), srand=1)
    check_training_memory(network)
    network.schedule.rate(1, np.random.default_rng(0))
    zeros = np.zeros((min(network.time_steps, 3), network.streams), int)
    network.train_call(zeros, zeros)
    network.optimizer_options.make(network.parameters).update(network.parameters, 0.1, zeros.size)

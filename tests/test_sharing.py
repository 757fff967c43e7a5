"""The one place that decides who shares out the work."""

import pytest

from pydarknet import sharing
from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.network import Network
from pydarknet.sharing import Sharing, sharing_of_a_call, sharing_of_training


def network(layers, batch):
    text = f"[net]\ninputs=20\nbatch={batch}\ntime_steps=2\n{layers}\n[connected]\noutput=20\nactivation=linear\n[softmax]\n"
    return Network(parse_cfg_text(text, "test.cfg"), srand=1)


@pytest.mark.parametrize(
    ("batch", "cores", "processes"), [(64, 2, 2), (64, 1, 1), (64, None, 1), (8, 2, 1), (16, 2, 2), (40, 16, 5)]
)
def test_processes_by_streams_and_cores(monkeypatch, batch, cores, processes):
    monkeypatch.setattr(sharing, "blas_threads", lambda: cores)
    net = network("[lstm]\noutput=8", batch)
    assert sharing_of_training(net) == Sharing(1)  # too small for a second process
    monkeypatch.setattr(sharing, "WORK_OF_PROCESSES", 1)
    monkeypatch.setattr(sharing, "SMALLEST_OF_PROCESSES", 1)
    assert sharing_of_training(net) == Sharing(processes)
    monkeypatch.setattr(sharing, "LARGEST_OF_PROCESSES", 100)
    assert sharing_of_training(net) == Sharing(1)


def test_batch_norm_needs_all_streams_in_one_process(monkeypatch):
    monkeypatch.setattr(sharing, "blas_threads", lambda: 2)
    monkeypatch.setattr(sharing, "WORK_OF_PROCESSES", 1)
    monkeypatch.setattr(sharing, "SMALLEST_OF_PROCESSES", 1)
    assert sharing_of_training(network("[lstm]\noutput=8", 64)).processes == 2
    assert sharing_of_training(network("[lstm]\noutput=8\nbatch_normalize=1", 64)).processes == 1


@pytest.mark.parametrize("layer", ["lstm", "gru"])
@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 3), (16, 4)])
def test_threads_for_large_layers(monkeypatch, layer, cores, threads):
    monkeypatch.setattr(sharing, "blas_threads", lambda: cores)
    net = network(f"[{layer}]\noutput=8", 4)
    assert sharing_of_a_call(net.layers, 4) == Sharing()
    monkeypatch.setattr(sharing, "THREADS_PAY", [(100, 4)])
    monkeypatch.setattr(sharing, "THREADS_PAY_IN_TRAINING", [(100, 4), (50, 2)])
    assert sharing_of_a_call(net.layers, 4) == Sharing(threads=threads)
    assert sharing_of_a_call(net.layers, 3) == Sharing()
    assert sharing_of_a_call(net.layers, 3, train=True) == sharing_of_training(network(f"[{layer}]\noutput=8", 3))
    assert sharing_of_a_call(net.layers, 3, train=True) == Sharing(threads=threads)


def test_a_network_says_who_shares_it_out():
    assert [str(Sharing(*numbers)) for numbers in ((1, 1), (2, 1), (1, 2))] == [
        "one thread",
        "2 processes share out the streams",
        "2 threads share out the units",
    ]

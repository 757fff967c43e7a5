"""Going on from a checkpoint is going on: bit for bit, in everything; and only with the cfg and text it belongs to."""

import copy
import json
import warnings

import numpy as np
import pytest
from runs import LAYERS, make_trainer, text, write_cfg

from pydarknet import load_network
from pydarknet.errors import CheckpointError, TrainingError
from pydarknet.text.corpus import Corpus
from pydarknet.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from pydarknet.training.trainer import Trainer
from pydarknet.training.validation import Validation

DROPOUT = LAYERS.replace("[connected]", "[dropout]\nprobability=.4\n[connected]")
NORMALIZED = LAYERS.replace("output=7", "output=7\nbatch_normalize=1")
RUNS = {
    "plain": (LAYERS, {}),
    "dropout, batch norm, clipping": (DROPOUT.replace("output=7", "output=7\nbatch_normalize=1"), dict(clip_norm=0.5)),
    "adam": (DROPOUT, dict(adam=1, learning_rate=0.01)),
    "gru": (LAYERS.replace("lstm", "gru"), {}),
    "dropped weights": (DROPOUT.replace("output=7", "output=7\nweight_dropout=.3"), {}),
    "rnn": (LAYERS.replace("lstm", "rnn"), dict(learning_rate=0.1)),
    "two layers": (LAYERS.replace("[connected]", "[gru]\noutput=5\n[batchnorm]\n[connected]"), {}),
    "random rate": (LAYERS, dict(policy="random", power=2)),
    "falling rate": (LAYERS, dict(policy="steps", steps="5,11,14", scales=".5,.5,.5", burn_in=3)),
}


def numbers(steps):
    return [(s.iteration, s.loss, s.avg_loss, s.rate, s.characters, s.epochs, s.valid_loss) for s in steps]


def passed(trainer, path):
    """``trainer``'s checkpoint, written and read."""
    write_checkpoint(path, trainer.checkpoint())
    return read_checkpoint(path)


def everything(trainer):
    """The checkpoint as one comparable thing: all that the run is."""
    checkpoint = trainer.checkpoint()
    return json.dumps(checkpoint.facts), {name: array.tobytes() for name, array in checkpoint.arrays.items()}


@pytest.mark.parametrize(("layers", "net"), RUNS.values(), ids=RUNS)
def test_resumed_is_undisturbed(tmp_path, layers, net):
    whole = make_trainer(tmp_path, layers, max_batches=16, **net)
    steps = list(whole.run())
    assert len({step.loss for step in steps}) == 16

    first = make_trainer(tmp_path, layers, max_batches=7, **net)
    seen = list(first.run())
    # Another seed and a state of its own: all that differs must come from the checkpoint.
    second = make_trainer(tmp_path, layers, max_batches=16, srand=99, **net)
    second.step()
    second.restore(passed(first, tmp_path / "c"))
    assert everything(second) == everything(first)
    seen += second.run()
    assert numbers(seen) == numbers(steps)
    assert everything(second) == everything(whole)


@pytest.mark.parametrize("kind", ["text", "tokens", "files"])
def test_any_kind_of_text(tmp_path, kind):
    (tmp_path / "a").write_bytes(text(700)), (tmp_path / "b").write_bytes(text(500, seed=2))
    (tmp_path / "t").write_text(" ".join(map(str, text(900))))
    texts = {
        "text": dict(paths=tmp_path / "a"),
        "tokens": dict(paths=tmp_path / "t", tokenized=True),
        "files": dict(paths=[tmp_path / "a", tmp_path / "b"], in_memory=0),
    }  # read from the disk as needed
    whole = make_trainer(tmp_path, corpus=Corpus.open(**texts[kind]), max_batches=8)
    list(whole.run())
    half = make_trainer(tmp_path, corpus=Corpus.open(**texts[kind]), max_batches=4)
    list(half.run())
    rest = make_trainer(tmp_path, corpus=Corpus.open(**texts[kind]), max_batches=8, srand=5)
    rest.restore(passed(half, tmp_path / "c"))
    list(rest.run())
    assert everything(rest) == everything(whole)


def test_validation_goes_on_too(tmp_path):
    def trainer(max_batches, every=3):
        return make_trainer(
            tmp_path,
            max_batches=max_batches,
            learning_rate=3,
            validation=lambda network: Validation(network, Corpus.from_symbols(text(500, seed=8)), every=every, plateau=1),
        )

    whole = trainer(40)
    steps = list(whole.run())
    assert whole.validation.rate_factor < 1, "the rate is to have been halved, or this tests little"
    # Stopped where the run measures once more because it ends: the longer run has not, and must not feel it.
    first = trainer(20)
    seen = list(first.run())
    assert seen[-1].valid_loss is not None and steps[19].valid_loss is None
    second = trainer(40)
    second.restore(passed(first, tmp_path / "c"))
    seen += second.run()
    assert [s[:-1] for s in numbers(seen)] == [s[:-1] for s in numbers(steps)]
    assert second.network.parameters.values.tobytes() == whole.network.parameters.values.tobytes()


def test_a_changed_held_out_text_begins_anew(tmp_path):
    def trainer(seed):
        return make_trainer(
            tmp_path,
            max_batches=6,
            validation=lambda network: Validation(network, Corpus.from_symbols(text(500, seed=seed)), every=2),
        )

    first = trainer(8)
    list(first.run())
    second = trainer(9)
    second.restore(passed(first, tmp_path / "c"))
    assert second.validation.best_loss is None
    assert second.network.seen == first.network.seen


def test_a_longer_run_is_the_same_run(tmp_path):
    first = make_trainer(tmp_path, max_batches=5)
    list(first.run())
    checkpoint = passed(first, tmp_path / "c")
    same = make_trainer(tmp_path, max_batches=5)
    same.restore(checkpoint)
    with pytest.raises(TrainingError, match="5 iterations are done already and max_batches is 5: nothing to do"):
        next(same.run())
    for max_batches in (6, 9):  # of the call, of the cfg
        longer = make_trainer(tmp_path, **({"max_batches": 6} if max_batches == 6 else {}))
        longer.restore(checkpoint)
        assert next(longer.run()).iteration == 6


def test_spelling_is_not_meaning(tmp_path):
    first = make_trainer(tmp_path)
    first.step()
    checkpoint = passed(first, tmp_path / "c")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the unknown key
        cfg = write_cfg(
            tmp_path,
            LAYERS.replace("[softmax]", "# the end\n[soft]\nno_such_key=1"),
            name="other.cfg",
            momentum="9.0e-1",
            jump=".250",
            hue=".1",
            max_batches=77,
        )
        other = Trainer(load_network(cfg), Corpus.from_symbols(text(3000)))
    other.restore(checkpoint)
    assert other.iteration == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(layers=LAYERS.replace("output=7", "output=8")), r"another cfg: \[lstm\] output was 7, and is 8"),
        (dict(layers=LAYERS.replace("lstm", "gru")), r"another cfg: layer 0 was \[lstm\], and is \[gru\]"),
        (dict(layers=DROPOUT), "another cfg: it had 3 layers, this one has 4"),
        (dict(learning_rate=0.25), r"another cfg: \[net\] learning_rate was 0.5, and is 0.25"),
        (dict(jump=0), r"another cfg: \[net\] jump was 0.25, and is 0"),
        (dict(clip_norm=1), r"another cfg: \[net\] clip_norm was not set, and is 1"),
        (dict(batch=8), r"another cfg: \[net\] batch was 4, and is 8"),
        (dict(subdivisions=1), r"another cfg: \[net\] subdivisions was 2, and is 1"),
        (dict(size=2999), "belongs to another text: this one differs"),
        (dict(corpus=Corpus.from_symbols(text(3001)).slice(0, 3000)), None),  # the same symbols
        (dict(corpus=Corpus.from_symbols(text(3001)).slice(1, 3001)), "belongs to another text"),
    ],
)
def test_another_cfg_or_text(tmp_path, changed, message):
    first = make_trainer(tmp_path)
    first.step()
    checkpoint = passed(first, tmp_path / "c")
    other = make_trainer(tmp_path, **changed)
    before = everything(other)
    if message is None:
        other.restore(checkpoint)
        return
    with pytest.raises(CheckpointError, match=message) as error:
        other.restore(checkpoint)
    assert "\n" not in str(error.value) and str(tmp_path / "c") in str(error.value)
    assert everything(other) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(batch=3), r"another cfg: \[net\] batch was 4, and is 6"),  # streams of each of the 2 subdivisions
        (dict(time_steps=6), r"another cfg: \[net\] time_steps was 5, and is 6"),
        (dict(settings=["net.momentum=0.8"]), r"another cfg: \[net\] momentum was 0.9, and is 0.8"),
    ],
)
def test_another_network_of_the_same_cfg(tmp_path, call, message):
    first = make_trainer(tmp_path)
    other = Trainer(load_network(tmp_path / "tiny.cfg", **call), Corpus.from_symbols(text(3000)))
    with pytest.raises(CheckpointError, match=message):
        other.restore(first.checkpoint())


def test_an_option_that_is_no_longer_set(tmp_path):
    first = make_trainer(tmp_path, clip_norm=1)
    with pytest.raises(CheckpointError, match=r"another cfg: \[net\] clip_norm was 1, and is not set"):
        make_trainer(tmp_path).restore(first.checkpoint())


def test_what_a_checkpoint_says_of_its_cfg_stays_what_it_was(tmp_path):
    """A version that put it in other words would go on with no checkpoint of an earlier one."""
    trainer = make_trainer(tmp_path, time_steps=None, policy="steps", steps="5, 011", scales=".5,0.10")
    facts = trainer.checkpoint().facts
    assert facts["cfg"] == [
        [
            "net",
            {
                "batch": 4, "decay": "0.001", "inputs": 64, "jump": "0.25", "learning_rate": "0.5", "momentum": "0.9",
                "policy": "steps", "scales": "0.5,0.1", "steps": "5,11", "subdivisions": 2, "time_steps": 1,
            },
        ],
        ["lstm", {"output": "7"}],
        ["connected", {"activation": "linear", "output": "64"}],
        ["softmax", {}],
    ]  # fmt: skip
    names = ["avg_loss", "cfg", "dialect", "iteration", "random", "seen", "text", "unmeasured", "validation"]
    assert sorted(facts) == names and sorted(facts["random"]) == ["dropout", "offsets"]


@pytest.mark.parametrize(("command", "told"), [(None, ""), ("pydarknet train", ": pydarknet train")])
def test_another_text_says_how_to_start_from_the_weights(tmp_path, command, told):
    first = make_trainer(tmp_path)
    with pytest.raises(CheckpointError, match=f"or start a run of its own from the weights{told}$"):
        make_trainer(tmp_path, size=99).restore(first.checkpoint(), command)


def test_an_array_that_is_missing_is_named(tmp_path):
    trainer = make_trainer(tmp_path)
    good = trainer.checkpoint()
    arrays = {name: array for name, array in good.arrays.items() if name != "layer 0.c"}
    with pytest.raises(CheckpointError, match=r"not hold what this network needs \(it differs in 'layer 0.c'\)$"):
        trainer.restore(Checkpoint(good.facts, arrays))


def test_every_offset_in_the_text_is_good_and_no_other(tmp_path):
    trainer = make_trainer(tmp_path)
    good = trainer.checkpoint()
    trainer.restore(with_array(good, "offsets", np.array([0, 2999])))
    assert trainer.offsets.tolist() == [0, 2999]
    for wrong in (-1, 3000):
        with pytest.raises(CheckpointError, match="has offsets outside the text"):
            trainer.restore(with_array(good, "offsets", np.array([0, wrong])))


def test_a_run_from_weights_of_another_batch_goes_on(tmp_path):
    """What such weights have seen is no whole number of iterations."""
    first = make_trainer(tmp_path)
    first.network.seen = 47
    first.step()
    second = make_trainer(tmp_path)
    second.restore(passed(first, tmp_path / "c"))
    assert (second.iteration, second.network.seen) == (3, 67)


def replaced(checkpoint, **facts):
    return Checkpoint({**checkpoint.facts, **facts}, checkpoint.arrays, "c")


def with_array(checkpoint, name, array):
    return Checkpoint(checkpoint.facts, {**checkpoint.arrays, name: array}, "c")


def random_state(checkpoint, **changes):
    random = copy.deepcopy(checkpoint.facts["random"])
    random["dropout"].update(changes)
    return replaced(checkpoint, random=random)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: replaced(c, cfg=None),
        lambda c: replaced(c, cfg=[]),
        lambda c: replaced(c, cfg=[1, 2, 3, 4]),
        lambda c: replaced(c, cfg=[["net", 3]] * 4),
        lambda c: replaced(c, cfg=[["net", {}, 1]] * 4),
        lambda c: replaced(c, dialect="alexeyab"),
        lambda c: replaced(c, text=7),
        lambda c: replaced(c, seen=-1),
        lambda c: replaced(c, seen=True),
        lambda c: replaced(c, seen=2**70),
        lambda c: replaced(c, avg_loss="1"),
        lambda c: Checkpoint({name: fact for name, fact in c.facts.items() if name != "avg_loss"}, c.arrays, "c"),
        lambda c: replaced(c, random={}),
        lambda c: replaced(c, random={"offsets": 1, "dropout": []}),
        lambda c: random_state(c, bit_generator="MT19937"),
        lambda c: random_state(c, state={"state": -1, "inc": 1}),
        lambda c: random_state(c, state={"state": 2**128, "inc": 1}),
        lambda c: random_state(c, state={"inc": 1}),
        lambda c: random_state(c, state=[]),
        lambda c: random_state(c, state={"state": 0, "inc": 0}),  # it would draw the same number for ever
        lambda c: random_state(c, state={"state": 5, "inc": 2}),
        lambda c: replaced(c, avg_loss=float("inf")),
        lambda c: replaced(c, iteration=10**200),
        lambda c: replaced(c, iteration=2),
        lambda c: random_state(c, uinteger="x"),
        lambda c: random_state(c, uinteger=2**32),
        lambda c: random_state(c, has_uint32=7),
        lambda c: random_state(c, state={"state": 5, "inc": 3.0}),
        lambda c: random_state(c, state={"state": 5.0, "inc": 3}),
        lambda c: with_array(c, "values", c.arrays["values"][1:]),
        lambda c: with_array(c, "values", c.arrays["values"].astype(np.float64)),
        lambda c: with_array(c, "values", np.full_like(c.arrays["values"], np.nan)),
        lambda c: with_array(c, "sgd.momentum", np.full_like(c.arrays["values"], np.inf)),
        lambda c: with_array(c, "more", c.arrays["values"]),
        lambda c: with_array(c, "offsets", c.arrays["offsets"] + 3000),
        lambda c: with_array(c, "offsets", c.arrays["offsets"] - 3000),
        lambda c: Checkpoint(c.facts, {name: a for name, a in c.arrays.items() if name != "layer 0.c"}, "c"),
        lambda c: replaced(c, validation=3),
        lambda c: replaced(c, validation={**c.facts["validation"], "rate_factor": -1}),
        lambda c: replaced(c, validation={**c.facts["validation"], "rate_factor": None}),
        lambda c: replaced(c, validation={**c.facts["validation"], "since_cut": 0.5}),
        lambda c: replaced(c, validation={**c.facts["validation"], "best_loss": "low"}),
    ],
)
def test_what_no_run_could_have_written(tmp_path, spoil):
    """A whole file with a right checksum that only looks like a checkpoint of this run: refused, and nothing is changed."""

    def validation(network):
        return Validation(network, Corpus.from_symbols(text(300, seed=8)), every=1)

    first = make_trainer(tmp_path, validation=validation)
    first.step()
    good = passed(first, tmp_path / "c")
    other = make_trainer(tmp_path, validation=validation, srand=4)
    before = everything(other)
    with pytest.raises(CheckpointError) as error:
        other.restore(spoil(good))
    assert str(error.value).startswith("c: ") and "\n" not in str(error.value)
    assert everything(other) == before
    other.restore(good)
    assert everything(other) == everything(first)

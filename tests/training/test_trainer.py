"""The training loop: which text each stream reads, when its state is cleared, what an update is made of."""

import dataclasses
import math
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from runs import LAYERS, make_trainer, text, write_cfg

from pydarknet import load_network
from pydarknet.darknet.randomness import generator
from pydarknet.errors import CfgError, InputError, TextError, TrainingError
from pydarknet.text.corpus import Corpus
from pydarknet.training.trainer import Trainer
from pydarknet.training.validation import Validation

PLAIN = "\n[connected]\noutput=64\nactivation=linear\n[softmax]\n"  # nothing that remembers


class Recorded:
    """Stands in for ``network.train_call``: notes what is read and the state that it is read with."""

    def __init__(self, trainer):
        self.trainer, self.call = trainer, trainer.network.train_call
        self.windows, self.states = [], []
        trainer.network.train_call = self

    def __call__(self, symbols, truth):
        network = self.trainer.network
        self.windows.append((symbols.copy(), truth.copy()))
        self.states.append({name: a.copy() for name, a in network.layers[0].state(network.streams).items()})
        return self.call(symbols, truth)


class Scripted:
    """Random numbers that are no accident: the streams of ``jumps[n]`` jump after call n, to ``target``."""

    bit_generator = SimpleNamespace(state=None)

    def __init__(self, jumps, target):
        self.jumps, self.target = list(jumps), target

    def random(self, size):
        jumping = self.jumps.pop(0)
        return np.array([0.0 if stream in jumping else 0.999 for stream in range(size)])

    def integers(self, high, size):
        return np.full(size, self.target)


# What is read


def test_streams_read_consecutive_windows_and_wrap(tmp_path):
    trainer = make_trainer(tmp_path, size=47, jump=0)
    record = Recorded(trainer)
    content, start = np.frombuffer(text(47), np.uint8), trainer.offsets.copy()
    trainer.offsets[0] = start[0] = 44  # this one wraps in the first window
    for _ in range(6):
        trainer.step()
    assert len(record.windows) == 12  # two subdivisions each
    T, B = 5, 2
    for n, (symbols, truth) in enumerate(record.windows):
        at = start[None, :] + n * T + np.arange(T)[:, None]
        assert symbols.shape == truth.shape == (T, B)
        np.testing.assert_array_equal(symbols, content[at % 47], err_msg=f"window {n}")
        np.testing.assert_array_equal(truth, content[(at + 1) % 47], err_msg=f"window {n}")


def test_offsets_stay_in_the_text(tmp_path):
    """A checkpoint with others is refused."""
    trainer = make_trainer(tmp_path, size=37, jump=0)
    for _ in range(12):  # which go round the text three times
        trainer.step()
        assert (trainer.offsets < 37).all()
    make_trainer(tmp_path, size=37, jump=0).restore(trainer.checkpoint())


def test_the_state_is_carried_from_window_to_window(tmp_path):
    trainer = make_trainer(tmp_path, jump=0)
    record = Recorded(trainer)
    for _ in range(3):
        trainer.step()
    assert not record.states[0]["h"].any()
    for before, after in zip(record.states[1:], record.states[2:]):
        assert before["h"].all() and before["c"].all() and not np.array_equal(before["h"], after["h"])


def test_a_jump_moves_and_clears_one_stream_alone(tmp_path):
    trainer = make_trainer(tmp_path, batch=8, subdivisions=1, max_batches=9)
    trainer.random = Scripted([[], [3, 5], [], []], target=1234)
    record = Recorded(trainer)
    start = trainer.offsets.copy()
    for _ in range(4):
        trainer.step()
    at = [window[0][0] for window in record.windows]  # the first symbol of each stream
    content = np.frombuffer(text(3000), np.uint8)
    np.testing.assert_array_equal(at[1], content[(start + 5) % 3000])
    expected = (start + 10) % 3000
    expected[[3, 5]] = 1234
    np.testing.assert_array_equal(at[2], content[expected])
    for name in ("h", "c"):
        cleared = ~record.states[2][name].any(axis=1)
        assert cleared.tolist() == [stream in (3, 5) for stream in range(8)], name
        assert record.states[3][name].all()


def test_the_chance_of_a_jump_is_the_cfgs(tmp_path):
    for keys, jump in (({}, 1 / 64), ({"jump": 0.25}, 0.25), ({"jump": 0}, 0)):  # rand() % 64 == 0 in Darknet
        assert load_network(write_cfg(tmp_path, **keys)).jump == jump
    with pytest.raises(CfgError, match="jump=1.5"):
        load_network(write_cfg(tmp_path, jump=1.5))


def test_without_jumps_the_text_is_read_evenly(tmp_path):
    trainer = make_trainer(tmp_path, size=50, jump=0, batch=10, subdivisions=1, time_steps=5)
    record = Recorded(trainer)
    trainer.step()
    ((symbols, _),) = record.windows
    assert sorted(symbols.ravel()) == sorted(np.frombuffer(text(50), np.uint8))


def test_streams_start_where_the_numbers_of_srand_say(tmp_path):
    """So that a run that is made again, also by a later version, is the same run."""
    random = generator(3, "offsets")
    jumping = make_trainer(tmp_path, jump=1 / 4, batch=16, subdivisions=2)
    assert jumping.offsets.tolist() == random.integers(3000, size=8).tolist()
    first = generator(3, "offsets").integers(3000)
    even = make_trainer(tmp_path, jump=0, batch=16, subdivisions=2)
    assert even.offsets.tolist() == [(first + 375 * n) % 3000 for n in range(8)]


def test_jumps_come_as_often_as_said(tmp_path):
    trainer = make_trainer(tmp_path, jump=1 / 8, batch=1000, subdivisions=1, layers=PLAIN, time_steps=1)
    before, jumped = trainer.offsets.copy(), 0
    for _ in range(10):
        trainer.step()
        jumped += np.sum(trainer.offsets != (before + 1) % 3000)
        before = trainer.offsets.copy()
    # 10,000 draws of 1/8 have a standard deviation of 33.
    assert 1250 - 5 * 33 < jumped < 1250 + 5 * 33


def test_a_text_shorter_than_a_window_is_trained_on_aloud(tmp_path):
    with pytest.warns(UserWarning, match="the text has 5 symbols, no more than time_steps=5: each window repeats it"):
        trainer = make_trainer(tmp_path, size=5)
    assert math.isfinite(trainer.step().loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer(tmp_path, size=6)


def test_a_run_that_ends_before_its_full_rate_says_so(tmp_path):
    with pytest.warns(UserWarning, match="max_batches=30 is below burn_in=31: the learning rate never gets to 0.5"):
        make_trainer(tmp_path, burn_in=31)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer(tmp_path, burn_in=30)


def test_a_text_may_be_given_by_its_path(tmp_path):
    (tmp_path / "text").write_bytes(text(3000))
    trainer = Trainer(load_network(write_cfg(tmp_path)), str(tmp_path / "text"))
    assert trainer.text_digest == Corpus.from_symbols(text(3000)).digest()
    with pytest.raises(InputError, match=r"the text is b?\['a'\]; give a path, or a pydarknet.Corpus"):
        Trainer(trainer.network, ["a"])


# What an update is


@pytest.mark.parametrize("layers", [PLAIN, LAYERS], ids=["connected", "lstm"])
def test_subdivisions_update_as_one_large_batch_of_the_same_windows(tmp_path, layers):
    """Every window begins with an empty state (all streams jump), so it makes no difference in which call it is read."""
    split = make_trainer(tmp_path, layers, jump=1, batch=6, subdivisions=3, clip_norm=0.1)
    record = Recorded(split)
    split.step()
    starts = np.concatenate([window[0].T for window in record.windows])  # (6, T)
    whole = make_trainer(tmp_path, layers, jump=1, batch=6, subdivisions=1, clip_norm=0.1)
    content = text(3000)
    whole.offsets[:] = [content.index(bytes(row.astype(np.uint8))) for row in starts]
    whole_record = Recorded(whole)
    step = whole.step()
    np.testing.assert_array_equal(whole_record.windows[0][0], np.concatenate([w[0] for w in record.windows], axis=1))
    np.testing.assert_array_equal(whole_record.windows[0][1], np.concatenate([w[1] for w in record.windows], axis=1))
    assert (step.iteration, step.characters) == (split.iteration, split.network.seen) == (1, 30)
    ours, theirs = whole.network.parameters.values, split.network.parameters.values
    # float32 sums in another order: one part in 1e-7 each, of values up to 1.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert np.abs(ours - make_trainer(tmp_path, layers).network.parameters.values).max() > 1e-3


def test_the_first_update_has_batch_number_1(tmp_path):
    trainer = make_trainer(tmp_path, burn_in=4, power=1, learning_rate=1, policy="steps", steps="6", scales=".1")
    steps = [trainer.step() for _ in range(6)]
    assert [step.rate for step in steps] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1])
    assert [step.iteration for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.characters for step in steps] == [20, 40, 60, 80, 100, 120]
    assert steps[-1].epochs == 120 / 3000


def test_the_loss_is_the_mean_of_all_characters(tmp_path):
    """Of those of every call of an update."""
    losses = iter([30.0, 50.0, 7.0, 5.0])
    network = load_network(write_cfg(tmp_path))  # 2 subdivisions of 2 streams and 5 steps
    trainer = Trainer(network, Corpus.from_symbols(text(3000)), train_call=lambda symbols, truth: next(losses))
    assert [trainer.step().loss, trainer.step().loss] == [80 / 20, 12 / 20]


def test_average_loss_is_darknets(tmp_path):
    trainer = make_trainer(tmp_path)
    steps = [trainer.step() for _ in range(4)]
    average = steps[0].loss
    for step in steps:
        average = 0.9 * average + 0.1 * step.loss
        assert step.avg_loss == pytest.approx(average, rel=1e-12)
        assert step.bits_per_character == pytest.approx(step.loss / math.log(2))


def test_the_loss_falls(tmp_path):
    trainer = make_trainer(tmp_path, batch=32, subdivisions=1, max_batches=300, learning_rate=1, clip_norm=1)
    losses = [step.loss for step in trainer.run()]
    assert losses[0] == pytest.approx(math.log(64), abs=0.2)
    assert np.mean(losses[-20:]) < 2.4  # measured: 2.1; a guess by frequency alone has 3.7


def test_srand_makes_the_run_again(tmp_path):
    def losses(srand):
        return [step.loss for step in make_trainer(tmp_path, srand=srand, max_batches=4).run()]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)
    assert losses(None) != losses(None)


def test_weights_go_on_counting(tmp_path):
    first = make_trainer(tmp_path, max_batches=3)
    list(first.run())
    first.network.save_weights(tmp_path / "w.weights")
    network = load_network(write_cfg(tmp_path), tmp_path / "w.weights")
    second = Trainer(network, first.corpus, max_batches=5)
    assert [step.iteration for step in second.run()] == [4, 5]


# What ends a run


def test_max_batches_0_is_said_aloud(tmp_path):
    with pytest.raises(TrainingError, match="max_batches is 0, which to Darknet means no training"):
        Trainer(load_network(write_cfg(tmp_path, max_batches=None)), Corpus.from_symbols(text(99)))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=1e30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numpy, which would be lines before the one that counts
        with pytest.raises(
            TrainingError, match=r"iteration \d: the loss is nan: training has diverged, .* lower learning_rate"
        ):
            list(trainer.run())
    assert 1 < trainer.iteration < 10


def test_symbols_beyond_the_inputs_are_told_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("pydarknet.text.corpus.BLOCK", 64)  # that are scanned at once
    late = Corpus.from_symbols(bytes(250_000) + b"\x40" + bytes(100))
    with pytest.raises(TextError, match="<memory>: byte 250000: symbol 64 is out of range for a network of 64 inputs"):
        make_trainer(tmp_path, corpus=late)
    # Whatever the place: no block that is scanned leaves one out, at its beginning or its end.
    for at in (0, 62, 63, 64, 127, 128, 140):
        symbols = np.zeros(141, np.int32)
        symbols[at] = 64
        with pytest.raises(TextError, match=f"token {at}: symbol 64 is out of range"):
            make_trainer(tmp_path, corpus=Corpus.from_symbols(symbols))
    make_trainer(tmp_path, corpus=Corpus.from_symbols(np.full(100, 63)))  # the last that there is
    with pytest.raises(TextError, match="token 3: symbol 1000 is out of range"):
        make_trainer(tmp_path, corpus=Corpus.from_symbols(np.array([1, 2, 3, 1000, 4])))
    with pytest.raises(TextError, match="symbol 200 is out of range"):  # of the held-out text too
        make_trainer(tmp_path, validation=lambda network: Validation(network, Corpus.from_symbols(b"\1\2\xc8")))


def test_a_text_that_shrinks(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(text(3000))
    trainer = make_trainer(tmp_path, corpus=Corpus.open(path, in_memory=0))
    trainer.step()
    path.write_bytes(b"")
    with pytest.raises(TextError, match="text: the file has shrunk while in use"):
        trainer.step()


def test_a_text_that_is_edited_while_it_is_read(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(text(3000))
    trainer = make_trainer(tmp_path, corpus=Corpus.open(path, in_memory=0))
    path.write_bytes(b"\x40" * 3000)
    with pytest.raises(TextError, match=r"text: byte \d+: symbol 64 is out of range for a network of 64 inputs"):
        trainer.step()


def test_sizes_that_do_not_fit_are_told_before_memory_is_taken(tmp_path):
    for net in (dict(time_steps=2**31 - 1), dict(batch=2**31 - 2)):
        with pytest.raises(TrainingError, match=r"tiny.cfg: training needs \d+(,\d{3}){4,} bytes of memory, .* can be had"):
            make_trainer(tmp_path, **net)


# Validation


def held_out(every=4, size=800, **options):
    return lambda network: Validation(network, Corpus.from_symbols(text(size, seed=8)), every=every, **options)


def test_training_does_not_feel_the_validation(tmp_path):
    layers = LAYERS.replace("[connected]", "[dropout]\n[connected]").replace("output=7", "output=7\nbatch_normalize=1")
    plain = make_trainer(tmp_path, layers, max_batches=12)
    measured = make_trainer(tmp_path, layers, max_batches=12, validation=held_out())
    for a, b in zip(plain.run(), measured.run(), strict=True):
        assert b.valid_loss is None if b.iteration % 4 else b.valid_loss > 0
        assert (a.loss, a.rate) == (b.loss, b.rate), f"iteration {a.iteration}"
    ours, theirs = plain.checkpoint(), measured.checkpoint()
    for name, array in ours.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name], err_msg=name)
    assert ours.facts["random"] == theirs.facts["random"]


def test_the_held_out_loss_is_that_of_predict(tmp_path):
    """Of parallel streams with an empty state each, every symbol but the first predicted once."""
    trainer = make_trainer(tmp_path, validation=held_out(size=3001))
    for _ in range(5):
        trainer.step()
    network, symbols = trainer.network, np.frombuffer(text(3001, seed=8), np.uint8)
    assert trainer.validation.measure() == trainer.validation.measure()
    streams = np.stack([symbols[b * 1000 : (b + 1) * 1000 + 1] for b in range(3)], axis=1)
    network.reset_state()
    p = network.predict(streams[:-1].astype(int))
    truth = np.take_along_axis(p, streams[1:, :, None].astype(int), axis=2)
    assert trainer.validation.measure() == pytest.approx(-np.log(truth.astype(float)).mean(), rel=1e-6)


def test_a_held_out_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer = make_trainer(tmp_path, validation=held_out(every=1))
    huge = np.array([1e300, np.inf])
    trainer.validation.measure = lambda interrupted: float((huge * huge - huge).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numpy, which would be lines before the one that counts
        with pytest.raises(TrainingError, match="iteration 1: the loss on the held-out text is nan: training has diverged"):
            next(trainer.run())


def test_a_trainer_is_told_how_it_may_be_interrupted(tmp_path):
    network = load_network(write_cfg(tmp_path))
    corpus, validation = Corpus.from_symbols(text(3000)), held_out(every=2)(network)
    trainer = Trainer(network, corpus, validation=validation, interrupted=lambda: True)
    assert [step.iteration for step in trainer.run()] == [1] and not trainer.done


def test_how_often_it_is_measured(tmp_path):
    network = load_network(write_cfg(tmp_path))  # 20 symbols an update

    def every(size, **options):
        return Validation(network, Corpus.from_symbols(bytes(size)), **options).every

    assert every(100) == 100
    # A forward pass costs a third of a training step: a tenth of the time is 60,000 / 3 / (20 * .1) iterations.
    assert every(60_000) == 10_000
    assert every(60_000, every=3) == 3


@pytest.mark.parametrize("name", ["every", "patience", "plateau"])
def test_counts_begin_at_1(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is 0; it must be a whole number from 1"):
        Validation(load_network(write_cfg(tmp_path)), Corpus.from_symbols(b"abc"), **{name: 0})


def scripted(trainer, losses):
    """Let the measurements of ``trainer`` be ``losses``."""
    left = iter(losses)
    trainer.validation.measure = lambda interrupted: next(left)


def test_plateau_halves_the_rate(tmp_path):
    trainer = make_trainer(tmp_path, validation=held_out(every=1, plateau=2), max_batches=9)
    scripted(trainer, [5, 4, 4, 4, 4.5, 4.5, 3, 3, 3])
    rates = [step.rate for step in trainer.run()]
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125])
    assert trainer.validation.rate_factor == 0.125  # the last measurement has cut it again
    assert (trainer.validation.best_loss, trainer.validation.best_iteration) == (3, 7)


def test_patience_stops_the_run(tmp_path):
    trainer = make_trainer(tmp_path, validation=held_out(every=2, patience=3), max_batches=100)
    scripted(trainer, [5, 4, 4.1, 3.9, 4, 4, 4])
    assert [step.iteration for step in trainer.run()][-1] == 14
    assert trainer.stopped_early and trainer.done
    with pytest.raises(TrainingError, match="validation loss no longer fell: nothing to do; raise --patience"):
        next(trainer.run())


def test_the_last_iteration_is_measured_and_changes_no_course(tmp_path):
    trainer = make_trainer(tmp_path, validation=held_out(every=4, plateau=1), max_batches=6)
    scripted(trainer, [5, 6])
    steps = list(trainer.run())
    assert [step.iteration for step in steps if step.valid_loss is not None] == [4, 6]
    assert trainer.validation.rate_factor == 1
    trainer = make_trainer(tmp_path, validation=held_out(every=4), max_batches=6)
    scripted(trainer, [5, 4])
    list(trainer.run())
    assert trainer.validation.best_iteration == 6 and trainer.validation.lowest_loss == 5


def test_a_step_is_a_record(tmp_path):
    trainer, begun = make_trainer(tmp_path), time.perf_counter()
    step = trainer.step()
    assert 0 < step.seconds <= time.perf_counter() - begun
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.loss = 0
    assert list(dataclasses.asdict(step)) == [
        "iteration",
        "loss",
        "avg_loss",
        "rate",
        "seconds",
        "characters",
        "epochs",
        "valid_loss",
    ]


def test_an_error_in_an_iteration_leaves_the_last_whole_one(tmp_path):
    """In the second of two calls, when offsets, states, rolling statistics and generators have moved: all goes on exactly."""
    layers = LAYERS.replace("output=7", "output=7\nbatch_normalize=1").replace("[connected]", "[dropout]\n[connected]")
    broken, whole = (make_trainer(tmp_path, layers, max_batches=9) for _ in range(2))
    calls = []

    def train_call(symbols, truth):
        calls.append(1)
        loss = broken.network.train_call(symbols, truth)
        if len(calls) == 6:
            raise MemoryError
        return loss

    broken.train_call = train_call
    with pytest.raises(MemoryError):
        list(broken.run())
    assert broken.iteration == 2
    steps = [(step.iteration, step.loss) for step in broken.run()]
    assert steps == [(step.iteration, step.loss) for step in whole.run()][2:]
    np.testing.assert_array_equal(broken.network.parameters.values, whole.network.parameters.values)
    np.testing.assert_array_equal(broken.network.parameters.statistics, whole.network.parameters.statistics)

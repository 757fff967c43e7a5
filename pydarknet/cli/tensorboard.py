"""The log of a training run for TensorBoard."""

import os
import time
from contextlib import suppress

from pydarknet.cli.progress import Report
from pydarknet.errors import InputError, TrainingError
from pydarknet.system.files import reported, show

FLUSH_EVERY = 10.0  # seconds until TensorBoard sees what has been logged


class TensorBoard(Report):
    """Losses, in nats, rate and samples as TensorBoard reads them, in the folder ``path``.

    Raises InputError without tensorboardX or torch, TrainingError if the folder cannot be written.
    """

    def __init__(self, path, after=None):
        self.name, self._path = show(path), path
        writer = summary_writer()
        with reported(TrainingError, path, "cannot write the log"):
            os.makedirs(path, exist_ok=True)
            self._writer = writer(os.fsdecode(path), purge_step=None if after is None else after + 1)

    def __exit__(self, kind, *_):
        with suppress(*([TrainingError] if kind else [])):  # the first error is the one to tell
            with reported(TrainingError, self._path, "cannot write the log"):
                self._writer.close()

    def write(self, step, sample=None):
        for name, value in (("loss/training", step.loss), ("loss/held_out", step.valid_loss), ("rate", step.rate)):
            if value is not None:
                self._writer.add_scalar(name, value, step.iteration)
        if sample is not None:
            self._writer.add_text("sample", f"    {sample}".replace("\n", "\n    "), step.iteration)


def summary_writer():
    """The class that writes, with tensorboardX or torch. Raises InputError without either."""
    try:
        import tensorboardX  # noqa: F401 (whether it is there)
    except ImportError:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("--tensorboard needs tensorboardX: pip install tensorboardX, or leave it out") from None
        return SummaryWriter
    return Events


class Events:
    """What the SummaryWriter of tensorboardX would write to the folder ``path``, but at once. Raises OSError.

    That one leaves the writing to a thread, which a full disk ends without a word; then the queue before it fills up, and
    the training waits for ever. From ``purge_step`` on, TensorBoard forgets what was logged before.
    """

    def __init__(self, path, purge_step=None):
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._summary, self._event, self._flushed = summary, Event, -FLUSH_EVERY
        # The name tells the second: a run that goes on at once must not write over the file of the one before.
        self._writer = EventsWriter(os.path.join(path, "events"), f".{os.getpid()}")
        if purge_step is not None:
            self._put(step=purge_step, file_version="brain.Event:2")
            self._put(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, name, value, step):
        self._put(step=step, summary=self._summary.scalar(name, value))

    def add_text(self, name, text, step):
        self._put(step=step, summary=self._summary.text(name, text))

    def close(self):
        self._writer.close()

    def _put(self, **fields):
        self._writer.write_event(self._event(wall_time=time.time(), **fields))
        if time.monotonic() - self._flushed >= FLUSH_EVERY:
            self._writer.flush()
            self._flushed = time.monotonic()

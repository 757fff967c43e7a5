"""Training on a GPU: the gradients of each call are computed by a PyTorch module, on any device that PyTorch has.

Everything else is the trainer's own: streams, schedules, optimizer, clipping, validation, checkpoints and weights files. The
numbers cross over three times: with the first call of an iteration the parameters go to the device, each call's gradients
are added to the network's on the way back, and a recurrent state comes back when somebody reads it or clears a part of it.
Dropout takes its masks from the network's own generator. So a run may go on under another device, or under none.
"""

from collections.abc import MutableMapping
from contextlib import contextmanager

from pydarknet.errors import InputError, TrainingError


@contextmanager
def torch_device(network, name):
    """Give a function that does what ``network.train_call(symbols, truth)`` does, on the PyTorch device ``name`` (cuda, mps).

    The parameters are read anew with the first call after the gradients were cleared: between the calls whose gradients are
    summed they must stay. Raises InputError when PyTorch is missing, has no such device here, or has no module for a layer;
    the function raises TrainingError when the device fails, with the gradients in any state then, as after an error anywhere.
    """
    from pydarknet.interop.extras import need

    torch = need("torch", "torch")
    device = _device(torch, name)
    tf32_before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False  # its ten bits are not a float32's 23
    engine = _Engine(torch, network, device)
    try:
        yield engine.train_call
    finally:
        torch.backends.cudnn.allow_tf32 = tf32_before
        engine.let_go()


def _device(torch, name):
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r}: PyTorch knows none of that name; give cuda, mps or cpu") from None
    try:
        torch.ones(1, device=device).item()  # which is all that tells whether it is there
    except Exception as error:  # of many types, by the device: AssertionError, NotImplementedError, ModuleNotFoundError
        raise InputError(f"device {name!r}: PyTorch cannot use it here: {_first_sentence(error)}") from None
    return device


def _first_sentence(error):
    return str(error).strip().split("\n")[0].split(". ")[0]


class _Engine:
    """A network's PyTorch module on its device, and what goes to and fro."""

    def __init__(self, torch, network, device):
        from pydarknet.interop.torch import DrawnDropout, to_torch

        self._torch, self._network, self._device = torch, network, device
        module = to_torch(network).train()
        one_hot = True
        for number, layer in enumerate(network.layers):
            one_hot = one_hot and layer.takes_one_hot
            if layer.draws:
                module.layers[number] = DrawnDropout(layer, one_hot)
            one_hot = one_hot and layer.gives_one_hot
        try:
            self._module = module.to(device)
        except (RuntimeError, TypeError) as error:  # too large for it; mps has no float64
            raise InputError(f"device {str(device)!r}: {_first_sentence(error)}") from None
        self._states = [_State(layer, torch, device) for layer in network.layers]
        self._begun = None  # the number of the gradients' beginning for which the parameters were put there

    def train_call(self, symbols, truth):
        """:meth:`Network.train_call` on the device."""
        symbols, truth = self._network.checked_pair(symbols, truth)
        try:
            loss = self._call(symbols, truth)
        except RuntimeError as error:
            raise TrainingError(f"device {str(self._device)!r}: {_first_sentence(error)}") from None
        self._network.seen += truth.size
        return loss

    def _call(self, symbols, truth):
        network, module = self._network, self._module
        if self._begun != network.parameters.begun:
            self._put_parameters()
            self._begun = network.parameters.begun
        state = [own.given(symbols.shape[1]) for own in self._states]
        log_p, state = module(self._put(symbols), state)
        nats = -log_p.gather(2, self._put(truth)[:, :, None])
        module.zero_grad(set_to_none=True)
        (nats.sum() * network.loss.scale).backward()
        for own, tensors in zip(self._states, state):
            own.take(tensors)
        self._add_gradients()
        return float(nats.detach().cpu().double().sum())

    def _put(self, symbols):
        return self._torch.from_numpy(symbols.astype("int64")).to(self._device)

    def _parts(self):
        """Yield (name, rows, array): a tensor of the module, and the network's array that these rows of it hold."""
        from pydarknet.interop.tensors import views

        for name, arrays in views(self._network):
            row = 0
            for array in arrays:
                yield name, slice(row, row + len(array)), array
                row += len(array)

    def _put_parameters(self):
        tensors = self._module.state_dict()
        for name, rows, array in self._parts():
            tensors[name][rows] = self._torch.from_numpy(array)

    def _add_gradients(self):
        """Add the module's gradients to the network's, and take over what batch norm has measured."""
        parameters, measured = dict(self._module.named_parameters()), dict(self._module.named_buffers())
        for name, rows, array in self._parts():
            if name in measured:
                array[...] = measured[name][rows].cpu().numpy()
            elif parameters[name].grad is not None:  # `stopbackward` leaves some without
                self._network.parameters.gradient_of(array)[...] += parameters[name].grad[rows].cpu().numpy()

    def let_go(self):
        """Leave the states with the network as arrays."""
        for own in self._states:
            own.let_go()


class _State(MutableMapping):
    """What a layer holds for its recurrent state: arrays by name, whose newest numbers may be on the device as yet.

    Reading them brings them here. They may have been changed then, and go to the device again with the next call.
    """

    def __init__(self, layer, torch, device):
        self._layer, self._torch, self._device = layer, torch, device
        self._arrays = layer.swap_state(self)
        self._ahead = None  # tensors (1, B, H) in the order of layer.states, while they are newer than the arrays

    def given(self, streams):
        """The state as the module takes it, for so many streams."""
        held = self._layer.swap_state(self)
        if held is not self:  # another use has given the layer a state of its own
            self._arrays, self._ahead = dict(held), None
        if not self._layer.states:
            return None
        if self._ahead is None or self._ahead[0].shape[1] != streams:
            arrays = self._layer.state(streams)
            self._ahead = [self._torch.tensor(arrays[name], device=self._device)[None] for name in self._layer.states]
        return tuple(self._ahead) if len(self._ahead) > 1 else self._ahead[0]

    def take(self, state):
        """Keep the state that the module gave."""
        if state is not None:
            tensors = state if isinstance(state, tuple) else (state,)
            self._ahead = [tensor.detach() for tensor in tensors]

    def let_go(self):
        """Give the layer the arrays."""
        held = self._layer.swap_state(self)
        self._layer.swap_state(self._here() if held is self else held)

    def _here(self):
        """The arrays, up to date."""
        ahead, self._ahead = self._ahead, None
        for name, tensor in zip(self._layer.states, ahead or ()):
            self._arrays[name][...] = tensor[0].cpu().numpy()
        return self._arrays

    def __getitem__(self, name):
        return self._here()[name]

    def __setitem__(self, name, array):
        self._here()[name] = array

    def __delitem__(self, name):
        del self._here()[name]

    def __iter__(self):
        return iter(self._here())

    def __len__(self):
        return len(self._here())

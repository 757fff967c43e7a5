"""A network in the formats of others: a PyTorch module, a ``.safetensors`` file, an ONNX graph.

All three name the parameters alike (:mod:`pydarknet.interop.tensors`). The packages they need are extras, ``torch``,
``safetensors`` and ``onnx``; nothing here is imported by the other commands.
"""

"""The model as the peers run it: images in as float32 [n, 1, 28, 28] between 0 and 1,
probabilities out as float32 [n, 10]."""

import ctypes
import hashlib
from functools import partial
from pathlib import Path

import numpy

CLASSES = 10
# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
DROPOUT = 0.3


def load(runtime, folder, threads):
    """Opens the model of `folder` for `runtime`, warm: (predict, digest of its file)."""
    suffix, opened = RUNTIMES[runtime]
    path = Path(folder) / f"{Path(folder).name}.{suffix}"
    predict = opened(path, threads)
    predict(numpy.zeros((1, 1, 28, 28), numpy.float32))
    return predict, hashlib.sha256(path.read_bytes()).hexdigest()


def layers(tensors):
    """Pairs of weight and bias in the order of the network, told apart by shape alone."""
    shapes = [(64, 1, 3, 3), (64, 64, 3, 3), (128, 64 * 5 * 5), (CLASSES, 128)]
    by_shape = {tuple(tensor.shape): name for name, tensor in tensors.items()}
    absent = [shape for shape in shapes if shape not in by_shape]
    if absent:
        raise ValueError(f"the model has no weights of shape {absent}, only {sorted(by_shape)}")
    names = [by_shape[shape] for shape in shapes]
    return [(tensors[name], tensors[name.replace("weight", "bias")]) for name in names]


def open_torch(path, threads, tuned=False):
    import torch
    from safetensors.torch import load_file
    from torch import nn

    torch.set_num_threads(threads)
    network = nn.Sequential(
        nn.Conv2d(1, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 5 * 5, 128), nn.ReLU(), nn.Dropout(DROPOUT),
        nn.Linear(128, CLASSES),
    ).eval()
    learned = [layer for layer in network if isinstance(layer, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        for layer, (weight, bias) in zip(learned, layers(load_file(path)), strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)

    if tuned:
        keep_memory()
    layout = torch.channels_last if tuned else torch.contiguous_format
    network = network.to(memory_format=layout)

    @torch.inference_mode()
    def predict(images):
        batch = torch.from_numpy(images).to(memory_format=layout)
        return torch.softmax(network(batch), dim=1).numpy()

    return predict


def keep_memory():
    """Else glibc gives the memory of every large tensor back and faults it in again."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def open_onnx(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(images):
        return session.run(["probabilities"], {name: images})[0]

    return predict


# torch as almost everybody runs it, and by one who knows its kernels and allocator.
RUNTIMES = {
    "torch": ("safetensors", open_torch),
    "torch-tuned": ("safetensors", partial(open_torch, tuned=True)),
    "onnx": ("onnx", open_onnx),
}

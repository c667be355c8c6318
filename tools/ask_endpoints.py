"""Requests samples and likelihoods from a served model, by gRPC and by REST, and prints them (stage 6 of the quickstart)."""

import sys

import numpy as np

from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.config.evaluation import ImagesPlace
from tfcq.errors import UserError
from tfcq.serving.client.client import Client


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.folder("workdir", None, "The folder of the run that is served")
    flags.string("grpc", None, "The gRPC endpoint", "HOST:PORT")
    flags.string("rest", None, "The REST endpoint", "http://HOST:PORT")
    flags.options(ImagesPlace)


def show(image: np.ndarray) -> str:
    """An image [H, W, C] as text, from dark to bright characters."""
    return "\n".join("".join(" .:-=+*#%@"[value * 10 // 256] * 2 for value in row) for row in image.mean(-1).astype(int))


def main(flags: Flags) -> None:
    """Requests from both endpoints, and prints the results."""
    if not (flags.workdir and flags.grpc and flags.rest):
        raise UserError("expected --workdir=DIR, --grpc=HOST:PORT and --rest=http://HOST:PORT")
    starting.start_tensorflow()
    from tfcq import workdir

    config = workdir.read_config(flags.workdir)
    dataset = workdir.load_data(flags.workdir, flags.section(ImagesPlace))
    test = dataset.images("test", list(range(4)))
    noise = np.random.default_rng(0).integers(0, 256, test.shape, np.uint8)
    for name, client in {
        "gRPC": Client.grpc(flags.grpc, model=config.model),
        "REST": Client.rest(flags.rest, model=config.model),
    }.items():
        images = client.sample(4)
        print(f"{name} sample: uint8 {images.shape}")
        print(f"{name} likelihood of 4 test images, bits/dim: {np.round(client.bits_per_dim(test), 3)}")
        print(f"{name} likelihood of 4 images of noise:       {np.round(client.bits_per_dim(noise), 3)}")
    print(show(np.concatenate(list(images), axis=1)))


COMMAND = Command("tools/ask_endpoints.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())

"""Asks a served model for samples and likelihoods, by gRPC and by REST, and shows the answers (stage 6 of the quickstart)."""

import numpy as np
from absl import flags

from tfcq.config import flags as config_flags
from tfcq.config.evaluation import ImagesPlace
from tfcq.serving.client import Client

WORKDIR = config_flags.define_folder("workdir", None, "Folder of the run that is served.", required=True)
GRPC = flags.DEFINE_string("grpc", None, "host:port of the gRPC endpoint.", required=True)
REST = flags.DEFINE_string("rest", None, "http://host:port of the REST endpoint.", required=True)
config_flags.define_section_flags(ImagesPlace)


def show(image):
    """An image [H, W, C] as text, dark to bright."""
    return "\n".join("".join(" .:-=+*#%@"[value * 10 // 256] * 2 for value in row) for row in image.mean(-1).astype(int))


def main():
    config_flags.start_tensorflow()
    from tfcq import workdir

    config = workdir.read_config(WORKDIR.value)
    dataset = workdir.load_data(WORKDIR.value, config_flags.section_from_flags(ImagesPlace))
    test = dataset.images("test", list(range(4)))
    noise = np.random.default_rng(0).integers(0, 256, test.shape, np.uint8)
    for name, client in {
        "gRPC": Client.grpc(GRPC.value, model=config.model),
        "REST": Client.rest(REST.value, model=config.model),
    }.items():
        images = client.sample(4)
        print(f"{name} sample: uint8 {images.shape}")
        print(f"{name} likelihood of 4 test images, bits/dim: {np.round(client.bits_per_dim(test), 3)}")
        print(f"{name} likelihood of 4 images of noise:       {np.round(client.bits_per_dim(noise), 3)}")
    print(show(np.concatenate(list(images), axis=1)))


if __name__ == "__main__":
    config_flags.run(main)

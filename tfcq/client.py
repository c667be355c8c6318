"""Asks a model server for samples, likelihoods and latents: numpy in, numpy out, by gRPC or REST.

    client = Client.rest("http://localhost:8501", model="cqf")
    images = client.sample(16)                      # uint8 [16, H, W, C]
    bits = client.bits_per_dim(images)              # float32 [16]

Any server of TF Serving's protocol will do: TF Serving itself or serving/local_server.py. REST needs numpy alone; gRPC
needs the package tensorflow-serving-api, imported when it is first used. Servers on this machine are asked directly, others
through the proxies of the environment (`tfcq.proxies`).
"""

import numpy as np

from tfcq.errors import UserError
from tfcq.transports import GrpcTransport, RestTransport, ServerError

__all__ = ["Client", "ServerError", "row_seeds"]

MAX_BATCH_SIZE = 64
TIMEOUT_SECONDS = 60.0


class Client:
    """A model behind an address. Make one with `Client.grpc` or `Client.rest`.

    Args:
        transport: moves one request to the server; see `tfcq.transports`.
        max_batch_size: rows sent at a time; more rows travel in several requests, with the same result, because
            every row has its own seed.
    """

    def __init__(self, transport, max_batch_size=MAX_BATCH_SIZE):
        if max_batch_size < 1:
            raise UserError(f"max_batch_size must be at least 1, received {max_batch_size}")
        self._transport = transport
        self._max_batch_size = max_batch_size

    @classmethod
    def grpc(cls, address, model, version=None, timeout=TIMEOUT_SECONDS, max_batch_size=MAX_BATCH_SIZE):
        """A client by gRPC.

        Args:
            address: "host:port", such as "localhost:8500".
            model: the model's name on the server.
            version: an integer; None for the newest.
            timeout: seconds for one request.
            max_batch_size: rows in one request.
        """
        return cls(GrpcTransport(address, model, version, timeout), max_batch_size)

    @classmethod
    def rest(cls, address, model, version=None, timeout=TIMEOUT_SECONDS, max_batch_size=MAX_BATCH_SIZE):
        """A client by REST; `address` is "http://host:port", the other arguments are those of `grpc`."""
        return cls(RestTransport(address, model, version, timeout), max_batch_size)

    def sample(self, num_images=None, seeds=None, temperature=1.0, seed=0):
        """Draws images.

        Args:
            num_images: how many; or give `seeds`.
            seeds: int32 [N, 2], one for each image; default: `row_seeds(num_images, seed)`.
            temperature: float, or [N]; greater than 0, 1 is the model's own distribution.
            seed: int32, the stream that default seeds are of.

        Returns:
            uint8 [N, H, W, C].

        Raises:
            UserError: for arguments that do not fit each other; `ServerError` for what the server refuses.
        """
        if (num_images is None) == (seeds is None):
            raise UserError("sample needs either num_images or seeds, and not both")
        seeds = self._seeds(num_images if seeds is None else len(seeds), seeds, seed)
        temperatures = _for_each_row("temperature", temperature, np.float32, len(seeds))
        return self.predict("sample", {"seed": seeds, "temperature": temperatures})["images"]

    def log_prob(self, images, seeds=None, seed=0):
        """log p(image) in nats, float32 [N]; uint8 images [N, H, W, C]; seeds as in `sample`."""
        return self._on_images("likelihood", images, seeds, seed)["log_prob"]

    def bits_per_dim(self, images, seeds=None, seed=0):
        """-log_prob / (D ln 2), float32 [N]; a model that calls all images equally likely scores 8."""
        return self._on_images("likelihood", images, seeds, seed)["bits_per_dim"]

    def energy(self, images, seeds=None, seed=0):
        """float32 [N], nats: the KL of the posterior (the model card says what it tells); no log-density."""
        return self._on_images("energy", images, seeds, seed)["energy"]

    def latent_likelihood(self, images, seeds=None, seed=0):
        """What an auto-encoder that is no density says of uint8 images [N, H, W, C].

        Returns:
            (latent_log_prob float32 [N], nats; reconstruction_error float32 [N], squares of the differences of pixels in
            [0, 1], summed).
        """
        answer = self._on_images("latent_likelihood", images, seeds, seed)
        return answer["latent_log_prob"], answer["reconstruction_error"]

    def encode(self, images, seeds=None, seed=0):
        """The latents of uint8 images [N, H, W, C]: float32 [N, ...]."""
        return self._on_images("encode", images, seeds, seed)["latents"]

    def decode(self, latents):
        """The images, uint8 [N, H, W, C], of latents, float32 [N, ...]."""
        return self.predict("decode", {"latents": np.asarray(latents, np.float32)})["images"]

    def reconstruct(self, images, seeds=None, seed=0):
        """Images through the latents and back, uint8 [N, H, W, C]."""
        return self._on_images("reconstruct", images, seeds, seed)["images"]

    def generative_reconstruct(self, images, seeds=None, seed=0):
        """Images of what a model's first stage keeps of images, the rest being generated: uint8 [N, H, W, C]."""
        return self._on_images("generative_reconstruct", images, seeds, seed)["images"]

    def super_resolve(self, compressed, seeds=None, seed=0):
        """Images uint8 [N, H, W, C] of compressed ones, uint8 [N, h, w, c] of the shape that `metadata` tells."""
        compressed = _checked_images(compressed)
        inputs = {"compressed": compressed, "seed": self._seeds(len(compressed), seeds, seed)}
        return self.predict("super_resolve", inputs)["images"]

    def interpolate(self, images, other_images, share, spherical=False, seeds=None, seed=0):
        """Images between two images.

        Args:
            images, other_images: uint8 [N, H, W, C].
            share: float or [N], where on the way: 0 at the first, 1 at the other.
            spherical: bool or [N]; True: Shoemake's way instead of a straight line.
            seeds, seed: as in `sample`.

        Returns:
            uint8 [N, H, W, C].
        """
        other_images, rows = _checked_images(other_images), len(images)
        if len(other_images) != rows:
            raise UserError(f"other_images must be as many as images, {rows}, received {len(other_images)}")
        between = {
            "other_images": other_images,
            "share": _for_each_row("share", share, np.float32, rows),
            "spherical": _for_each_row("spherical", spherical, np.bool_, rows),
        }
        return self._on_images("interpolate", images, seeds, seed, between)["images"]

    def predict(self, signature, inputs):
        """Runs any signature, in chunks of at most `max_batch_size` rows.

        Args:
            signature: its name; "" for the server's default.
            inputs: {input name: array [N, ...]}.

        Returns:
            {output name: array [N, ...]}.

        Raises:
            ServerError: with the server's reason.
        """
        inputs = {name: np.asarray(array) for name, array in inputs.items()}
        num_rows = max((len(array) if array.ndim else 1 for array in inputs.values()), default=0)
        if num_rows == 0:
            raise UserError(f"signature {signature!r} needs at least one row, received none")
        chunks = []
        for start in range(0, num_rows, self._max_batch_size):
            rows = slice(start, start + self._max_batch_size)
            part = {name: array[rows] if array.ndim else array for name, array in inputs.items()}
            chunks.append(self._transport.predict(signature, part))
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def metadata(self):
        """What the model can be asked.

        Returns:
            {"name": str, "version": int, "signatures": {signature: {"inputs": {name: {"dtype": str, "shape": list}},
            "outputs": the same}}}; None in a shape is any size, None for a shape is any shape.
        """
        return self._transport.metadata()

    def status(self):
        """{version: {"state": "AVAILABLE" | "LOADING" | "END" | ..., "error": str, empty if all is well}}."""
        return self._transport.status()

    def _on_images(self, signature, images, seeds, seed, more=()):
        images = _checked_images(images)
        inputs = {"images": images, "seed": self._seeds(len(images), seeds, seed)}
        return self.predict(signature, inputs | dict(more))

    @staticmethod
    def _seeds(num_rows, seeds, seed):
        if seeds is None:
            return row_seeds(num_rows, seed)
        seeds = np.asarray(seeds)
        if seeds.shape != (num_rows, 2) or seeds.dtype.kind not in "iu" or not _fits_int32(seeds):
            raise UserError(f"seeds must be int32 [{num_rows}, 2], received {seeds.dtype} {list(seeds.shape)}")
        return seeds.astype(np.int32)


def row_seeds(num_rows, seed=0):
    """Seeds for rows 0, 1, ... of the stream `seed`: int32 [num_rows, 2], no two rows alike.

    They are those of `tfcq.row_seeds`: a server and the model in the training process draw the same images. The first
    rows do not depend on `num_rows`.
    """
    if num_rows < 1 or not -(2**31) <= seed < 2**31:
        raise UserError(f"num_images must be at least 1 and seed an int32, received {num_rows} and {seed}")
    return np.stack([np.full(num_rows, seed), np.arange(num_rows)], axis=1).astype(np.int32)


def _for_each_row(name, value, dtype, num_rows):
    """[num_rows] of one value, or of as many."""
    values = np.asarray(value, dtype)
    if values.shape not in ((), (num_rows,)):
        raise UserError(f"{name} must be one value or [{num_rows}], received shape {values.shape}")
    return np.ascontiguousarray(np.broadcast_to(values, num_rows))


def _checked_images(images):
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"images must be uint8 [N, H, W, C] with values 0 to 255, received {images.dtype}"
            f" {list(images.shape)}; convert them first"
        )
    return images


def _fits_int32(array):
    return array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31)

"""Asks a model server for samples, likelihoods and latents: numpy in, numpy out, by gRPC or REST.

    client = Client.rest("http://localhost:8501", model="cqf")
    images = client.sample(16)                      # uint8 [16, H, W, C]
    bits = client.bits_per_dim(images)              # float32 [16]

Any server of TF Serving's protocol will do: TF Serving itself or serving/local_server.py. REST needs numpy alone; gRPC
needs the package tensorflow-serving-api, imported when it is first used. Servers on this machine are asked directly, others
through the proxies of the environment (`tfcq.serving.proxies`).
"""

import numpy as np

from tfcq.checks import as_array, check_integer, dims
from tfcq.endpoints import INPUTS
from tfcq.errors import UserError
from tfcq.inputs import checked
from tfcq.seeds import row_seeds
from tfcq.serving.transports import GrpcTransport, RestTransport, ServerError

__all__ = ["Client", "ServerError", "row_seeds"]

MAX_BATCH_SIZE = 64
TIMEOUT_SECONDS = 60.0


class Client:
    """A model behind an address. Make one with `Client.grpc` or `Client.rest`.

    Args:
        transport: moves one request to the server; see `tfcq.serving.transports`.
        max_batch_size: rows sent at a time; more rows travel in several requests, with the same result, because
            every row has its own seed.
    """

    def __init__(self, transport, max_batch_size=MAX_BATCH_SIZE):
        self._transport = transport
        self._max_batch_size = check_integer("max_batch_size", max_batch_size, 1)

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
            temperature: float, or [N]; at least 0, scales the prior's standard deviation; 1 is the model's own distribution.
            seed: int32, the stream that default seeds are of.

        Returns:
            uint8 [N, H, W, C].

        Raises:
            UserError: for arguments that do not fit each other; `ServerError` for what the server refuses.
        """
        if (num_images is None) == (seeds is None):
            received = "neither" if seeds is None else "both"
            raise UserError(f"sample: expected either num_images or seeds, received {received}")
        if seeds is None:
            seeds = row_seeds(check_integer("sample(num_images)", num_images, 1), seed)
            temperature = checked("sample", {"temperature": temperature}, _row_shape)["temperature"]
            if np.ndim(temperature) and len(temperature) != num_images:
                raise UserError(f"sample(temperature): expected one number or {num_images}, received {len(temperature)}")
        return self._ask("sample", {"temperature": temperature}, seeds, seed)["images"]

    def log_prob(self, images, seeds=None, seed=0):
        """log p(image) in nats, float32 [N]; uint8 images [N, H, W, C]; seeds as in `sample`."""
        return self._on_images("likelihood", images, seeds, seed, method="log_prob")["log_prob"]

    def bits_per_dim(self, images, seeds=None, seed=0):
        """-log_prob / (D ln 2), float32 [N]; a model that calls all images equally likely scores 8."""
        return self._on_images("likelihood", images, seeds, seed, method="bits_per_dim")["bits_per_dim"]

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
        array = as_array(latents, "decode(latents)", "float32 [N, ...]")
        if array.ndim < 2:
            received = f"{array.dtype} {dims(*array.shape)}" + ("; latents[None] is one row" if array.ndim else "")
            raise UserError(f"decode(latents): expected float32 [N, ...], received {received}")
        row = array.shape[1:]  # of any model's latents
        return self.predict("decode", checked("decode", {"latents": latents}, lambda _: row))["images"]

    def reconstruct(self, images, seeds=None, seed=0):
        """Images through the latents and back, uint8 [N, H, W, C]."""
        return self._on_images("reconstruct", images, seeds, seed)["images"]

    def generative_reconstruct(self, images, seeds=None, seed=0):
        """Images of what a model's first stage keeps of images, the rest being generated: uint8 [N, H, W, C]."""
        return self._on_images("generative_reconstruct", images, seeds, seed)["images"]

    def super_resolve(self, compressed, seeds=None, seed=0):
        """Images uint8 [N, H, W, C] of compressed ones, uint8 [N, h, w, c] of the shape that `metadata` tells."""
        return self._ask("super_resolve", {"compressed": compressed}, seeds, seed)["images"]

    def interpolate(self, images, other_images, share, spherical=False, seeds=None, seed=0):
        """Images between two images.

        Args:
            images, other_images: uint8 [N, H, W, C].
            share: float or [N] in [0, 1], where on the way: 0 at the first, 1 at the other.
            spherical: bool or [N]; True: Shoemake's way instead of a straight line.
            seeds, seed: as in `sample`.

        Returns:
            uint8 [N, H, W, C].
        """
        between = {"other_images": other_images, "share": share, "spherical": spherical}
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

    def _on_images(self, signature, images, seeds, seed, more=None, method=None):
        """Answers of an endpoint that takes images and seeds, and what else `more` has: {argument: value}."""
        return self._ask(signature, {"images": images} | (more or {}), seeds, seed, method)

    def _ask(self, signature, given, seeds, seed, method=None):
        """Answers of an endpoint that takes the arguments `given` and seeds, None: those of the stream `seed`."""
        given = given if seeds is None else given | {"seeds": seeds}
        rows = checked(method or signature, given, _row_shape)
        count = next(len(value) for value in rows.values() if np.ndim(value))
        if seeds is None:
            rows["seeds"] = row_seeds(count, seed)
        # An endpoint takes no one number for all.
        rows = {argument: np.broadcast_to(one, (count, *np.shape(one)[1:])) for argument, one in rows.items()}
        return self.predict(
            signature,
            {
                INPUTS[argument].endpoint_name or argument: np.ascontiguousarray(one, INPUTS[argument].dtype)
                for argument, one in rows.items()
            },
        )


def _row_shape(argument):
    """The shape of an argument's rows, as far as it is the same for all models."""
    wanted = INPUTS[argument]
    return (None, None, None) if wanted.dtype == "uint8" else wanted.row

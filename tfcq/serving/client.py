"""Asks a model server for samples, likelihoods and latents: numpy in, numpy out, by gRPC or REST.

    client = Client.rest("http://localhost:8501", model="cqf")
    images = client.sample(16)                      # uint8 [16, H, W, C]
    bits = client.bits_per_dim(images)              # float32 [16]

Works with any server of TF Serving's protocol: TF Serving itself or serving/local_server.py. REST needs only numpy; gRPC
needs the package tensorflow-serving-api, which is imported when it is first used. Servers on this machine are asked directly,
all other servers through the proxies of the environment (`tfcq.serving.proxies`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfcq.checks import as_array, check_integer, dims
from tfcq.endpoints import ENDPOINTS, INPUTS
from tfcq.errors import UserError
from tfcq.inputs import checked
from tfcq.seeds import row_seeds
from tfcq.serving.transports import GrpcTransport, RestTransport, ServerError, Transport

__all__ = ["Client", "ServerError", "row_seeds"]

MAX_BATCH_SIZE = 64
TIMEOUT_SECONDS = 60.0


class Client:
    """A model behind an address. Make one with `Client.grpc` or `Client.rest`.

    It has a method for each row of `tfcq.endpoints.ENDPOINTS`: `encode(images)`, `interpolate(images, other_images, share)`, ...
    Seeds may be left out: they are then those of the stream `seed`. A method returns an array if its endpoint has one output,
    and otherwise a tuple in the table's order.

    Args:
        transport: moves one request to the server; see `tfcq.serving.transports`.
        max_batch_size: rows sent at a time; more rows travel in several requests, with the same result, because
            every row has its own seed.
    """

    def __init__(self, transport: Transport, max_batch_size: int = MAX_BATCH_SIZE) -> None:
        self._transport = transport
        self._max_batch_size = check_integer("max_batch_size", max_batch_size, 1)

    @classmethod
    def grpc(
        cls,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = TIMEOUT_SECONDS,
        max_batch_size: int = MAX_BATCH_SIZE,
    ) -> Client:
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
    def rest(
        cls,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = TIMEOUT_SECONDS,
        max_batch_size: int = MAX_BATCH_SIZE,
    ) -> Client:
        """A client by REST; `address` is "http://host:port", the other arguments are those of `grpc`."""
        return cls(RestTransport(address, model, version, timeout), max_batch_size)

    def sample(
        self, num_images: int | None = None, seeds: np.ndarray | None = None, temperature: ArrayLike = 1.0, seed: int = 0
    ) -> np.ndarray:
        """Draws images.

        Args:
            num_images: number of images; or give `seeds`.
            seeds: int32 [N, 2], one for each image; default: `row_seeds(num_images, seed)`.
            temperature: float, or [N]; at least 0, scales the prior's standard deviation; 1 is the model's own distribution.
            seed: int32, the stream of default seeds.

        Returns:
            uint8 [N, H, W, C].

        Raises:
            UserError: for arguments that do not fit each other; `ServerError` if the server refuses the request.
        """
        if (num_images is None) == (seeds is None):
            received = "neither" if seeds is None else "both"
            raise UserError(f"sample: expected either num_images or seeds, received {received}")
        if seeds is None:
            seeds = row_seeds(check_integer("sample(num_images)", num_images, 1), seed)
            factors = checked("sample", {"temperature": temperature}, lambda _: ())["temperature"]
            if np.ndim(factors) and len(factors) != num_images:
                raise UserError(f"sample(temperature): expected one number or {num_images}, received {len(factors)}")
            temperature = factors
        return self._ask("sample", {"temperature": temperature}, seeds, seed)["images"]

    def log_prob(self, images: np.ndarray, seeds: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """log p(image) in nats, float32 [N]; uint8 images [N, H, W, C]; seeds as in `sample`."""
        return self._ask("likelihood", {"images": images}, seeds, seed, method="log_prob")["log_prob"]

    def bits_per_dim(self, images: np.ndarray, seeds: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """-log_prob / (D ln 2), float32 [N]; a model that calls all images equally likely scores 8."""
        return self._ask("likelihood", {"images": images}, seeds, seed, method="bits_per_dim")["bits_per_dim"]

    def predict(self, signature: str, inputs: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        """Runs any signature, in chunks of at most `max_batch_size` rows.

        Args:
            signature: its name; "" for the server's default.
            inputs: {input name: array [N, ...]}.

        Returns:
            {output name: array [N, ...]}.

        Raises:
            ServerError: with the server's reason.
        """
        arrays = {name: np.asarray(array) for name, array in inputs.items()}
        num_rows = max((len(array) if array.ndim else 1 for array in arrays.values()), default=0)
        if num_rows == 0:
            raise UserError(f"signature {signature!r} needs at least one row, received none")
        chunks = []
        for start in range(0, num_rows, self._max_batch_size):
            rows = slice(start, start + self._max_batch_size)
            part = {name: array[rows] if array.ndim else array for name, array in arrays.items()}
            chunks.append(self._transport.predict(signature, part))
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def metadata(self) -> dict[str, Any]:
        """The signatures of the model.

        Returns:
            {"name": str, "version": int, "signatures": {signature: {"inputs": {name: {"dtype": str, "shape": list}},
            "outputs": the same}}}; None in a shape is any size, None for a shape is any shape.
        """
        return self._transport.metadata()

    def status(self) -> dict[int, dict[str, str]]:
        """{version: {"state": "AVAILABLE" | "LOADING" | "END" | ..., "error": str, empty if all is well}}."""
        return self._transport.status()

    def _ask(self, endpoint, given, seeds, seed, method=None):
        """{output: array} of an endpoint for the arguments `given` and seeds; None: the seeds of the stream `seed`."""
        given = given if seeds is None else given | {"seeds": seeds}
        name = method or endpoint
        rows = checked(name, given, lambda argument: _row_shape(f"{name}({argument})", INPUTS[argument], given[argument]))
        count = next(len(value) for value in rows.values() if np.ndim(value))
        if seeds is None and "seeds" in ENDPOINTS[endpoint].inputs:
            rows["seeds"] = row_seeds(count, seed)
        # An endpoint takes a value per row, not one number for all.
        rows = {argument: np.broadcast_to(one, (count, *np.shape(one)[1:])) for argument, one in rows.items()}
        return self.predict(
            endpoint,
            {
                INPUTS[argument].endpoint_name or argument: np.ascontiguousarray(one, INPUTS[argument].dtype)
                for argument, one in rows.items()
            },
        )


def _row_shape(name, wanted, given):
    """The shape of an argument's rows, as far as it is the same for all models; latents have the shape that is given."""
    if wanted.dtype == "uint8":
        return (None, None, None)
    if not isinstance(wanted.row, str):
        return wanted.row
    array = as_array(given, name, f"{wanted.dtype} [N, ...]")
    if array.ndim < 2:
        argument = name[name.index("(") + 1 : -1]
        received = f"{array.dtype} {dims(*array.shape)}" + (f"; {argument}[None] is one row" if array.ndim else "")
        raise UserError(f"{name}: expected {wanted.dtype} [N, ...], received {received}")
    return array.shape[1:]


def _method(name, endpoint):
    """The method of `Client` for an endpoint: its inputs in the table's order, then seeds, which may be left out."""
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    arguments = [argument for argument in endpoint.inputs if argument != "seeds"]
    defaults = {argument: INPUTS[argument].default for argument in arguments}
    parameters = [inspect.Parameter("self", kind)]
    parameters += [inspect.Parameter(one, kind, default=empty if value is None else value) for one, value in defaults.items()]
    if "seeds" in endpoint.inputs:
        parameters += [inspect.Parameter("seeds", kind, default=None), inspect.Parameter("seed", kind, default=0)]
    signature = inspect.Signature(parameters)

    def ask(self: Client, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = {argument: bound.arguments[argument] for argument in arguments}
        answers = self._ask(name, given, bound.arguments.get("seeds"), bound.arguments.get("seed"))
        outputs = [answers[output] for output in endpoint.outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    described = [f"{argument}: {_described(INPUTS[argument])}" for argument in arguments]
    if "seeds" in endpoint.inputs:
        described.append("seeds, seed: as in `sample`")
    returned = [f"{output}: {_described(one)}" for output, one in endpoint.outputs.items()]
    ask.__name__, ask.__qualname__ = name, f"Client.{name}"
    ask.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` looks for it; typeshed does not know it
    sections = {"Args": described, "Returns": returned}
    ask.__doc__ = f"The endpoint `{name}`: {endpoint.meaning}.\n" + "".join(
        f"\n{heading}:\n    " + "\n    ".join(lines) + "\n" for heading, lines in sections.items()
    )
    return ask


def _described(one):
    """An `Input` or `Output` in words: type, shape, meaning."""
    shape = {"image_shape": "[N, H, W, C]", "compressed_shape": "[N, h, w, c]", (): "[N]"}.get(one.row, "[N, ...]")
    single = "one number or " if getattr(one, "one_for_all", False) else ""
    return f"{single}{one.dtype} {shape}, {one.meaning}"


for _name, _endpoint in ENDPOINTS.items():
    if not hasattr(Client, _name):  # `sample` has arguments of its own
        setattr(Client, _name, _method(_name, _endpoint))

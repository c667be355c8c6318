"""A page to try a model on: `python -m tfcq.demo --workdir=DIR | --export=DIR | --server=ADDRESS/MODEL`.

Draws images, and says of a picture that is dragged in how usual it is, what the model makes of it, and what lies between it and
another. It listens on this machine alone and asks no other host for anything. Ctrl-C and SIGTERM end it with status 0.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import signal
import sys
import tempfile
import time

from tfcq.bulk import flags as bulk
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.machine import files
from tfcq.machine.terminal import say
from tfcq.serving.server.addresses import Address
from tfcq.serving.server.errors import UsageError

KEPT = "demo"
"""The folder below a workdir for the scores of held-out images."""


def define(flags: Flags) -> None:
    """The flags of `tfcq.demo`."""
    bulk.define_model(flags)
    flags.integer(
        "num_importance_samples", 10, "The number of draws per image of the likelihood (K), with --workdir", minimum=1
    )
    flags.group("The pictures")
    bulk.define_preparation(flags)
    flags.group("The comparison")
    flags.string(
        "held_out",
        None,
        "The images that a picture is compared with, which the model was not trained on: test | validation, a split of the run | "
        "PLACE, named as in --dataset of tfcq.train, of several splits test | none (default: test with --workdir, else none)",
        "PLACE",
    )
    flags.integer(
        "num_held_out", 500, "The largest number of held-out images that are scored, at equal distances among all", minimum=2
    )
    flags.folder(
        "kept_scores",
        None,
        "The folder where the scores of held-out images are kept for the next start (default: demo in the workdir; without "
        "--workdir they are not kept)",
    )
    flags.group("The page")
    flags.string(
        "host",
        "127.0.0.1",
        "The address to listen on: 127.0.0.1 or ::1 for this machine alone, 0.0.0.0 or :: for every address, where whoever "
        "reaches it may use the model (put a proxy with encryption and authentication in front of it)",
        "ADDRESS",
    )
    flags.integer("port", 7860, "The port to listen on; 0 takes one that is free", 0, 65535)


def main(flags: Flags) -> None:
    """Serves the page until it receives a signal."""
    signals: list[int] = []  # as in `tfcq.serve`
    _check_packages()
    starting.reach(flags.workdir, flags.export, flags.kept_scores)
    place = bulk.model_place(flags)
    held_out, data = flags.held_out or ("test" if flags.workdir else "none"), {}
    if held_out in ("test", "validation") and not flags.workdir:
        raise UserError(f"held_out: expected PLACE or none with --export or --server, which know no splits, received {held_out}")
    if held_out not in ("test", "validation", "none"):
        data, held_out = bulk.images_place(flags, held_out), ""
    kept = flags.kept_scores or (place.workdir / KEPT if place.workdir else None)
    if kept is not None and held_out != "none":
        files.check_folder("kept_scores", kept)
    try:
        listener = Address.of(flags.host).listener(flags.port)
    except UsageError as error:
        raise UserError(str(error)) from error
    with listener, tempfile.TemporaryDirectory(prefix="tfcq-demo-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # what is dragged in is gone when the page ends
        starting.start_tensorflow()
        from tfcq.playground.model import Playground, about

        playground = Playground(place, bulk.preparation(flags))
        score, note = _score(playground, held_out, data, flags, kept)
        from tfcq.playground.page import page
        from tfcq.playground.server import serving

        blocks = page(playground, about(playground), score, note)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: signals.append(number))
        with serving(blocks, listener):
            say(f"the page is at {_url(listener)}; Ctrl-C ends it")
            while not signals:
                time.sleep(0.1)


def _score(playground, held_out, data, flags, kept):
    """(function from an image to its Score, a note for the page); (None, "") of a model without scores."""
    from tfcq.playground import scores

    if not playground.scores:
        return None, ""

    def score(compare, image):
        return compare(playground.numbers_of(image), math.prod(image.shape))

    if held_out == "none":
        return functools.partial(score, scores.alone), "It was started without held-out images, which pictures are compared with."
    try:
        found = scores.held_out(playground, held_out, data, flags.num_held_out, kept)
    except UserError as error:
        if flags.held_out:
            raise
        say(f"warning: pictures are compared with no others: {error}")
        return functools.partial(score, scores.alone), "The held-out images of the run could not be used for a comparison."
    return functools.partial(score, found.score), ""


def _check_packages():
    """Raises UserError, saying which extra to install, if a package is missing that only the page needs."""
    found = importlib.util.find_spec("gradio") is not None
    if not found:
        raise UserError("demo: expected the package gradio, found none; pip install 'tfcq[demo]'")


def _url(listener):
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


COMMAND = Command("tfcq demo", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())

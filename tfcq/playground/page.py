"""The page, by Gradio: a tab for each thing that the model can do, and nothing else.

Importing this module imports Gradio, whose telemetry is off.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable

import numpy as np

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it is read when Gradio is imported, and later
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from tfcq.errors import UserError
from tfcq.grids import grid
from tfcq.machine import paths
from tfcq.playground.model import INTERPOLATE_GIVEN, MOST_SAMPLES, RECONSTRUCT_GIVEN, About, Playground
from tfcq.playground.scores import Score

STEPS, DRAWS = 8, 4
"""Images between two pictures, both ends included; images that are drawn for a compressed one."""

_MOST_CLASSES = 5  # the likeliest, of which the page says how likely they are
_WIDTH = 512  # pixels: the least width of a picture on the page
_ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "minimal"}
_TITLES = {
    "reconstruct": "Reconstruction",
    "generative_reconstruct": "Generated anew from what the first stage keeps",
    RECONSTRUCT_GIVEN: "Reconstruction",
}


STYLE = ".scores td:nth-child(-n+3) {white-space: nowrap}"
"""CSS of the page."""


def page(playground: Playground, about: About, score: Callable[[np.ndarray], Score] | None, note: str = "") -> gr.Blocks:
    """The page of a model.

    Args:
        playground: what is asked.
        about: what the page says of the model.
        score: function from an image uint8 [H, W, C] to its Score; None: the model has none.
        note: a sentence that is shown with scores, such as why no others are compared; "": none.
    """
    with gr.Blocks(title=f"{about.name} - tfcq", analytics_enabled=False) as blocks:
        gr.Markdown(f"# {paths.markdown(about.name)}\n\n{paths.markdown(' '.join(about.sentences))}")
        if playground.can("sample"):
            with gr.Tab("New images"):
                _samples(playground, blocks)
        if score or playground.rebuilt:
            with gr.Tab("A picture of yours"):
                _picture(playground, score, note)
        if playground.interpolation:
            with gr.Tab("Between two pictures"):
                _between(playground)
        if playground.can("super_resolve"):
            with gr.Tab("Super-resolution"):
                _super_resolution(playground)
        if about.card:
            with gr.Accordion("Model card", open=False):
                gr.Markdown(about.card, latex_delimiters=[])
    return blocks


def _samples(playground, blocks):
    gr.Markdown(
        "Images that the model makes of random numbers. The same seed gives the same images. The temperature scales the random "
        "numbers: at 1 the images are as varied as the model has learned, below 1 they are more alike and more usual."
    )
    with gr.Row():
        count = gr.Slider(1, MOST_SAMPLES, 16, step=1, label="Number of images")
        temperature = gr.Slider(0.0, 2.0, 1.0, step=0.05, label="Temperature")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    given = [count, temperature, seed]
    if playground.can("sample_class"):
        given.append(_class_choice(playground, "each image's is drawn"))
    button = gr.Button("Draw", variant="primary")
    said, shown = gr.Markdown(), _output("New images", 480)

    def draw(count, temperature, seed, class_name=""):
        return _shown(playground.samples(count, temperature, seed, class_name))

    draw = _told(draw, 1)
    button.click(draw, given, [said, shown], api_name="sample", **_ONE_AT_A_TIME)
    blocks.load(draw, given, [said, shown], api_visibility="private", **_ONE_AT_A_TIME)


def _picture(playground, score, note):
    classifies = playground.can("class_probabilities")
    does = [*(["how usual the model finds it"] if score else []), *(["what the model makes of it"] if playground.rebuilt else [])]
    does += ["how likely each class is given the picture"] if classifies else []
    gr.Markdown(f"Drag a picture in to see {' and '.join(does)}. It is {_PREPARED}")
    with gr.Row():
        given = [_input("Your picture", "picture")]
        seen = _output("As the model sees it")
        rebuilt = [_output(_TITLES.get(name, name)) for name in playground.rebuilt]
        classes = [gr.Label(label="Class", num_top_classes=_MOST_CLASSES)] if classifies else []
    if RECONSTRUCT_GIVEN in playground.rebuilt:
        given.append(_class_choice(playground, "the likeliest", "Reconstructed as"))
    said, meant = gr.Markdown(), gr.Markdown(latex_delimiters=[], elem_classes="scores")
    endpoint = playground.score_endpoint if score else playground.rebuilt[0]

    def look(path, class_name=""):
        image = playground.prepared(path, endpoint)
        made = [_shown(playground.rebuild(name, image, class_name)[None]) for name in playground.rebuilt]
        text = score(image).text() + (f"\n\n{paths.markdown(note)}" if note else "") if score else ""
        likely = [playground.class_probabilities(image)] if classifies else []
        return _shown(image[None]), *made, *likely, text

    outputs = [seen, *rebuilt, *classes, meant]
    look = _told(look, len(outputs))
    given[0].change(look, given, [said, *outputs], api_name="picture", **_ONE_AT_A_TIME)
    for choice in given[1:]:
        choice.input(look, given, [said, *outputs], api_visibility="private", **_ONE_AT_A_TIME)


def _between(playground):
    gr.Markdown(
        f"{STEPS} images on the way from one picture to another, between what the model keeps of either: its latents, or the "
        f"noise that they are made of. Each picture is {_PREPARED}"
    )
    with gr.Row():
        given = [_input("From", "first"), _input("To", "second")]
    given.append(gr.Checkbox(False, label="Along a great circle instead of straight"))
    if playground.interpolation == INTERPOLATE_GIVEN:
        given.append(_class_choice(playground, "the likeliest of the first picture"))
    button = gr.Button("Interpolate", variant="primary")
    said, shown = gr.Markdown(), _output("On the way")

    def go(first, second, spherical, class_name=""):
        ends = [playground.prepared(path, playground.interpolation) for path in (first, second)]
        return _shown(playground.between(*ends, STEPS, spherical, class_name), STEPS)

    go = _told(go, 1, "Drag two pictures in.")
    button.click(go, given, [said, shown], api_name="interpolate", **_ONE_AT_A_TIME)


def _super_resolution(playground):
    gr.Markdown(
        f"Drag a picture in: it is made as small, or as grey, as the model's compressed images are, and {DRAWS} images are drawn "
        "for what is left of it."
    )
    with gr.Row():
        given, compressed = _input("Your picture", "compressed"), _output("Compressed")
    seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    said, shown = gr.Markdown(), _output("Drawn")

    def go(path, seed):
        small = playground.prepared(path, "super_resolve", "compressed")
        return _shown(small[None]), _shown(playground.super_resolve(small, DRAWS, seed), DRAWS)

    go = _told(go, 2)
    given.change(go, [given, seed], [said, compressed, shown], api_name="super_resolve", **_ONE_AT_A_TIME)
    seed.submit(go, [given, seed], [said, compressed, shown], api_visibility="private", **_ONE_AT_A_TIME)


def _class_choice(playground, unchosen, label="Class"):
    """A choice of a class, by its name; "", said as `unchosen`, is none."""
    return gr.Dropdown([(unchosen, ""), *((name, name) for name in playground.classes)], value="", label=label)


_PREPARED = "cut to a square, resized, and made grey or coloured, as the images that the model was trained on."


def _input(label, name):
    image = gr.Image(label=label, sources=["upload", "clipboard"], type="filepath", height=280, elem_id=name, buttons=[])
    image.preprocess = _path  # of a subclass Gradio would write a file of types beside this module
    return image


def _path(payload):
    """The path of an uploaded file as it was sent, before Pillow has opened it; Gradio has made sure that it is one."""
    return None if payload is None else payload.path


def _output(label, height=280):
    return gr.Image(label=label, format="png", interactive=False, height=height, buttons=["download", "fullscreen"])


def _told(function, outputs, missing=""):
    """`function` with one more output, the first: "", or the line of a UserError, or `missing` where there is no picture.

    In place of an error's or a missing picture's other outputs, of which there are so many, there is nothing.
    """

    @functools.wraps(function)
    def told(*given):
        if any(one is None for one in given):
            return missing, *[None] * outputs
        try:
            results = function(*given)
        except UserError as error:
            return f"**{paths.markdown(str(error))}**", *[None] * outputs
        return "", *(results if isinstance(results, tuple) else (results,))

    return told


def _shown(images, columns=None):
    """A grid of images [N, H, W, C], in RGB; pixels are repeated, as browsers blur what they enlarge."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    times = -(-_WIDTH // (columns * images.shape[2]))
    return grid(images.repeat(times, 1).repeat(times, 2).repeat(3 // images.shape[3], 3), columns)

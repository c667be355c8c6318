"""How images are held: in memory, decoded in a cache, or decoded as needed."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import numpy as np

from tfcq.config import DataConfig
from tfcq.data import survey
from tfcq.data.cache import cached
from tfcq.data.decoding_processes import num_cpus
from tfcq.data.sources import RawImages, RawReader, Source
from tfcq.data.split_images import Gather
from tfcq.data.transforms import Transform
from tfcq.data.unfit import UnfitImage, UnfitImages
from tfcq.machine import paths

WORTH_CACHING = 10_000
"""From so many images on, images that fit into memory are cached too: to decode them takes more than ten seconds of CPU."""

THREADS = 4
"""How many batches are read from a cache at a time, on a machine with so many CPUs: a disk serves several reads at once."""


def cache_folder(data_cache: str) -> str | None:
    """The folder that the option `data_cache` names; None: no cache. UserError for an address, or a file in its place."""
    if data_cache == "none":
        return None
    if not data_cache:
        return os.path.expanduser(survey.FOLDER)  # not checked: a home that cannot be used is no mistake of an option
    return os.fspath(paths.folder(data_cache, "data_cache", local=True))


def decode_ahead(source: Source, config: DataConfig, memory_limit: int) -> None:
    """Decodes the images of a source into the cache, if they will be cached, before those that cannot be used are left out.

    These are then known, and no image is read twice. `memory_limit` is the number of bytes that fit into memory.
    """
    folder, raws = cache_folder(config.data_cache), [raw for raw in source.splits.values() if isinstance(raw, RawReader)]
    if folder is None or not raws:
        return
    first, count = source.splits["train"], sum(map(len, raws))
    transform = Transform.of(config, first.channels, first.name(first.example))
    if count < WORTH_CACHING and count * int(np.prod(transform.shape)) <= memory_limit:
        return
    for raw in raws:
        known = survey.kept_survey(raw)
        if known:
            raw.survey = known
            continue
        try:
            cache = cached(raw, transform, folder)
            if cache:
                raw.survey = cache.survey()
        except UnfitImages:  # those are left out, or reported, next
            survey.keep_survey(raw, raw.survey)


def gather_all(
    raws: Mapping[str, RawImages], transform: Transform, in_memory: bool, folder: str | None
) -> tuple[dict[str, Gather], str, int]:
    """The images of each split of a source by their indices.

    Args:
        raws: {the source's split: RawImages}.
        transform: what each image becomes.
        in_memory: whether all fit into memory.
        folder: that of the caches; None: there are none.

    Returns:
        ({the source's split: function from indices to transformed images}, how they are held in words, how many batches are
        to be gathered at a time).

    Raises:
        UnfitImages: naming the unfit images of all splits.
    """
    gather: dict[str, Gather] = {}
    unfit: list[UnfitImage] = []
    ways: list[str] = []
    total, threads = 0, 1
    if in_memory and sum(map(len, raws.values())) < WORTH_CACHING:
        folder = None
    for split, raw in raws.items():
        try:
            gather[split], way, threads_of_split = _gather(raw, transform, in_memory, folder)
            ways, threads = [*ways, way], max(threads, threads_of_split)
        except UnfitImages as error:
            unfit, total = [*unfit, *error.unfit], total + error.total
        except UnfitImage as error:
            unfit, total = [*unfit, error], total + 1
    if unfit:
        raise UnfitImages(unfit, total)
    return gather, " and ".join(dict.fromkeys(ways)), threads


def _gather(raw, transform, in_memory, folder):
    """(function from indices to transformed images, how they are held, how many batches at a time)."""
    cache = cached(raw, transform, folder) if folder and isinstance(raw, RawReader) else None
    if cache:
        raw.known_digests = cache.digests
        return cache.take, f"cached in {folder}", min(THREADS, max(2, num_cpus()))
    if in_memory:
        return raw.all(transform).__getitem__, "in memory", 2
    raw.check(transform)
    return functools.partial(raw.take, transform=transform), "decoded as needed", raw.num_threads

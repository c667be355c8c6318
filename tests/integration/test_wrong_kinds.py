"""Public functions of Python, metrics and extractors refuse what is of a wrong kind, in one line: see also test_arguments.py."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

import tfcq
from tfcq import data, features, grids, models, workdir
from tfcq.errors import UserError
from tfcq.evaluation.comparison import write_comparison
from tfcq.evaluation.likelihood import LikelihoodEvaluator
from tfcq.features.pixels import Pixels
from tfcq.metrics import (
    classifier_score,
    diversity,
    frechet,
    kernel,
    memorisation,
    neighbours,
    precision_recall,
    sliced_wasserstein,
)

IMAGES = tiny.images((8, 8, 3), 4)
FLOATS = IMAGES / np.float32(255)
FEATURES = np.random.RandomState(0).standard_normal((6, 3))
CONFIG = tiny.config(8, model="vae", training={"train_steps": 1})
DATASET = tiny.dataset((8, 8, 1))

FUNCTIONS = [
    (lambda: tfcq.Run("w", "vae").train(), r"config: expected a tfcq.Config, received str 'vae'; make one with tfcq.Config\("),
    (lambda: tfcq.Run("w", CONFIG.system).train(), "config: expected a tfcq.Config, received VAEConfig"),
    (lambda: tfcq.Run("w", CONFIG.to_dict()).train(), "config: expected a tfcq.Config, received dict"),
    (lambda: tfcq.Run(None, CONFIG).train(), "workdir: expected the path of a folder, a str or pathlib.Path, received None"),
    (lambda: tfcq.Run("", CONFIG).train(), "workdir: expected a folder, received an empty path"),
    (lambda: tfcq.Run(7, CONFIG).train(), "workdir: .* received 7"),
    (lambda: tfcq.Run(None).model(), "workdir: .* received None"),
    (lambda: tfcq.Run(CONFIG).model(), r"workdir: .* received Config\("),
    (lambda: tfcq.Run(None).evaluate(), "workdir: .* received None"),
    (lambda: tfcq.Run("w").evaluate(metrics=5), "metrics: expected names, in a list or separated by commas, received 5"),
    (lambda: tfcq.Run("w").evaluate(metrics=[5]), "metrics: expected all or some of elbo, .*, received 5"),
    (lambda: tfcq.Run("w").evaluate(metrics="elbo,elbow"), r"received 'elbow' \(did you mean elbo\?\)"),
    (lambda: tfcq.Run("w").evaluate(report="yes"), "report: expected True or False, received str 'yes'"),
    (lambda: tfcq.Run("w").evaluate(num_images="10"), "num_images: expected int, received '10'"),
    (lambda: tfcq.Run("w").export(None), "export_dir: expected the path of a folder, .*, received None"),
    (lambda: tfcq.Run(None).export("e"), "workdir: .* received None"),
    (lambda: tfcq.Run("w").export("e", "10"), "num_importance_samples: expected an int of at least 1, received str '10'"),
    (lambda: tfcq.Run("w").export("e", 0), "num_importance_samples: expected at least 1, received 0"),
    (lambda: tfcq.Run("w").export("e", 1.0), "num_importance_samples: expected an int of at least 1, received float 1.0"),
    (lambda: tfcq.Run("w", CONFIG).train(accept_changed_data="no"),
     "accept_changed_data: expected True or False, received str 'no'"),
    (lambda: tfcq.Run("w").export("e", allow_other_signatures=0),
     "allow_other_signatures: expected True or False, received int 0"),
    (lambda: data.load("digits"), "config: expected a tfcq.DataConfig, received str 'digits'; make one with tfcq.DataConfig"),
    (lambda: data.load(CONFIG), "config: expected a tfcq.DataConfig, received Config; .* that of a tfcq.Config is config.data"),
    (lambda: data.load(CONFIG.data, "w"), "manifest: expected a Manifest, .*, received str 'w'"),
    (lambda: data.load(CONFIG.data, None, 1), "accept_changed_data: expected True or False, received int 1"),
    (lambda: models.build("vae", (8, 8, 1)), "config: expected a tfcq.Config, received str 'vae'"),
    (lambda: models.build(CONFIG, 8), r"image_shape: expected \(H, W, C\), received int 8"),
    (lambda: models.build(CONFIG, (8, 8)), r"image_shape: expected \(H, W, C\), received \(8, 8\)"),
    (lambda: models.build(CONFIG, (8, 8.0, 1)), "image_shape: expected an int of at least 1, received float 8.0"),
    (lambda: workdir.load_data("w", "folder:x"), "place: expected a tfcq.*ImagesPlace or None, received str 'folder:x'"),
    (lambda: tfcq.Config.from_json(pathlib.Path("x")), "config: expected text, JSON as from to_json, received PosixPath"),
    (lambda: write_comparison("w", "o"), "compare: expected a list of folders, received str 'w'"),
    (lambda: DATASET.images("train", [0.5]), r"indices: expected ints \[n\], received float64 .*0.5"),
    (lambda: DATASET.images("train", [True, False]), "indices: expected ints .*, received bool"),
    (lambda: DATASET.images("train", "all"), "indices: expected ints .*, received str"),
    (lambda: DATASET.num_images([]), r"split: expected one of train, validation, test, train_and_validation, received \[\]"),
    (lambda: DATASET.train_batches("8", 0), "batch_size: expected an int, received str '8'"),
    (lambda: DATASET.train_batches(8, None), "seed: expected an int, received NoneType"),
    (lambda: DATASET.eval_batches("train", 8.0), "batch_size: expected an int, received float 8.0"),
    (lambda: DATASET.eval_batches("train", 8, "all"), "num_images: expected an int, received str 'all'"),
    (lambda: tfcq.row_seeds(2.5), "num_rows: expected an int of at least 0, received float 2.5"),
    (lambda: tfcq.row_seeds(-1), "num_rows: expected at least 0, received -1"),
    (lambda: tfcq.row_seeds("3"), "num_rows: expected an int of at least 0, received str '3'"),
    (lambda: tfcq.row_seeds(3, seed=0.5), "seed: expected an int, received float 0.5"),
    (lambda: tfcq.row_seeds(3, 2**31), "must fit int32"),
    (lambda: features.load(None), "features: expected one of .*, received None"),
]

IN_255 = r"expected uint8 \[.*\] in 0..255.*, received float32 \[4, 8, 8, 3\] with values 0.* to .*; np.rint\(255 \* "
STATISTICS = frechet.GaussianStatistics.from_features(FEATURES)
METRICS = [
    (lambda: diversity.ms_ssim(FLOATS, FLOATS), f"MS-SSIM: images: {IN_255}"),
    (lambda: diversity.ms_ssim(IMAGES[0], IMAGES[0]), r"expected uint8 \[N, H, W, C\].*, received uint8 \[8, 8, 3\]"),
    (lambda: diversity.ms_ssim_diversity(FLOATS), f"MS-SSIM: images: {IN_255}"),
    (lambda: diversity.ms_ssim_diversity(IMAGES[:1]), "N of 2 or more, received uint8 .1, 8, 8, 3..*; pass more images"),
    (lambda: sliced_wasserstein.sliced_wasserstein(FLOATS, IMAGES), f"sliced Wasserstein: real: {IN_255}"),
    (lambda: sliced_wasserstein.sliced_wasserstein(IMAGES, FLOATS), f"sliced Wasserstein: generated: {IN_255}"),
    (lambda: sliced_wasserstein.sliced_wasserstein(IMAGES, IMAGES[..., :1]), r"generated: expected uint8 \[N, 8, 8, 3\]"),
    (lambda: sliced_wasserstein.sliced_wasserstein(IMAGES, IMAGES[:3]), "as many generated as real .* and uint8 .3, 8"),
    (lambda: sliced_wasserstein.sliced_wasserstein(IMAGES[:0], IMAGES[:0]), r"received \[0, 8, 8, 3\]"),
    (lambda: sliced_wasserstein.laplacian_pyramid(IMAGES[0]), r"expected images \[N, H, W, C\], received \[8, 8, 3\]"),
    (lambda: neighbours.nearest_in_pixels(FLOATS, [IMAGES]), f"queries: {IN_255}"),
    (lambda: neighbours.nearest_in_pixels(IMAGES, [FLOATS]), f"batches: {IN_255}"),
    (lambda: neighbours.nearest_in_pixels(IMAGES, [IMAGES[:, :4]]), r"batches: expected uint8 \[N, 8, 8, 3\]"),
    (lambda: neighbours.nearest_neighbours(IMAGES, FEATURES), r"queries: expected float \[N, D\] .* received uint8"),
    (lambda: neighbours.neighbour_scores(None, FEATURES), r"real: expected float \[N, D\], received NoneType"),
    (lambda: memorisation.memorisation_report(FEATURES, [[1, 2], [3]], FEATURES), r"train: .* received list, which is not"),
    (lambda: precision_recall.prd(IMAGES, IMAGES), r"real: expected float \[N, D\]"),
    (lambda: kernel.kernel_distance(FEATURES, FEATURES[0]), r"generated features: expected float .*, received float64 \[3\]"),
    (lambda: classifier_score.classifier_score("logits"), "logits: expected float .*, received str"),
    (lambda: frechet.GaussianStatistics.from_features(IMAGES), "features: expected float"),
    (lambda: frechet.frechet_distance(FEATURES, STATISTICS), "real: expected GaussianStatistics, received ndarray"),
    (lambda: Pixels()(FLOATS), r"pixels: expected images uint8 \[N, H, W, 1 or 3\], received float32 \[4, 8, 8, 3\]"),
    (lambda: Pixels()(IMAGES[0]), r"received uint8 \[8, 8, 3\]"),
    (lambda: Pixels()("images"), "pixels: images: expected uint8 .*, received str"),
    (lambda: grids.grid(FLOATS), f"images: {IN_255}"),
    (lambda: grids.grid(IMAGES[0]), r"received uint8 \[8, 8, 3\]"),
]


@pytest.mark.parametrize("case", [*FUNCTIONS, *METRICS], ids=lambda case: case[1][:60])
def test_a_wrong_kind_is_refused_in_one_line_before_anything_is_made(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, told = case
    with pytest.raises(UserError, match=told) as raised:
        call()
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_likelihoods_of_batches_of_a_wrong_kind_are_refused():
    evaluator = LikelihoodEvaluator(tiny.build(tiny.config(8, model="vae"), 3))
    cases = {IN_255: FLOATS, r"images\[None\]": IMAGES[0], r"expected uint8 \[N, 8, 8, 3\]": IMAGES[:, :4]}
    for told, wrong in cases.items():
        with pytest.raises(UserError, match=told):
            evaluator.elbo_terms([wrong])


def test_paths_of_pathlib_and_metrics_in_a_text_are_taken_and_a_floor_is_told(tmp_path, capsys):
    workdir = pathlib.Path(tmp_path) / "run"
    tiny.make_workdir(workdir, CONFIG)
    assert tfcq.Run(workdir, CONFIG).train().steps_taken == 1  # it is done
    floor = "note: decoder_sigma=0.7071 is fixed: bits/dim cannot be below log2(256 sigma sqrt(2 pi)) = 8.826, which is worse"
    assert capsys.readouterr().out.count(floor) == 1
    row = tfcq.Run(workdir).evaluate("elbo,bits_per_dim", report=False, num_images=4, num_importance_samples=2)
    for name in ("elbo", "bits_per_dim"):
        entry = row[name]
        data = {"dataset": "digits", "image_size": 8, "channels": 1, "center_crop": 0, "resize": "area"}
        assert re.fullmatch("[0-9a-f]{32}", entry["data"]["content"])  # which images they are
        assert entry["data"].items() >= data.items() and entry["data"]["split_images"] == 179 and entry["checkpoint"] == "last"
        assert "no such floor" in entry["notes"][0]
    assert row["checkpoint"] == "last"  # the run was not evaluated while it trained, and kept no best
    told = capsys.readouterr().out
    assert told.count(floor) == 1 and told.count("no best checkpoint is kept, so the last is taken, of step 1") == 1
    assert tf.io.gfile.exists(str(workdir / "metrics.jsonl"))

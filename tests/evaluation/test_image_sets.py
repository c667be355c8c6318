"""Generated images of any model beside real ones: `tfcq.evaluate --generated --reference`."""

import json

import numpy as np
import pytest
from commands import run_here
from markdown_tables import unpadded
from PIL import Image
from scipy import linalg

import tfcq
from tfcq import data, features
from tfcq import workdir as workdirs
from tfcq.config import DataConfig
from tfcq.config.evaluation import EvaluationConfig
from tfcq.data.all_images import whole
from tfcq.data.sources import RawArray
from tfcq.errors import UserError
from tfcq.evaluation import run as evaluation
from tfcq.evaluation.comparable import differences
from tfcq.evaluation.comparison import latest_numbers, write_comparison
from tfcq.evaluation.image_sets import ImageSetEvaluator
from tfcq.evaluation.pictures import Pictures

RANDOM = np.random.RandomState(7)
ONE, OTHER = (RANDOM.randint(low, 256, (60, 8, 8)).astype(np.uint8) for low in (0, 60))
SMALL = ONE[:, :4, :4], OTHER[:, :4, :4]  # more images than pixels
FAST = {"features": "pixels", "cache_dir": "none"}


def written(folder, images, ending="png"):
    """A folder of `images`, uint8 [N, H, W] or [N, H, W, 1 or 3], in their order."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(folder / f"{number:04}.{ending}")
    return folder


def measured(folder, generated, reference, metrics="frechet_distance", report=False, **options):
    """The row of images, uint8 arrays or places, that are written as PNG into folders of their own."""
    places = {"generated": generated, "reference": reference}
    for name, images in places.items():
        if isinstance(images, np.ndarray):
            places[name] = written(folder / name, images)
    return tfcq.evaluate_images(*places.values(), folder / "output", metrics, report, **FAST | options)


def frechet(first, second):
    """In float64, of the definition (Heusel et al. 2017, Eq. 6), of pixels from 0 to 1."""
    first, second = (images.reshape(len(images), -1) / 255.0 for images in (first, second))
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)


def test_the_frechet_distance_of_two_folders_and_its_floor(tmp_path):
    row = measured(tmp_path, SMALL[0][:30], np.concatenate([SMALL[1], SMALL[1][:20] // 2]), num_samples=50)
    folder = tmp_path / "reference"
    order = np.random.RandomState(data.splits.SEED).permutation(80)  # that of a folder's images in every run, too
    real = np.stack([np.asarray(Image.open(folder / f"{number:04}.png")) for number in order])
    entry = row["fd_pixels"]
    assert entry["value"] == pytest.approx(frechet(SMALL[0][:30], real[:50]), rel=1e-4)
    assert entry["real"] == pytest.approx(frechet(real[50:80], real[:50]), rel=1e-4)
    counts = {"num_generated": 30, "num_real": 50, "num_real_as_generated": 30}
    assert {name: entry[name] for name in counts} == counts
    noise = "images are compared: with fewer than 100, most numbers are noise for the most part"
    assert entry["notes"] == [f"only 30 generated {noise}", f"only 80 reference {noise}"]
    assert json.loads((tmp_path / "output" / "metrics.json").read_text()) == row


def test_where_all_real_images_are_compared_the_floor_is_of_their_halves(tmp_path):
    entry = measured(tmp_path, SMALL[0], SMALL[1][:41])["fd_pixels"]
    real = SMALL[1][np.random.RandomState(data.splits.SEED).permutation(41)]
    assert entry["value"] == pytest.approx(frechet(SMALL[0], real), rel=1e-4)
    assert entry["real"] == pytest.approx(frechet(real[21:], real[:21]), rel=1e-4)
    assert entry["num_real_as_generated"] == 20 and "floor 21 of the reference images were compared with 20" in entry["notes"][-1]


def test_the_floors_images_are_those_of_its_features():
    config = DataConfig(image_size=4)
    generated, real = (whole(RawArray(images[..., None], "x"), config, name) for images, name in zip(SMALL, ("generated", "all")))
    evaluator = ImageSetEvaluator([generated], real, "all", features.load("pixels"), EvaluationConfig(cache_dir="none"))
    found = evaluator._real_images(5)
    np.testing.assert_array_equal(found.floor.images, SMALL[1][30:35, ..., None])
    for one in (found.reference, found.floor, found.floor_reference):
        np.testing.assert_allclose(one.features[:5], one.images.reshape(5, -1) / 255.0, rtol=1e-6)


METRICS = ["frechet_distance", "kernel_distance", "prd", "neighbours", "memorisation", "ms_ssim", "sliced_wasserstein"]


def test_the_samples_of_a_run_have_the_numbers_that_the_run_has(run, tmp_path):
    """Written as files, and compared with what the run is compared with; so they are comparable in a table."""
    row = evaluation.evaluate(run, METRICS, report=False, num_samples=150, **FAST)
    config = workdirs.read_config(run).data
    samples = written(tmp_path / "samples", Pictures(workdirs.load(run)).samples(150))
    of_files = measured(tmp_path, samples, config.dataset, METRICS, num_samples=150, split="test")
    entries = {name: entry for name, entry in row.items() if isinstance(entry, dict)}
    assert len(entries) == 11
    for name, entry in entries.items():
        assert of_files[name]["value"] == pytest.approx(entry["value"], rel=1e-6), name
        assert of_files[name].get("real") == entry.get("real")
        assert differences([entry, of_files[name]]) == [], name
    text = write_comparison([run, tmp_path / "output"], tmp_path / "table").read_text()
    assert "(!)" not in text and "| fd_pixels" in text
    assert f"- output: images of folder:{samples} (PNG, 8x8, as they are)." in text


def test_a_folder_of_the_runs_test_images_is_as_good_as_the_run(run, tmp_path):
    """Its numbers are the same; its files are not known to be those images."""
    test_images = data.load(workdirs.read_config(run).data).images("test", range(179))
    entry = evaluation.evaluate(run, ["frechet_distance"], report=False, num_samples=200, **FAST)["fd_pixels"]
    whole = measured(tmp_path, Pictures(workdirs.load(run)).samples(200), test_images[..., 0])["fd_pixels"]
    assert whole["value"] == pytest.approx(entry["value"], rel=1e-5)
    assert differences([entry, whole]) == ["content", "num_real_as_generated"]


# What both sides are made of.


@pytest.mark.parametrize(
    "endings, warned",
    [
        (("png", "jpg"), "generated images are stored as PNG, the reference images as JPEG"),
        (("jpg", "png"), "generated images are stored as JPEG, the reference images as PNG"),
        (("png", "bmp"), None),
        (("jpg", "jpg"), None),
        (("png", "npz"), None),
        (("npz", "webp"), "generated images are stored as array, the reference images as WEBP"),
    ],
)
def test_formats_are_recorded_and_other_losses_warned_of(tmp_path, capsys, endings, warned):
    places, names = [], []
    for side, images, ending in zip("ab", (ONE, OTHER), endings):
        if ending == "npz":
            np.savez(tmp_path / f"{side}.npz", images=images)
        else:
            written(tmp_path / side, images, ending)
        places.append(f"npz:{tmp_path}/{side}.npz" if ending == "npz" else str(tmp_path / side))
        names.append({"jpg": "JPEG", "npz": "array"}.get(ending, ending.upper()))
    entry = measured(tmp_path, *places, color="grey", report=True)["fd_pixels"]
    assert [entry["images"][side]["formats"] for side in ("generated", "reference")] == [{name: 60} for name in names]
    output, report = capsys.readouterr().out, (tmp_path / "output" / "report.md").read_text()
    assert (f"warning: the {warned}" in output) == (f"Note: the {warned}" in report) == bool(warned)
    assert ("lossy" in output) == bool(warned)


def test_resizing_is_recorded_and_a_difference_warned_of(tmp_path, capsys):
    large = OTHER.repeat(2, 1).repeat(3, 2)  # 16x24
    row = measured(tmp_path, ONE, large)
    sides = row["fd_pixels"]["images"]
    assert sides["generated"]["prepared"] == {"as they are": 60} and sides["generated"]["sizes"] == {"8x8": 60}
    assert sides["reference"]["prepared"] == {"cut, shrunk": 60} and sides["reference"]["sizes"] == {"16x24": 60}
    note = (
        "the images are compared at 8x8; the generated ones of 8x8 were taken as they are, the reference images of 16x24 cut, "
        "shrunk: how images are prepared changes the numbers"
    )
    assert f"warning: {note}" in capsys.readouterr().out and note in row["fd_pixels"]["notes"]
    # Both alike.
    row = measured(tmp_path / "both", large[:, :, 4:20], large[:, :, 2:18], image_size=4)
    assert not [note for note in row["fd_pixels"]["notes"] if "prepared" in note]
    assert row["fd_pixels"]["data"]["image_size"] == 4
    # Both shrunk, but of other sizes.
    row = measured(tmp_path / "sizes", large[:, :, 4:20], ONE, image_size=4)
    assert [note for note in row["fd_pixels"]["notes"] if "ones of 16x16 were taken shrunk, the reference images of 8x8" in note]


def test_one_folder_twice_is_at_distance_0_and_told(tmp_path, capsys):
    written(tmp_path / "real", OTHER)
    entry = measured(tmp_path, tmp_path / "real", tmp_path / "real")["fd_pixels"]
    assert abs(entry["value"]) < 1e-6 < entry["real"]
    assert "60 of 60 generated images are reference images too, byte for byte" in capsys.readouterr().out


def test_all_that_needs_no_training_images_is_measured_and_reported(tmp_path):
    images = np.random.RandomState(1).randint(0, 256, (2, 30, 8, 8)).astype(np.uint8)
    row = measured(tmp_path, *images, "all", report=True)
    assert {"kd_pixels", "prd_f8_pixels", "coverage_pixels", "ms_ssim", "sliced_wasserstein"} <= set(row)
    assert "memorisation_pixels" not in row and "step" not in row
    text = unpadded((tmp_path / "output" / "report.md").read_text())
    assert "| formats | PNG (30) | PNG (30) |" in text and "| prepared | as they are (30) | as they are (30) |" in text
    for name in ("samples", "reference", "prd"):
        assert f"(report/{name}.png)" in text and (tmp_path / "output" / "report" / f"{name}.png").is_file()


def test_the_newest_numbers_of_the_images_measured_last_are_compared(tmp_path):
    written(tmp_path / "a", ONE), written(tmp_path / "b", OTHER)
    for generated, metric in (("a", "frechet_distance"), ("b", "ms_ssim"), ("b", "kernel_distance")):
        measured(tmp_path, tmp_path / generated, tmp_path / "a", metric)
    assert set(latest_numbers(tmp_path / "output")) == {"ms_ssim", "kd_pixels"}


def test_the_command_measures_and_compares(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "theirs", ONE), written(tmp_path / "real", OTHER)
    flags = ["--generated=theirs", "--reference=real", "--noreport", "--features=pixels", "--cache_dir=none"]
    for output, more in (("a", []), ("b", ["--image_size=4", "--num_seeds=2"])):
        assert run_here("evaluate", *flags, f"--output={output}", *more)[::2] == (0, "")
    a, b = (latest_numbers(tmp_path / output)["fd_pixels"] for output in "ab")
    assert (a["data"]["image_size"], b["data"]["image_size"], a["num_generated"], b["num_generated"]) == (8, 4, 60, 30)
    assert run_here("evaluate", "--compare=a,b")[::2] == (0, "")
    told = "fd_pixels: not measured alike; they differ in image_size, num_generated, seeds."
    assert told in (tmp_path / "comparison" / "comparison.md").read_text()


@pytest.mark.parametrize("qualities, told", [((75, 95), "of quality 75 or so, the reference images of 95 or so"), ((90, 91), "")])
def test_qualities_of_jpeg_files_are_recorded_and_a_difference_told(tmp_path, capsys, qualities, told):
    for name, quality in zip("ab", qualities):
        (tmp_path / name).mkdir()
        for number, image in enumerate(ONE):
            Image.fromarray(image).save(tmp_path / name / f"{number}.jpg", quality=quality)
    row = measured(tmp_path, tmp_path / "a", tmp_path / "b", report=True)
    images = row["fd_pixels"]["images"]
    found = [images[side]["jpeg_qualities"] for side in ("generated", "reference")]
    assert found == [{str(quality): 60} for quality in qualities]
    assert (told in capsys.readouterr().out) if told else ("quantisation" not in str(row))
    text = unpadded((tmp_path / "output" / "report.md").read_text())
    assert f"| JPEG qualities, estimated | {qualities[0]} (60) | {qualities[1]} (60) |" in text


# Which images are taken.


def test_generated_images_that_repeat_each_other_are_told(tmp_path, capsys):
    entry = measured(tmp_path, np.concatenate([ONE, ONE[:7], ONE[:3]]), OTHER)["fd_pixels"]
    note = "10 of 70 generated images repeat others of them, byte for byte"
    assert note in entry["notes"] and f"warning: {note}" in capsys.readouterr().out


def test_an_npz_file_of_two_splits_is_told_to_be_measured_by_one(tmp_path, capsys):
    np.savez(tmp_path / "made.npz", train=ONE, test=ONE[:30] // 2)
    entry = measured(tmp_path, f"npz:{tmp_path}/made.npz", OTHER)["fd_pixels"]
    note = "made.npz has the splits train 60, test 30: of the generated images those of its test split alone are measured"
    assert entry["num_generated"] == 30 and any(note in one for one in entry["notes"]) and note in capsys.readouterr().out


def test_seeds_are_parts_that_share_no_image(tmp_path):
    steps = np.repeat(np.arange(60, dtype=np.uint8)[:, None], 64, 1).reshape(60, 8, 8)
    entry = measured(tmp_path, steps + RANDOM.randint(0, 9, steps.shape).astype(np.uint8), OTHER, num_seeds=3)["fd_pixels"]
    assert entry["num_generated"] == 20 and len(set(entry["per_seed"])) == 3 and entry["seeds"] == [0, 1, 2]
    assert entry["images"]["generated"]["formats"] == {"PNG": 60}


def test_of_more_images_a_random_choice_is_compared(tmp_path):
    """The names of the first half are those of one class."""
    images = np.zeros((60, 8, 8), np.uint8) + RANDOM.randint(0, 2, (60, 8, 8)).astype(np.uint8)
    images[30:] += 200
    chosen = np.sort(np.random.RandomState(data.splits.SEED).permutation(60)[:30])
    entry = measured(tmp_path, images, OTHER, num_samples=30)["fd_pixels"]
    real = OTHER[np.random.RandomState(data.splits.SEED).permutation(60)][:30]
    assert entry["value"] == pytest.approx(frechet(images[chosen], real), rel=1e-4)
    assert 5 < (chosen < 30).sum() < 25


def test_of_an_array_in_the_order_of_its_classes_a_random_choice_is_compared(tmp_path):
    images = np.concatenate([SMALL[0] // 8, SMALL[1]])  # the dark ones first
    np.savez(tmp_path / "all.npz", images=images)
    row = measured(tmp_path, SMALL[0][:30], f"npz:{tmp_path / 'all.npz'}", num_samples=60)
    order = np.random.RandomState(data.splits.SEED).permutation(120)
    expected = frechet(SMALL[0][:30], images[order[:60]])
    np.testing.assert_allclose(row["fd_pixels"]["value"], expected, rtol=1e-4)


def test_an_output_among_the_images_is_refused(tmp_path):
    places = [written(tmp_path / name, images) for name, images in (("generated", SMALL[0]), ("reference", SMALL[1]))]
    for place in places:
        for output in (place, place / "compared"):
            with pytest.raises(UserError, match=f"output .*: expected a folder that is not in that of {place.name}"):
                tfcq.evaluate_images(*places, output, **FAST)
    assert tfcq.evaluate_images(*places, tmp_path / "generated compared", report=False, **FAST)


def test_a_reference_with_splits_is_read_as_in_a_run(tmp_path):
    np.savez(tmp_path / "real.npz", train=ONE, test=OTHER)
    row = measured(tmp_path, ONE // 2, f"npz:{tmp_path}/real.npz", ["frechet_distance", "memorisation"], report=True)
    entry = row["fd_pixels"]
    assert entry["split"] == "test" and entry["value"] == pytest.approx(frechet(ONE // 2, OTHER), rel=1e-4)
    assert row["memorisation_pixels"]["num_train"] == entry["num_real_as_generated"] == 54  # a tenth validates
    assert row["memorisation_pixels"]["data"]["train_content"]
    assert "each followed by its 3 nearest in pixel space" in (tmp_path / "output" / "report.md").read_text()


def test_a_list_of_paths_is_a_set(tmp_path):
    written(tmp_path / "real", OTHER)
    (tmp_path / "list.txt").write_text("".join(f"real/{number:04}.png\n" for number in range(40)))
    entry = measured(tmp_path, ONE, f"list:{tmp_path}/list.txt")["fd_pixels"]
    assert entry["value"] == pytest.approx(frechet(ONE, OTHER[:40]), rel=1e-4)
    with pytest.raises(UserError, match="no list, which has no splits"):
        measured(tmp_path, tmp_path / "generated", f"list:{tmp_path}/list.txt", split="test")


# Mistakes.


@pytest.mark.parametrize(
    "generated, reference, options, message",
    [
        (ONE[:0], OTHER, {}, r"generated: /.*/generated: expected images \(.png, .*\), found none among 0 files"),
        (ONE[:1], OTHER, {}, "generated: expected at least two images, found 1 in folder:"),
        (ONE[:5], OTHER, {"num_seeds": 3}, "at least two images for each of num_seeds, found 5"),
        (ONE, OTHER[:1], {}, "reference: expected at least two images, found 1 in folder:"),
        (ONE, "nowhere", {}, "reference: dataset: expected digits, .*, received 'nowhere'"),
        ("/nowhere", OTHER, {}, "generated: expected a folder, received '/nowhere'"),
        (ONE, "list:/nowhere", {}, "reference: /nowhere: cannot be read: No such file"),
        ("npz:/nowhere.npz", OTHER, {}, "generated: npz: expected a file, received '/nowhere.npz'"),
        (ONE[:, :, :6], OTHER, {}, "expected square images, received 8x6; --image_size=N"),
        (ONE, OTHER[..., None].repeat(3, 3), {}, "the generated images are grey, the reference images rgb: expected one kind"),
        (ONE, OTHER, {"metrics": "elbo"}, r"metrics: elbo needs a model \(--workdir\); expected some of frechet_distance"),
        (ONE, OTHER, {"metrics": "memorisation"}, "memorisation compares with training images, and folder:.* has no train split"),
        (ONE, OTHER, {"metrics": "fid"}, "fid is defined for the Inception graph only"),
        (ONE, OTHER, {"temperature": 0.5}, r"temperature: expected it with a run alone \(--workdir\)"),
        (ONE, OTHER, {"num_sample": 5}, "unknown option 'num_sample'.*num_samples"),
        (ONE, OTHER, {"resize": "pad", "image_size": 4}, "8x8 square does not fit into image_size=4"),
        (ONE[:3], OTHER, {"metrics": "neighbours"}, "neighbours: k: expected 1 to 2"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, generated, reference, options, message):
    with pytest.raises(UserError, match=message) as caught:
        measured(tmp_path, generated, reference, **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "output").exists()


def test_images_that_are_broken_or_of_several_sizes_are_named(tmp_path):
    folder = written(tmp_path / "some", ONE)
    Image.fromarray(OTHER[0].repeat(2, 0).repeat(2, 1)).save(folder / "large.png")
    with pytest.raises(UserError, match=r"images of one size, received 8x8 \(60\), 16x16 \(1\)"):
        measured(tmp_path, folder, folder)
    (folder / "large.png").unlink()
    (folder / "0003.png").write_bytes((folder / "0003.png").read_bytes()[:60])
    with pytest.raises(UserError, match="0003.png: expected a whole image file"):
        measured(tmp_path, folder, folder)


def test_the_folder_of_a_run_is_not_written_to(run, tmp_path):
    with pytest.raises(UserError, match="output .*: expected a folder of its own, received that of a run"):
        tfcq.evaluate_images(tmp_path, tmp_path, run)

"""Pictures as a client's images: files, bytes, PIL images, arrays."""

import base64
import io

import numpy as np
import pytest
from client_cases import IMAGE_SHAPE, SIGNATURES, Handler, _tensor, model_server
from PIL import Image

from tfcq.errors import UserError
from tfcq.serving.client import chunks
from tfcq.serving.client.client import Client, ServerError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, *IMAGE_SHAPE), np.uint8)


def file(image, kind="PNG", **options):
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(content, kind, **options)
    return content.getvalue()


@pytest.fixture
def server():
    with model_server() as server:
        yield server


@pytest.fixture
def client(server):
    with Client.rest(server.url, "m") as client:
        yield client


def test_pictures_of_all_forms_are_the_same_images(server, client, tmp_path):
    path = tmp_path / "a picture.png"
    path.write_bytes(file(IMAGES[0]))
    forms = [str(path), path, file(IMAGES[0]), bytearray(file(IMAGES[0])), Image.fromarray(IMAGES[0])]
    for form in forms:
        client.log_prob(form)
        client.energy([form, IMAGES[1]])
    sent = [body["inputs"]["images"] for body in server.bodies]
    assert sent[0::2] == [IMAGES[:1].tolist()] * len(forms) and sent[1::2] == [IMAGES[:2].tolist()] * len(forms)


def test_a_jpeg_is_read_as_training_reads_it(server, client):
    from tfcq.data import decoding

    turned = Image.Exif()
    turned[0x0112] = 6  # taken with the camera on its side
    content = file(np.kron(IMAGES[0], np.ones((8, 8, 1), np.uint8)), "JPEG", exif=turned)
    server.signatures = signatures("DT_UINT8", 16, 16, 3)
    client.energy([content, Image.open(io.BytesIO(content))])
    expected = decoding.decode(io.BytesIO(content), "a picture")
    np.testing.assert_array_equal(server.bodies[0]["inputs"]["images"], [expected, expected])


def signatures(*images):
    images = _tensor(*images)
    return SIGNATURES | {"energy": {"inputs": {"images": images, "seed": SIGNATURES["energy"]["inputs"]["seed"]},
                                    "outputs": SIGNATURES["energy"]["outputs"]}}


def test_grey_pictures_are_taken_where_the_model_has_three_channels(server, client):
    grey = IMAGES[0, ..., 0]
    client.energy([Image.fromarray(grey), file(grey), Image.fromarray(grey > 99), grey])
    expected = np.repeat(np.stack([grey, grey, 255 * (grey > 99), grey])[..., None], 3, axis=3)
    np.testing.assert_array_equal(server.bodies[0]["inputs"]["images"], expected)


def test_colours_are_not_dropped(server, client):
    server.signatures = signatures("DT_UINT8", 2, 2, 1)
    client.energy(file(IMAGES[0, ..., 0]))
    assert np.shape(server.bodies[0]["inputs"]["images"]) == (1, 2, 2, 1)
    with pytest.raises(UserError, match=r"energy\(images\): expected pictures in grey, received .* in RGB; convert it"):
        client.energy(file(IMAGES[0]))


def test_two_arguments_of_pictures(server, client):
    client.interpolate(file(IMAGES[0]), [file(IMAGES[1])], 0.5)
    assert server.bodies[0]["inputs"]["other_images"] == IMAGES[1:2].tolist()


@pytest.mark.parametrize(("pictures", "said"), [
    (file(np.zeros((3, 2, 3), np.uint8)),
     r"expected pictures of 2x2 pixels, received energy\(images\) \(68 bytes\) of 2x3; .* does not resize: crop or resize"),
    ([IMAGES[0], Image.new("RGB", (64, 48))], r"received energy\(images\)\[1\] \(a PIL image\) of 64x48"),
    (b"no picture", "expected an image of 8 bits in grey or RGB, received another file"),
    (file(IMAGES[0])[:40], "expected an image of 8 bits in grey or RGB, received another file"),
    (Image.new("CMYK", (2, 2)), "expected 8 bits in grey or RGB, received mode CMYK"),
    (Image.new("F", (2, 2)), "expected 8 bits in grey or RGB, received mode F"),
    (Image.new("I;16", (2, 2)), "received another file: 16 bits a channel"),
    (Image.new("RGBA", (2, 2), (1, 2, 3, 4)), "received another file: .*transparen"),
    ("no/such/file.png", "no/such/file.png: expected a picture, received a path that cannot be read: No such file"),
    ([file(IMAGES[0]), 3], r"energy\(images\)\[1\]: expected a path, encoded bytes, a PIL image or an array, received int"),
    ([file(IMAGES[0]), IMAGES[1] / 255], r"expected uint8 \[H, W, C\] .*, received float64"),
], ids=["size", "one's size", "no image", "truncated", "CMYK", "floats", "16 bits", "transparent", "no file", "a number",
        "scaled"])
def test_what_is_no_picture_of_the_models_size_is_refused(server, client, pictures, said):
    with pytest.raises(UserError, match=said) as caught:
        client.energy(pictures)
    assert not isinstance(caught.value, ServerError) and "\n" not in str(caught.value) and "skip_broken" not in str(caught.value)
    assert not server.bodies


def test_an_array_of_another_size_is_refused_with_the_models(server, client):
    with pytest.raises(UserError, match=r"energy\(images\): expected uint8 \[N, 2, 2, 3\], received uint8 \[1, 3, 2, 3\]"):
        client.energy(np.zeros((1, 3, 2, 3), np.uint8))
    assert not server.bodies and isinstance(server.asked[0], Handler)


FILES, COLOURS = _tensor("DT_STRING"), np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture
def resizing(server):
    """A server whose model takes picture files too; it answers reconstructions by them, turned upside down."""
    seeds, *others = (SIGNATURES["interpolate"]["inputs"][name] for name in ("seed", "share", "spherical"))
    interpolate = dict(zip(("images_bytes", "other_images_bytes", "share", "spherical", "seed"), (FILES, FILES, *others, seeds)))
    takes = {"energy_png": {"images_bytes": FILES, "seed": seeds}, "interpolate_png": interpolate}
    gives = {"energy_png": SIGNATURES["energy"]["outputs"], "interpolate_png": {"images_png_bytes": FILES}}
    server.signatures = SIGNATURES | {name: {"inputs": takes[name], "outputs": gives[name]} for name in takes}

    def answer(handler):
        rows = handler.body["inputs"]
        if handler.body["signature_name"] == "interpolate_png":
            upside_down = [file(pixels(one["b64"])[::-1]) for one in rows["images_bytes"]]
            handler.answer(200, {"outputs": [{"b64": base64.b64encode(one).decode()} for one in upside_down]})
        else:
            handler.answer(200, {"outputs": [float(row[1]) for row in rows["seed"]]})

    server.behaviour = answer
    return server


def pixels(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def sent(server, name="images_bytes"):
    return [pixels(one["b64"]) for body in server.bodies for one in body["inputs"][name]]


def test_pictures_of_another_size_are_sent_as_files(resizing, client, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(file(COLOURS))
    assert client.energy([path, Image.fromarray(COLOURS), COLOURS, IMAGES[0]]).tolist() == [0, 1, 2, 3]
    assert resizing.bodies[0]["signature_name"] == "energy_png"
    for received, expected in zip(sent(resizing), [COLOURS, COLOURS, COLOURS, IMAGES[0]], strict=True):
        np.testing.assert_array_equal(received, expected)
    client.energy(np.stack([COLOURS, COLOURS]))  # and an array of another size
    np.testing.assert_array_equal(sent(resizing)[4:], [COLOURS, COLOURS])


@pytest.mark.parametrize("shape", [(3, 9, 9), (9, 9, 2), (9, 9, 4), (0, 9, 3), (9, 9, 0)])
def test_arrays_that_are_no_pictures_are_refused(resizing, client, shape):
    for images in (np.zeros((2, *shape), np.uint8), [file(IMAGES[0]), np.zeros(shape, np.uint8)]):
        with pytest.raises(UserError, match=r"expected uint8 \[H, W, C\] with C of 1 \(grey\) or 3 \(RGB\)"):
            client.energy(images)
    assert not resizing.bodies


def test_pictures_of_the_models_size_are_sent_as_arrays(resizing, client):
    client.energy([file(IMAGES[0]), IMAGES[1]])
    assert resizing.bodies[0]["signature_name"] == "energy" and resizing.bodies[0]["inputs"]["images"] == IMAGES[:2].tolist()


def test_a_jpeg_is_sent_as_it_is_and_one_that_xmp_turns_in_png(resizing, client):
    from tfcq.data import decoding

    photo = file(np.kron(COLOURS, np.ones((8, 8, 1), np.uint8)), "JPEG")
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    turned = file(np.kron(COLOURS, np.ones((8, 8, 1), np.uint8)), "JPEG", xmp=packet)
    client.energy([photo, turned])
    one, other = (base64.b64decode(row["b64"]) for row in resizing.bodies[0]["inputs"]["images_bytes"])
    assert one == photo and other.startswith(b"\x89PNG")
    expected = decoding.decode(io.BytesIO(turned), "a picture")
    assert expected.shape == (56, 40, 3)  # it is turned
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(other))), expected)


def test_one_argument_of_another_size_makes_files_of_both_and_files_are_answered_as_images(resizing, client):
    answered = client.interpolate(COLOURS[None], file(IMAGES[1]), 0.5)
    np.testing.assert_array_equal(answered, COLOURS[None, ::-1])
    assert answered.dtype == np.uint8
    np.testing.assert_array_equal(sent(resizing, "other_images_bytes"), IMAGES[1:2])


def test_files_are_cut_into_requests_by_their_bytes(resizing, client, monkeypatch):
    monkeypatch.setattr(chunks, "MOST_BYTES", 2 * len(file(COLOURS)))
    assert client.energy([file(COLOURS, "PNG", compress_level=1)] * 5).tolist() == [0, 1, 2, 3, 4]
    assert [len(body["inputs"]["seed"]) for body in resizing.bodies] == [2, 2, 1]
    monkeypatch.setattr(chunks, "MOST_BYTES", 1)  # a row at least
    assert client.energy([file(COLOURS)] * 2).tolist() == [0, 1]


def test_seeds_are_counted_against_the_pictures(client):
    with pytest.raises(UserError, match=r"energy\(seeds\): expected 2 rows"):
        client.energy([file(IMAGES[0])] * 2, seeds=[[0, 0]])

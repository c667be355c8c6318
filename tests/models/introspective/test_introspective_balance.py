"""The balance of IntroVAE's and Soft-IntroVAE's players: the level that generated images are held at, and its warnings."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.engine.players import BalanceWarning
from tfcq.training.callbacks import Balance


def test_a_given_margin_stays(capsys):
    model = tiny.compiled(tiny.config(16, model="introvae", pretraining_steps=1, margin="7.5"), 3)
    tiny.fit(model, tiny.images((16, 16, 3)), 2)
    assert float(model.margin) == 7.5 and "--margin=7.5 was given and is used" in capsys.readouterr().out


def test_a_warning_is_printed_when_it_lasts_and_when_it_has_ended(capsys):
    model = tiny.build(tiny.config(16, model="introvae", pretraining_steps=0, margin="10"), 3)
    balance = Balance(every=2)
    balance.set_model(model)
    # Lost for two steps, and for good, but for a moment; then in balance, and lost again.
    means = (4, 20, 4, 20, 30, 4, 30, 4, 4, 20, 20)
    for step, real in enumerate([each for mean in means for each in (mean - 3, mean + 3)], 1):
        balance.on_step(step, {"encoder/kl_real": real, "encoder/kl_reconstructed": 9.0, "encoder/kl_sampled": 9.0})
    lines = capsys.readouterr().out.splitlines()  # without blank lines
    assert [line.split(":")[0] for line in lines] == ["step 10", "step 18", "step 22"]
    assert "warning: KL of real 30" in lines[0] and "in balance again" in lines[1] and "warning" in lines[2]


def test_warnings_of_one_kind_are_one_whatever_their_text_says(capsys):
    balance = Balance(every=1)
    kinds = ("behind", "behind", "behind", "ahead", "ahead")
    warnings = [BalanceWarning(kind, f"text: {number}") for number, kind in enumerate(kinds, 1)]
    balance.set_model(SimpleNamespace(balance_warning=lambda logs: warnings[int(logs["loss"])]))
    for step in range(5):
        balance.on_step(step + 1, {"loss": step})
    assert capsys.readouterr().out.splitlines() == ["step 2: warning: text: 2", "step 5: warning: text: 5"]


@pytest.mark.parametrize(
    ("kls", "expected"),
    [
        ((4.0, 9.0, 11.0), None),
        ((12.0, 9.0, 11.0), "real images are above the margin; a higher --margin"),
        ((4.0, 21.0, 30.0), "the generator is far behind the encoder; a --generator_adversarial_weight above 0.25"),
        ((4.0, 9.0, 30.0), "the generator is far behind the encoder"),
        ((4.0, 3.0, 4.0), "distinguishes generated images; a --generator_adversarial_weight below 0.25 or a lower --margin"),
        ((4.0, 11.0, 4.0), "the encoder no longer distinguishes generated images"),
        ((np.nan, np.nan, np.nan), None),
    ],
)
def test_a_lost_balance_is_reported(kls, expected):
    model = tiny.build(tiny.config(16, model="introvae", pretraining_steps=0, margin="10"), 3)
    names = ("kl_real", "kl_reconstructed", "kl_sampled")
    found = model.balance_warning({f"encoder/{name}": kl for name, kl in zip(names, kls)})
    assert (found is None) if expected is None else (expected in found.text and "margin 10" in found.text)
    assert model.balance_warning({"vae/loss": 1.0}) is None


@pytest.mark.parametrize(("negative", "pull"), [(256.0, 1.0), (64.0, 1.0), (6.0, 0.5)])
def test_the_level_of_the_soft_losses_is_where_push_and_pull_are_equal(negative, pull):
    options = {"kl_weight": pull, "negative_weight": negative, "reconstruction_weight": 0.0}
    model = tiny.build(tiny.config(16, model="soft_introvae", **options), 3)
    kl, scale = tf.constant(model.level), 1.0 / 768
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(kl)
        pushed, pulled = 0.25 * tf.exp(-2.0 * scale * negative * kl), scale * pull * kl
    assert float(kl) > 0.0
    np.testing.assert_allclose(-tape.gradient(pushed, kl), tape.gradient(pulled, kl), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "level"),
    [({"negative_weight": 0.0}, 0.0), ({"negative_weight": 2.0}, 0.0), ({"negative_weight": 2.0 * np.e}, 768 / (4.0 * np.e))],
)
def test_the_level_at_its_limits(options, level):
    assert tiny.build(tiny.config(16, model="soft_introvae", **options), 3).level == pytest.approx(level)


@pytest.mark.parametrize(
    ("negative", "kls", "expected"),
    [
        (256.0, (20.0, 24.0, 22.1), None),  # above its level, but distinguished
        (256.0, (7.4, 9.0, 8.1), "a lower --negative_weight (that KL is highest, 70.6 nats, at 5.44) or a lower --recon"),
        (256.0, (7.2, 9.0, 7.9), "the encoder hardly distinguishes generated images; a --kl_weight below 1 would help"),
        (3.0, (60.0, 59.0, 70.0), "pulls real ones; a higher --negative_weight (that KL is highest, 70.6 nats, at 5.44)"),
        (3.0, (71.0, 59.0, 70.0), "pulls real ones; a lower --reconstruction_weight would help"),  # no b_neg has such a level
    ],
)
def test_soft_introvae_warns_where_generated_images_are_hardly_above_real_ones(negative, kls, expected):
    model = tiny.build(tiny.config(16, model="soft_introvae", negative_weight=negative), 3)  # of 256 the level is 7.28 nats
    names = ("kl_real", "kl_reconstructed", "kl_sampled")
    found = model.balance_warning({f"encoder/{name}": kl for name, kl in zip(names, kls)})
    assert (found is None) if expected is None else (expected in found.text and f"balance {model.level:.4g}: " in found.text)

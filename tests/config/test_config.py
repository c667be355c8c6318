"""Every option's type, bounds, choices and meaning; JSON there and back; differences of configurations."""

import dataclasses
import json
import typing

import pytest
from config_cases import message_of

from tfcq import config as configs
from tfcq.config import Config, CQFConfig, DataConfig, TrainingConfig, fields
from tfcq.errors import UserError

SECTIONS = (DataConfig, TrainingConfig, *configs.SYSTEMS.values())
# An option that several systems inherit unchanged is tested once.
FIELDS = list({id(field): (section, field) for section in SECTIONS for field in dataclasses.fields(section)}.values())
SYSTEM_NAMES = ", ".join(configs.SYSTEMS)
HINTS = {section: typing.get_type_hints(section) for section in SECTIONS}
KINDS = {section: {name: int if kind == int | str else kind for name, kind in hints.items()} for section, hints in HINTS.items()}
# No value here is its option's default.
UNUSUAL = {
    "model": "cqf",
    "data": {
        "dataset": "folder:pictures/ö",
        "data_dir": "sets",
        "data_cache": "decoded",
        "image_size": 48,
        "center_crop": 148,
        "resize": "pad",
        "color": "grey",
        "skip_broken_images": True,
        "horizontal_flip": True,
        "random_translation": 0.25,
        "balance_classes": True,
        "held_out": "last",
        "train_split": "unlabelled",
        "test_split": "validation",
        "num_validation": 7,
        "num_test": 5,
    },
    "system": {
        "coverage": False,
        "quality_weight": 0.1,
        "quality_ramp_steps": 6,
        "generator_loss": "saturating",
        "class_conditional": True,
        "discriminator_network": "residual",
        "discriminator_blocks": 3,
        "discriminator_weight_normalization": True,
        "data_dependent_initialization": False,
        "gradient_penalty_form": "real",
        "network": "residual",
        "latent_levels": 2,
        "latent_blocks": 3,
        "free_bits": 0.25,
        "posterior": "iaf",
        "iaf_width": 6,
        "iaf_layers": 1,
        "latent_channels": 5,
        "latent_form": "vector",
        "latent_size": 6,
        "width": 3,
        "width_scale": 1.25,
        "network_normalization": "batch",
        "discriminator_width": 9,
        "discriminator_size": 3,
        "discriminator_steps": 2,
        "gradient_penalty": 1e-7,
        "dequantize_real": False,
        "initial_sigma": 1 / 3,
        "pixel_transform": "affine",
        "flow_scales": 0,
        "flow_couplings": 2,
        "flow_blocks": 0,
        "flow_width": 8,
        "flow_width_factor": 1,
        "flow_channel_width_factor": 1,
        "flow_normalization": "none",
        "flow_weight_normalization": False,
        "flow_conditioner_batch_normalization": True,
        "flow_output_kernel_size": 3,
        "flow_magnitude_penalty": 0.25,
    },
    "training": {
        "train_steps": 11,
        "batch_size": 3,
        "micro_batches": 1,
        "seed": 2**31 - 1,
        "init_from": "runs/other",
        "optimizer": "adam",
        "optimizer_arguments": "epsilon=0.5",
        "learning_rate": 0.125,
        "discriminator_learning_rate": 1e-5,
        "learning_rate_schedule": "exponential",
        "learning_rate_drops": "0.5:0.25",
        "learning_rate_decay": 0.75,
        "learning_rate_floor": 1e-6,
        "warmup_steps": 10,
        "beta_1": 0.5,
        "beta_2": 0.95,
        "ema_decay": 0.5,
        "clip_norm": 2.5,
        "precision": "mixed_bfloat16",
        "distribution": "mirrored",
        "logical_devices": 2,
        "jit_compile": True,
        "deterministic": False,
        "log_every": 1,
        "evaluate_every": 2,
        "checkpoint_every": 3,
        "keep_checkpoints": 4,
        "validation_images": 0,
        "grid_images": 6,
        "loggers": "csv",
        "keep_grids": 7,
        "eval_metrics": "prd,ms_ssim",
        "eval_split": "train",
        "eval_samples": 7,
        "eval_features": "pixels",
        "best_metric": "prd_f8",
        "early_stopping": 4,
    },
}


def identifier(value):
    """A test's name: the section and the option."""
    return value.name if isinstance(value, dataclasses.Field) else value.__name__


def test_unusual_values_cover_every_option_and_no_default():
    for name, section in (("data", DataConfig), ("system", CQFConfig), ("training", TrainingConfig)):
        assert UNUSUAL[name].keys() == {field.name for field in dataclasses.fields(section)}
        same = [field.name for field in dataclasses.fields(section) if UNUSUAL[name][field.name] == field.default]
        assert not set(same) - {"micro_batches"}  # free bits exclude it; its round trip is below


def test_a_size_of_two_sides_is_told_that_images_are_square():
    for size in ("64x48", (64, 48)):
        with pytest.raises(UserError) as caught:
            DataConfig(image_size=size)
        assert str(caught.value) == (
            f"image_size: expected int, received {size!r}; models see square images, so it is one side: what is not square is "
            "cut at its centre"
        )
    with pytest.raises(UserError, match="^batch_size: expected int, received '8'$"):
        TrainingConfig(batch_size="8")


def test_json_round_trip_of_every_option():
    config = Config.from_dict(UNUSUAL)
    text = config.to_json()
    again = Config.from_json(text)
    assert again == config
    assert json.loads(text) == UNUSUAL  # floats to the last bit, and nothing beside the options
    assert isinstance(again.system, CQFConfig) and again.system.initial_sigma == 1 / 3
    assert Config.from_json(Config().to_json()) == Config()
    parts = Config(training=TrainingConfig(batch_size=6, micro_batches=3))
    assert Config.from_json(parts.to_json()) == parts and parts.training.micro_batches == 3
    assert Config() != config


def test_what_is_left_out_has_its_default():
    assert Config.from_json("{}") == Config()
    assert Config.from_dict({"data": {"image_size": 8}}).data == DataConfig(image_size=8)
    assert Config(system=None).system == CQFConfig()


@pytest.mark.parametrize(("section", "field"), FIELDS, ids=identifier)
def test_every_option_has_a_meaning_and_a_default_within_its_bounds(section, field):
    facts = field.metadata
    assert len(facts["meaning"]) > 5
    assert type(field.default) is KINDS[section][field.name]
    assert facts["minimum"] is None or field.default >= facts["minimum"]
    assert facts["maximum"] is None or field.default <= facts["maximum"]
    assert facts["choices"] is None or field.default in facts["choices"]


@pytest.mark.parametrize(("section", "field"), FIELDS, ids=identifier)
def test_every_option_refuses_other_types(section, field):
    # True is an int of Python's, and 1 is as good as 1.0 for a float.
    candidates = (None, True, 1, 1.0, "1", b"1", [1])
    accepted = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}[KINDS[section][field.name]]
    for value in [candidate for candidate in candidates if type(candidate) not in accepted]:
        message = message_of(section, **{field.name: value})
        kinds = [KINDS[section][field.name].__name__]
        if HINTS[section][field.name] == int | str:
            kinds += field.metadata["words"]
        advice = field.metadata["advice"]
        assert message == f"{field.name}: expected {' or '.join(kinds)}, received {value!r}" + (f"; {advice}" if advice else "")


@pytest.mark.parametrize(("section", "field"), FIELDS, ids=identifier)
def test_bounds_and_choices_are_inclusive_and_hold(section, field):
    facts, kind = field.metadata, KINDS[section][field.name]
    for bound, beyond, words in (("minimum", -1, "at least"), ("maximum", 1, "at most")):
        if facts[bound] is None:
            continue
        assert kind in (int, float)
        # On the bound itself the option is never what is complained about.
        try:
            section(**{field.name: facts[bound]})
        except UserError as error:
            assert not str(error).startswith(f"{field.name}: expected {words}")
        outside = facts[bound] + kind(beyond * 1e-6 if kind is float else beyond)
        message = message_of(section, **{field.name: outside})
        assert message == f"{field.name}: expected {words} {facts[bound]}, received {outside}"
    if facts["choices"] is not None:
        for choice in facts["choices"]:
            assert getattr(section(**{field.name: choice}), field.name) == choice
        outside = kind(facts["choices"][0]) * 2 + kind("5")
        assert message_of(section, **{field.name: outside}).startswith(f"{field.name}: expected one of ")


NEEDED = {
    "learning_rate_decay": {"learning_rate_schedule": "exponential"},
    "learning_rate_floor": {"learning_rate_schedule": "linear", "learning_rate": 1.0},
}
"""Options that have no meaning without others."""


@pytest.mark.parametrize(("section", "field"), FIELDS, ids=identifier)
def test_floats_are_finite_and_take_integers(section, field):
    if KINDS[section][field.name] is not float:
        with pytest.raises(UserError):
            section(**{field.name: float("nan")})
        return
    for value in (float("nan"), float("inf"), -float("inf")):
        assert "expected a finite number" in message_of(section, **{field.name: value})
    assert "expected a finite number" in message_of(section, **{field.name: 10**400})
    maximum = field.metadata["maximum"]
    integer = 1 if maximum is None or maximum >= 1 else 0
    value = getattr(section(**(NEEDED.get(field.name, {}) | {field.name: integer})), field.name)
    assert type(value) is float and value == integer


def test_a_near_miss_of_a_choice_is_suggested():
    assert message_of(TrainingConfig, precision="mixed_float").endswith("received 'mixed_float' (did you mean mixed_float16?)")
    assert "did you mean" not in message_of(TrainingConfig, precision="zzz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentum", "expected NAME=VALUE,... such as momentum=0.9,nesterov=true, received 'momentum'"),
        ("momentum=", "received 'momentum='"),
        ("=1", "received '=1'"),
        ("momentum=0.9,", "received ''"),
        ("rho=1,rho=2", "expected each name once, received rho twice"),
        ("rho=nan", "rho: expected a finite number, received nan"),
        ("learning_rate=1", "learning_rate cannot be given here; the options learning_rate and discriminator_learning_rate"),
        ("clipnorm=1", "clipnorm cannot be given here; the option clip_norm"),
        ("use_ema=true", "use_ema cannot be given here; the option ema_decay"),
        ("gradient_accumulation_steps=2", "gradient_accumulation_steps cannot be given here; the option micro_batches"),
    ],
)
def test_mistakes_in_an_optimizers_arguments_are_found_without_tensorflow(text, message):
    assert message in message_of(TrainingConfig, optimizer_arguments=text)


def test_an_optimizers_arguments_are_read_as_values():
    found = TrainingConfig(optimizer_arguments="momentum=0.9, nesterov=True,ns_steps=5,epsilon=1e-3").arguments_of_optimizer()
    assert found == {"momentum": 0.9, "nesterov": True, "ns_steps": 5, "epsilon": 1e-3}
    assert [type(value) for value in found.values()] == [float, bool, int, float]
    assert TrainingConfig().arguments_of_optimizer() == {}
    assert "expected the name of a class of keras.optimizers" in message_of(TrainingConfig, optimizer="sgd(0.1)")


def test_sections_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DataConfig().image_size = 8
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model = "cqf"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"data": {"image_sise": 32}}', "config.data: unknown option 'image_sise' (did you mean image_size?)"),
        ('{"training": {"batchsize": 32}}', "config.training: unknown option 'batchsize' (did you mean batch_size?)"),
        ('{"system": {"qwzx": 1}}', "config.system: unknown option 'qwzx'"),
        ('{"trainin": {}}', "config: unknown option 'trainin' (did you mean training?)"),
        ('{"model": "cqff"}', f"model: expected one of {SYSTEM_NAMES}, received 'cqff' (did you mean cqf?)"),
        ('{"model": ["cqf"]}', f"model: expected one of {SYSTEM_NAMES}, received ['cqf']"),
        ('{"model": null}', f"model: expected one of {SYSTEM_NAMES}, received None"),
        ("[]", "config: expected a JSON object, received list"),
        ('{"data": 3}', "config.data: expected a JSON object, received int"),
        ('{"system": null}', "config.system: expected a JSON object, received NoneType"),
        ('{"data": {"image_size": "8"}}', "image_size: expected int, received '8'"),
        ('{"training": {"clip_norm": NaN}}', "clip_norm: expected a finite number, received nan"),
        ('{"training":\n {"clip_norm" 1}}', "config: expected JSON, received something else at line 2"),
        ("", "config: expected JSON, received something else at line 1"),
    ],
)
def test_json_that_is_no_configuration(text, expected):
    assert message_of(Config.from_json, text).startswith(expected)


def test_sections_of_the_wrong_class():
    assert message_of(Config, data=TrainingConfig()) == "data: expected DataConfig, received TrainingConfig"
    assert message_of(Config, "cqf", system=DataConfig()) == "system: expected CQFConfig with model=cqf, received DataConfig"
    assert message_of(Config, training=None) == "training: expected TrainingConfig, received NoneType"
    assert message_of(Config, model="gan").startswith("model: expected one of cqf")


def test_validation_images_may_be_none():
    none = Config(data=DataConfig(num_validation="none"))
    assert none.to_dict()["data"]["num_validation"] == "none" and Config.from_json(none.to_json()) == none
    assert none.differences(Config()) == ["data.num_validation: 'none' -> 0"]
    assert message_of(DataConfig, num_validation="all") == "num_validation: expected int or none, received 'all'"
    assert Config.from_json('{"data": {"num_validation": 7}}', of_a_run=True).training.eval_split == "validation"


@pytest.mark.parametrize(
    ("data", "training", "expected"),
    [
        ("none", {"eval_metrics": "prd"}, "eval_metrics=prd with num_validation=none: .*; expected eval_split=train or test$"),
        ("none", {"best_metric": "kid"}, "best_metric=kid with num_validation=none: .*; expected eval_split=train$"),
        ("none", {"best_metric": "latent_log_prob", "eval_split": "train"}, "^best_metric=latent_log_prob with num_validation="),
        (0, {"best_metric": "prd_f8", "eval_split": "test"}, "^best_metric=prd_f8 with eval_split=test: .* the test images"),
        (0, {"eval_split": "tests"}, "^eval_split: expected one of validation, test, train, received 'tests'"),
        ("none", {"best_metric": "frechet_distance", "eval_split": "train", "eval_metrics": "prd"}, None),
        ("none", {"eval_metrics": "prd", "eval_split": "test"}, None),
        ("none", {"eval_split": "test"}, None),
        ("none", {}, None),
        (0, {"best_metric": "latent_log_prob", "eval_metrics": "prd", "eval_split": "test"}, None),
    ],
)
def test_numbers_are_measured_on_images_that_there_are_and_the_best_on_no_test_image(data, training, expected):
    def configuration():
        return Config(data=DataConfig(num_validation=data), training=TrainingConfig(**training))

    if expected is None:
        assert configuration().training.best_metric == training.get("best_metric", "elbo")
        return
    with pytest.raises(UserError, match=expected) as raised:
        configuration()
    assert "\n" not in str(raised.value)


def test_differences_name_each_option_once():
    mine = Config()
    theirs = Config(data=DataConfig(image_size=64), training=TrainingConfig(learning_rate=0.5, optimizer="adam"))
    assert mine.differences(mine) == []
    assert mine.differences(theirs) == [
        "data.image_size: 32 -> 64",
        "training.learning_rate: 0.002 -> 0.5",
        "training.optimizer: 'adamax' -> 'adam'",
    ]
    assert theirs.differences(mine)[0] == "data.image_size: 64 -> 32"


def test_differences_of_two_systems_say_what_is_absent(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class OtherConfig(fields.Section):
        depth: int = fields.option(3, "how deep")
        width: int = fields.option(64, "how wide")

    monkeypatch.setitem(configs.SYSTEMS, "other", OtherConfig)
    differences = Config().differences(Config(model="other"))
    assert "model: 'cqf' -> 'other'" in differences
    assert "system.depth: absent -> 3" in differences
    assert "system.coverage: True -> absent" in differences
    assert not [line for line in differences if line.startswith("system.width:")]
    assert Config.from_json(Config(model="other").to_json()).system == OtherConfig()

"""Every option of a method, its gate, budget, teacher and measurements: limits and default.

A user meets these values in configs, errors and papers, and nothing else would say that one of them
has changed.
"""

import math
from dataclasses import fields

import pytest

from espnet_prune.budget import ControllerConfig, TargetSchedule
from espnet_prune.config import check_range
from espnet_prune.distill import DistillConfig
from espnet_prune.errors import ConfigError
from espnet_prune.gates import (
    HardConcreteConfig,
    RetentionConfig,
    SelfPinchingConfig,
    WidthChoiceConfig,
)
from espnet_prune.methods.acip import AcipConfig, PressureConfig
from espnet_prune.methods.comp import TuningConfig
from espnet_prune.methods.controlled import ControlledConfig
from espnet_prune.methods.cpd import CpdConfig
from espnet_prune.methods.fisher import FisherConfig
from espnet_prune.methods.flexigpt import FlexiGptConfig
from espnet_prune.methods.kcm import KernelConfig
from espnet_prune.methods.numerical import NewtonConfig
from espnet_prune.methods.obs_weights import SurgeonConfig
from espnet_prune.methods.options import (
    BudgetConfig,
    CalibrationConfig,
    ClipConfig,
    GradientsConfig,
    IntermediateCtcConfig,
    MethodConfig,
    QuantNoiseConfig,
    RefitConfig,
    SharpnessConfig,
    StudentConfig,
    UnitsConfig,
)
from espnet_prune.methods.prunenet import PolicyConfig
from espnet_prune.methods.self_pinching import PinchingConfig, SelfPinchingMethodConfig
from espnet_prune.methods.self_pinching_weights import SelfPinchingWeightsConfig
from espnet_prune.score.sensitivity import SensitivityConfig
from espnet_prune.score.timing import ProfileConfig

RANGES = [  # least, default, most
    (HardConcreteConfig, "initial_drop_rate", 0.01, 0.01, 0.99),
    (HardConcreteConfig, "settle_fraction", 0, 0.0, 0.99),
    (HardConcreteConfig, "spread", 0, 30.0, 1000),
    (RetentionConfig, "start", 0.01, 0.95, 0.999),
    (RetentionConfig, "temperature", 0.01, 0.5, 100),
    (SelfPinchingConfig, "temperature_start", 0.01, 0.5, 1e4),
    (SelfPinchingConfig, "temperature_end", 1e-8, 0.01, 0.5),
    (SelfPinchingConfig, "falling_fraction", 1e-6, 1.0, 1),
    (SelfPinchingConfig, "temperature_factor", 1e-3, 1.0, 1e3),
    (SelfPinchingConfig, "initial_drop_rate", 0, 0.01, 0.99),
    (SelfPinchingConfig, "settle_fraction", 0, 0.0, 1),
    (WidthChoiceConfig, "temperature_start", 0.1, 1.0, 100),
    (WidthChoiceConfig, "temperature_end", 1e-3, 0.1, 1.0),
    (WidthChoiceConfig, "initial_full", 1e-3, 0.9, 0.99),
    (ControllerConfig, "band_growth", 1, 1.0, 10),
    (ControllerConfig, "band_strength", 1e-12, None, 1e12),
    (ControllerConfig, "band_width", 0, None, 1),
    (ControllerConfig, "learning_rate", 1e-8, None, 1e4),
    (DistillConfig, "label_weight", 0, 1.0, 1e6),
    (DistillConfig, "layer_weight", 0, 1.0, 1e6),
    (DistillConfig, "ctc_weight", 0, 1.0, 1e6),
    (DistillConfig, "attention_weight", 0, 1.0, 1e6),
    (DistillConfig, "temperature", 0.01, 2.0, 100),
    (DistillConfig, "balance", 0, 0.0, 0.999999),
    (DistillConfig, "blank_context", 0, None, 1000),
    (PressureConfig, "start", 1e-12, 0.1, 1e12),
    (PressureConfig, "growth", 1, 1.01, 10),
    (PressureConfig, "every", 1, 4, 1e6),
    (AcipConfig, "gate_learning_rate", 1e-8, 0.05, 10),
    (TuningConfig, "layer_share", 0, 0.25, 1),
    (TuningConfig, "utterances", 1, 32, 1e6),
    (TuningConfig, "damping", 1e-9, 0.1, 1e9),
    (ControlledConfig, "warmup_fraction", 0, 0.25, 1),
    (ControlledConfig, "gate_learning_rate", 1e-8, 0.05, 10),
    (CpdConfig, "rounds", 1, 4, 1000),
    (FisherConfig, "rescale_utterances", 1, 32, 1e6),
    (FisherConfig, "damping", 1e-9, 0.1, 1e9),
    (FlexiGptConfig, "rank_share", 0, 0.1, 0.9),
    (KernelConfig, "width", 1e-3, 1.0, 1e3),
    (KernelConfig, "convergence", 1e-9, 0.01, 0.5),
    (NewtonConfig, "penalty", 1e-9, 1.0, 1e9),
    (NewtonConfig, "damping", 1e-9, 0.01, 1e9),
    (SurgeonConfig, "damping", 1e-9, None, 1e9),
    (SurgeonConfig, "most", 0, 0.95, 1),
    (BudgetConfig, "reference_seconds", 0.5, 10.0, 600),
    (BudgetConfig, "tolerance", 0, 0.005, 1),
    (ClipConfig, "weights", 1e-6, 5.0, 1e9),
    (ClipConfig, "gates", 1e-6, 1.0, 1e9),
    (ClipConfig, "multipliers", 1e-6, 1.0, 1e9),
    (SharpnessConfig, "rho", 0, 0.05, 1e3),
    (QuantNoiseConfig, "share", 0, 0.5, 1),
    (QuantNoiseConfig, "block", 1, 8, 1e6),
    (GradientsConfig, "share", 1e-6, 0.1, 1),
    (GradientsConfig, "rank", 1, 4, 1e6),
    (IntermediateCtcConfig, "blocks", 0, 0, 1000),
    (IntermediateCtcConfig, "weight", 0, 0.3, 1),
    (StudentConfig, "dropout", 0, 0.0, 0.99),
    (StudentConfig, "stochastic_depth", 0, None, 0.99),
    (CalibrationConfig, "utterances", 1, 256, 1e6),
    (RefitConfig, "utterances", 1, 256, 1e6),
    (RefitConfig, "damping", 1e-9, None, 1e9),
    (PolicyConfig, "episodes", 1, 20, 1e6),
    (PolicyConfig, "learning_rate", 1e-8, 1e-3, 10),
    (PolicyConfig, "trained_at", 0.01, None, 0.99),
    (PinchingConfig, "learning_rate", 1e-8, 2e-4, 10),
    (PinchingConfig, "momentum", 0, 0.9, 0.999),
    (PinchingConfig, "epochs_from_finetuning", 0, 0, 1e6),
    (SelfPinchingMethodConfig, "warmup_fraction", 0, 0.25, 1),
    (SelfPinchingWeightsConfig, "warmup_fraction", 0, 0.25, 1),
    (SensitivityConfig, "utterances", 1, 100, 1e9),
    (ProfileConfig, "reference_seconds", 0.5, 10.0, 600),
    (ProfileConfig, "least_seconds", 0, 2.0, 600),
    (ProfileConfig, "steady_within", 1e-3, 0.05, 100),
    (ProfileConfig, "ctc_weight", 0, 0.3, 1),
    (ProfileConfig, "threads", 1, 1, 10000),
    (ProfileConfig, "repeats", 1, 5, 10000),
    (ProfileConfig, "greedy_utterances", 1, 10, 10000),
    (ProfileConfig, "joint_utterances", 1, 3, 10000),
    (ProfileConfig, "joint_repeats", 1, 2, 10000),
    (ProfileConfig, "beam_size", 1, 10, 10000),
]
SITES = ("head", "feed_forward_unit", "convolution_channel", "front_end_channel")
CHOICES = [  # default of what is no number
    (MethodConfig, "continue_schedule", False),
    (UnitsConfig, "sites", (*SITES, "branch")),
    (HardConcreteConfig, "order", "none"),
    (SelfPinchingConfig, "score_scaling", "none"),
    (SelfPinchingConfig, "steps_in_spreads", False),
    (ControllerConfig, "kind", "exact"),
    (ControllerConfig, "restart", True),
    (DistillConfig, "layer_loss", "mse"),
    (DistillConfig, "mapping", "fixed"),
    (DistillConfig, "sum_layers", False),
    (DistillConfig, "teacher_layers", ()),
    (DistillConfig, "keep_teacher_outputs", False),
    (FisherConfig, "rearrange", True),
    (FisherConfig, "rescale", True),
    (NewtonConfig, "compensate", True),
    (BudgetConfig, "measure", "parameters"),
    (SharpnessConfig, "kind", "none"),
    (GradientsConfig, "kind", "none"),
    (StudentConfig, "norm_statistics", "frozen"),
    (StudentConfig, "spec_augment", True),
    (RefitConfig, "choose", True),
    (PinchingConfig, "distill", False),
    (SensitivityConfig, "kinds", (*SITES, "block")),
    (ProfileConfig, "int8", False),
]
KINDS = {"band_strength": "band", "band_width": "band", "band_growth": "band"}
KINDS["learning_rate"] = "lagrangian"
SEVERAL = [
    (SharpnessConfig, "sparsities", 0, (0.5, 0.7, 0.9), 0.999),
    (SensitivityConfig, "fractions", 1e-6, (0.25, 0.5, 1.0), 1),
]


def made(config: type, option: str, value):
    others = {"kind": KINDS[option]} if config is ControllerConfig else {}
    return config(**{option: value}, **others)


def beyond(least: float, most: float) -> tuple[float, float]:
    return math.nextafter(least, -math.inf), math.nextafter(most, math.inf)


@pytest.mark.parametrize(("config", "option", "least", "default", "most"), RANGES)
def test_limits_are_taken_what_is_beyond_them_is_refused_and_the_default_stays(
    config, option, least, default, most
):
    assert getattr(config(), option) == default
    for value in (least, most):
        assert getattr(made(config, option, value), option) == value
    for value in beyond(least, most):
        with pytest.raises(ConfigError):
            made(config, option, value)


@pytest.mark.parametrize(("config", "option", "least", "default", "most"), SEVERAL)
def test_each_of_several_numbers_has_limits(config, option, least, default, most):
    assert getattr(config(), option) == default
    for value in (least, most):
        assert getattr(config(**{option: (value,)}), option) == (value,)
    for value in beyond(least, most):
        with pytest.raises(ConfigError, match=option):
            config(**{option: (value,)})


@pytest.mark.parametrize(
    ("config", "least"), [(SelfPinchingConfig, 1e-8), (WidthChoiceConfig, 1e-3)]
)
def test_a_temperature_may_stay_the_least_one_all_the_time(config, least):
    config(temperature_start=least, temperature_end=least)
    with pytest.raises(ConfigError, match="temperature_start"):
        config(temperature_start=least / 2, temperature_end=least / 2)


def test_the_smallest_width_that_may_be_chosen():
    published = (0.075, 0.1, 0.125, 0.25, 0.5, 0.75, 1.0)
    assert WidthChoiceConfig().fractions == published
    assert WidthChoiceConfig(fractions=(1e-6, 1.0)).fractions == (1e-6, 1.0)
    with pytest.raises(ConfigError, match="fractions"):
        WidthChoiceConfig(fractions=(9e-7, 1.0))


@pytest.mark.parametrize(("config", "option", "default"), CHOICES)
def test_what_is_no_number_has_the_default(config, option, default):
    assert getattr(config(), option) == default


@pytest.mark.parametrize(
    ("config", "option", "values", "others"),
    [
        (BudgetConfig, "align", (1, 2, 4, 8, 16, 32), (0, 3, 33, 64)),
        (QuantNoiseConfig, "bits", (0, 4, 8), (-1, 1, 5, 9)),
    ],
)
def test_a_number_of_a_few_values(config, option, values, others):
    assert getattr(config(), option) == values[0]
    for value in values:
        assert getattr(config(**{option: value}), option) == value
    for value in others:
        with pytest.raises(ConfigError, match=option):
            config(**{option: value})


def test_every_option_of_these_configs_is_listed():
    listed = {(config, option) for config, option, *_ in (*RANGES, *SEVERAL, *CHOICES)}
    elsewhere = {(BudgetConfig, "align"), (QuantNoiseConfig, "bits")}
    elsewhere.add((WidthChoiceConfig, "fractions"))
    options = {
        (config, field.name)
        for config in {config for config, _ in listed}
        for field in fields(config)
        if type(field.default) in (int, float, bool, str, tuple)
        and (not issubclass(config, MethodConfig) or field.name in vars(config)["__annotations__"])
    }
    assert options <= listed | elsewhere


def test_a_target_is_between_nothing_and_all():
    for target in (1e-9, 1 - 1e-9):
        assert TargetSchedule(target, 0).target == target
    for target in (0.0, 1.0):
        with pytest.raises(ConfigError, match="budget: target"):
            TargetSchedule(target, 0)


def test_the_range_itself_holds_its_ends():
    check_range("x", 1, 1, 1)
    for value in (0, 2, math.nan):
        with pytest.raises(ConfigError, match=f"x: {value} is out of range; expected 1 to 1"):
            check_range("x", value, 1, 1)

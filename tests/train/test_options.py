"""Training configurations are checked before ESPnet sees them; errors name key and remedy."""

import argparse
import copy
from types import SimpleNamespace

import pytest
from system_configs import COUNTED, read_system, system_config
from tiny_models import encoder, features

from espnet_prune.config import load_yaml
from espnet_prune.errors import ConfigError
from espnet_prune.methods import make_method
from espnet_prune.surgery import inject
from espnet_prune.surgery.sparse import mark_sparse
from espnet_prune.train.options import check_training_config, read_floats


@pytest.fixture(scope="module")
def task():
    from espnet_prune.train.teacher_task import TeacherTask

    return TeacherTask


@pytest.fixture
def config(repository) -> dict:
    """A configuration that is right."""
    return copy.deepcopy(load_yaml(repository / "egs/an4/l0_conformer1/conf/teacher.yaml"))


def test_every_recipe_is_right(task, repository):
    paths = sorted((repository / "egs").glob("*/*/conf/teacher*.yaml"))
    assert paths
    for path in paths:
        check_training_config(task, load_yaml(path), str(path))


WRONG = [
    ({"max_epochs": 3}, "teacher.yaml: unknown key 'max_epochs' .did you mean 'max_epoch'"),
    (
        {"encoder_conf": {"linear_unit": 8}},
        "encoder_conf: .* no option 'linear_unit'.*linear_units",
    ),
    ({"decoder_conf": {"num_block": 8}}, "decoder_conf: .* 'num_block'.*num_blocks"),
    ({"frontend_conf": {"n_mel": 8}}, "frontend_conf: .* 'n_mel'.*n_mels"),
    ({"specaug_conf": {"num_freq_masks": 1}}, "specaug_conf: .* 'num_freq_masks'.*num_freq_mask"),
    ({"model_conf": {"ctc_weigth": 0.1}}, "model_conf: .* 'ctc_weigth'.*ctc_weight"),
    ({"optim_conf": {"learning_rate": 0.1}}, "optim_conf: Adam has no option 'learning_rate'"),
    ({"scheduler_conf": {"warmup": 9}}, "scheduler_conf: .* 'warmup'.*warmup_steps"),
    ({"max_epoch": "many"}, "max_epoch: int was expected, not 'many'"),
    ({"max_epoch": 2.5}, "max_epoch: int was expected, not 2.5"),
    ({"max_epoch": True}, "max_epoch: int was expected, not True"),
    ({"seed": [1]}, r"seed: int was expected, not \[1\]"),
    ({"seed": {"a": 1}}, "seed: int was expected, not {'a': 1}"),
    ({"keep_nbest_models": [5, "all"]}, "keep_nbest_models: int was expected, not 'all'"),
    ({"grad_clip": "high"}, "grad_clip: float was expected, not 'high'"),
    ({"use_amp": "yes please"}, "use_amp: true or false was expected"),
    ({"encoder_conf": 4}, "encoder_conf: a mapping of keys was expected, not 4"),
    ({"encoder_conf": {"output_size": "big"}}, "encoder_conf: output_size: int .* not 'big'"),
    ({"encoder_conf": {"num_blocks": 2.5}}, "encoder_conf: num_blocks: int was expected, not 2.5"),
    ({"encoder_conf": {"num_blocks": True}}, "encoder_conf: num_blocks: int .* not True"),
    ({"encoder_conf": {"num_blocks": None}}, "encoder_conf: num_blocks: int .* not None"),
    ({"encoder_conf": {"macaron_style": "no"}}, "macaron_style: bool was expected, not 'no'"),
    ({"encoder_conf": {"stochastic_depth_rate": "x"}}, "_rate: float or list .* not 'x'"),
    ({"decoder_conf": {"dropout_rate": [0.1]}}, r"dropout_rate: float was expected, not \[0.1\]"),
    ({"specaug_conf": {"freq_mask_width_range": "8"}}, "range: int or Sequence .* not '8'"),
    ({"model_conf": {"ctc_weight": "half"}}, "model_conf: ctc_weight: float .* not 'half'"),
    ({"optim_conf": {"lr": "fast"}}, "optim_conf: lr: float was expected, not 'fast'"),
    ({"scheduler_conf": {"warmup_steps": "5k"}}, "warmup_steps: int or float .* not '5k'"),
    ({"encoder": "conformr"}, "encoder: 'conformr' is not known .did you mean 'conformer'"),
    ({"optim": "adamm"}, "optim: 'adamm' is not known .did you mean 'adam"),
    ({"resume": False}, "resume: it isn't read here, every training goes on from its checkpoint"),
    ({"num_att_plot": 3}, "num_att_plot: it isn't read here, attention, which"),
    ({"token_type": "char"}, "token_type: it isn't read here, --token_type says it"),
    ({"scheduler": "warmuplrs"}, "scheduler: 'warmuplrs' is not known .did you mean 'warmuplr'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_is_wrong_is_named(task, config, change, message):
    with pytest.raises(ConfigError, match=message):
        check_training_config(task, {**config, **change}, "teacher.yaml")


def test_a_wrong_class_is_named_where_it_has_no_options(task):
    with pytest.raises(ConfigError, match="'conformr' is not known"):
        check_training_config(task, {"encoder": "conformr"}, "teacher.yaml")
    with pytest.raises(ConfigError, match="'adamm' is not known"):
        check_training_config(task, {"optim": "adamm"}, "teacher.yaml")


def test_exponents_without_a_point_are_numbers(task, config):
    config["optim_conf"] = {"lr": "1e-3", "betas": ["9e-1", 0.98]}
    config["grad_clip"] = "5e0"
    config["keep_nbest_models"] = [1, 2]
    checked = check_training_config(task, config, "teacher.yaml")
    assert checked["optim_conf"] == {"lr": 0.001, "betas": [0.9, 0.98]}
    assert checked["grad_clip"] == 5.0
    assert config["optim_conf"]["lr"] == "1e-3", "the caller's mapping was changed"


RIGHT = [
    {"encoder_conf": {"dropout_rate": 0, "stochastic_depth_rate": [0.0, 0.1]}},
    {"encoder_conf": {"input_layer": None}},
    {"frontend_conf": {"fs": "16k", "fmax": None, "win_length": 400}},
    {"specaug_conf": {"time_mask_width_ratio_range": [0, 0.1], "freq_mask_width_range": 8}},
    {"optim_conf": {"betas": [0.9, 0.98], "foreach": None, "weight_decay": 0}},
    {"scheduler_conf": {"warmup_steps": 1000.0}},
]


@pytest.mark.parametrize("change", RIGHT)
def test_what_an_annotation_allows_is_taken(task, config, change):
    assert check_training_config(task, {**config, **change}, "teacher.yaml")


@pytest.mark.parametrize("text", ["e3", "1e", "v1e3", "1e-3x", "path/1e5", "123", ""])
def test_other_strings_stay(text):
    assert read_floats({"key": [text]}) == {"key": [text]}


@pytest.mark.parametrize("name", ["prune", "finetune"])
def test_a_system_can_set_an_option_but_no_unknown_one(repository, name):
    conf = load_yaml(repository / f"egs/an4/l0_conformer1/conf/{name}.yaml")
    row = {"method": "l0_distill", "options": {"distillation": {"layer_weight": 0.0}}}
    method = getattr(system_config(row, **{name: conf}), name).method
    assert method.distillation.layer_weight == 0.0
    wrong = {"method": "l0_distill", "options": {"distilation": {}}}
    with pytest.raises(ConfigError, match="'distilation' .did you mean 'distillation'"):
        system_config(wrong, **{name: conf})


def test_an_unknown_system_or_method_is_named(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text("systems:\n  l0_50: {method: l0_distil}\n  other: {method: l0, sed: 1}\n")
    with pytest.raises(ConfigError, match="no system 'l0_5' .did you mean 'l0_50'"):
        read_system(path, "l0_5")
    with pytest.raises(ConfigError, match="no method 'l0_distil' .did you mean 'l0_distill'"):
        read_system(path, "l0_50")
    with pytest.raises(ConfigError, match="unknown key 'sed' .did you mean 'seed'"):
        read_system(path, "other")


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("magnitude", "fisher: {rescale: false}"),
        ("l0_distill", "nas: {initial_full: 0.5}"),
        ("nas", "gate: {settle_fraction: 0.4}"),
        ("fisher", "controller: {kind: constraint}"),
        ("self_pinching", "gate_learning_rate: 0.1"),
        ("self_pinching_weights", "sites: [head]"),
    ],
)
def test_an_option_that_the_method_does_not_read_is_an_error(tmp_path, method, key):
    path = tmp_path / "systems.yaml"
    path.write_text(f"systems:\n  one: {{method: {method}, target: 0.5, options: {{{key}}}}}\n")
    name = key.partition(":")[0]
    with pytest.raises(ConfigError, match=f"one: options: {name}: the method {method} doesn't"):
        read_system(path, "one")


@pytest.mark.parametrize("missing", ["max_epoch", "num_iters_per_epoch"])
def test_what_schedules_are_counted_by_must_be_there(missing):
    values = {key: value for key, value in COUNTED.items() if key != missing}
    with pytest.raises(ConfigError, match=f"prune.yaml: {missing} is missing"):
        system_config({"method": "magnitude"}, prune=values)


def test_an_optimiser_that_reads_no_momentum_of_the_thresholds_is_an_error():
    from espnet_prune.train.prune_task import PruneTask

    method = make_method("self_pinching", target=0.5, updates=9)
    gated = inject(encoder(), method)
    model = SimpleNamespace(method=method, gated=gated, parameters=gated.parameters, disturbed=None)
    options = {"optim": "adam", "optim_conf": {}, "optim2_conf": {}}
    with pytest.raises(ConfigError, match="optim2: 'sgd' doesn't read .'betas'.*choose adam"):
        PruneTask.build_optimizers(argparse.Namespace(optim2="sgd", **options), model)
    _, gates = PruneTask.build_optimizers(argparse.Namespace(optim2="adamw", **options), model)
    assert gates.param_groups[0]["betas"][0] == method.options.momentum


@pytest.mark.parametrize("key, value", [("seed", 3), ("grad_clip", 5.0)])
def test_what_the_pruning_stages_set_themselves_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"{key}: it isn't read here, .*; leave it out"):
        system_config({"method": "magnitude"}, prune={**COUNTED, key: value})
    with pytest.raises(ConfigError, match=f"training: {key}: it isn't read here"):
        system_config({"method": "l0_distill", "training": {key: value}})


def test_method_options_that_are_all_commented_out_are_none():
    plain, without = (
        system_config({"method": "l0"}, prune={**COUNTED, **more})
        for more in ({}, {"method": None})
    )
    assert plain == without


def test_an_option_for_all_methods_that_none_reads_is_an_error():
    shared = {"gate": {"settle_fraction": 0.4}, "pinching": {"learning_rate": 0.1}}
    config = system_config({"method": "magnitude"}, prune={**COUNTED, "method": shared})
    assert config.prune.method == config.finetune.method
    with pytest.raises(ConfigError, match="prune.yaml: method: unknown key 'pinchin'"):
        system_config({"method": "l0"}, prune={**COUNTED, "method": {"pinchin": {}}})
    with pytest.raises(ConfigError, match="prune.yaml: method: pinching: unknown key 'distil'"):
        system_config({"method": "l0"}, prune={**COUNTED, "method": {"pinching": {"distil": 1}}})


def test_single_weights_that_went_before_stay_gone_while_masks_are_learned():
    """As of a row that prunes units of a system of few single weights."""
    from espnet_prune.train.prune_task import PruneTask

    origin, method = encoder(), make_method("l0_distill", target=0.4)
    weight = origin.encoders[0].feed_forward.w_1.weight
    weight.data[:, ::2] = 0.0
    mark_sparse(origin, [weight])
    gated = inject(origin, method)
    model = SimpleNamespace(gated=gated, method=method, disturbed=None, parameters=gated.parameters)
    options = {"optim": "adam", "optim_conf": {"lr": 0.1}, "optim2": "adam", "optim2_conf": {}}
    weights, _ = PruneTask.build_optimizers(argparse.Namespace(**options), model)
    before = weight.detach().clone()
    gated(*features())[0].square().mean().backward()
    weights.step()
    assert weight[:, ::2].eq(0).all() and not weight[:, 1::2].equal(before[:, 1::2])

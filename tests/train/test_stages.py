"""A system's own training keys, epochs and schedule, and what its cut tells."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from system_configs import COUNTED, system_config, write_system

from espnet_prune.budget import Budget, resolve
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.record import read_record, update_record
from espnet_prune.sites import UNIT_KINDS
from espnet_prune.surgery import load, sites_of
from espnet_prune.train import stages
from espnet_prune.train.criterion import check_decoder_for
from espnet_prune.train.cutting import cut_system
from espnet_prune.train.prune_task import FinetuneTask
from espnet_prune.train.stages import prune
from espnet_prune.train.system import best_average, write_model
from espnet_prune.train.system_config import (
    StageConfig,
    continued_schedule,
    finetuning_epochs,
    read_config,
)

from espnet2.schedulers.warmup_lr import WarmupLR  # isort: skip  (after the stubs)


TRAINING = {**COUNTED, "optim": "adam", "optim_conf": {"lr": 0.001, "weight_decay": 0.1}}


def adapted(**training: object) -> StageConfig:
    """Finetuning of a system that has these training keys of its own."""
    row = {"method": "magnitude", "training": training}
    return system_config(row, finetune=TRAINING).finetune


def test_a_system_overrides_single_training_keys():
    training = adapted(optim_conf={"lr": 0.01}).training
    assert training["optim_conf"] == {"lr": 0.01, "weight_decay": 0.1}
    assert TRAINING["optim_conf"]["lr"] == 0.001


def test_without_keys_nothing_changes():
    assert adapted().training == TRAINING


@pytest.mark.parametrize("key", ["max_epoch", "num_iters_per_epoch", "accum_grad"])
def test_the_number_of_updates_is_the_same_for_all(key):
    with pytest.raises(ConfigError, match=f"training: {key}.*prune.yaml"):
        adapted(**{key: 5})


@pytest.mark.parametrize(
    "training, named",
    [
        ({"patience": 2}, "patience: it isn't read here, every system gets the same number"),
        ({"model_conf": {"ctc_weight": 0.9}}, "model_conf: it isn't read here, .* the teacher's"),
        ({"specaug_conf": {"num_freq_mask": 1}}, "specaug_conf: it isn't read here"),
        ({"exclude_weight_decay": True}, "exclude_weight_decay: it isn't read here"),
        ({"optim2_conf": {"lr": 0.1}}, "optim2_conf: lr: it isn't read here, .*gate_learning_rate"),
    ],
)
def test_what_these_stages_do_not_read_is_refused(training, named):
    with pytest.raises(ConfigError, match=named):
        adapted(**training)
    with pytest.raises(ConfigError, match=f"prune.yaml: .*{named}"):
        system_config({"method": "magnitude"}, prune={**COUNTED, **training})


def test_keys_of_the_gates_optimiser_are_for_stage_8_alone():
    own = {"optim2": "adamw", "optim2_conf": {"eps": 1e-7}, "optim_conf": {"lr": 0.01}}
    assert "optim2" not in adapted(**own).training
    assert adapted(**own) == adapted(optim_conf={"lr": 0.01})
    of_pruning = system_config({"method": "l0", "training": own}).prune.training
    assert of_pruning["optim2"] == "adamw"


@pytest.mark.parametrize(
    "change",
    [{"num_iters_per_epoch": 10.5}, {"max_epoch": None}, {"max_epoch": -3}, {"accum_grad": 0}],
)
def test_updates_are_counted_by_whole_numbers(change):
    key = next(iter(change))
    with pytest.raises(ConfigError, match=f"prune.yaml: {key}: .*expected a whole number of at"):
        system_config({"method": "magnitude"}, prune={**COUNTED, **change})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"target": 2.0}, "target: 2.0 is out of range"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"options": {"sites": ["branch"]}}, r"sites: \['branch'\]: .* chooses among units"),
    ],
)
def test_what_a_method_refuses_is_named_with_its_file_and_row(row, message):
    with pytest.raises(ConfigError, match=f"^systems.yaml: mine: {message}"):
        system_config({"method": "magnitude", **row})


def test_masks_are_not_learned_in_no_epoch():
    none = {**COUNTED, "max_epoch": 0}
    with pytest.raises(ConfigError, match="max_epoch: 0: l0_distill learns its masks"):
        system_config({"method": "l0_distill"}, prune=none)
    assert system_config({"method": "magnitude"}, prune=none).prune.updates == 0


def test_a_configuration_is_read_as_it_was_written(tmp_path):
    row = {
        "method": "l0_distill",
        "target": 0.4,
        "ladder": [0.2],
        "options": {"gate": {"settle_fraction": 0.0}, "sites": ["head"]},
        "training": {"optim_conf": {"lr": 0.01}},
    }
    folder = write_system(tmp_path, row)
    assert read_config(folder) == system_config(row, tmp_path)
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("settle_fraction", "settle_fractio"))
    with pytest.raises(ConfigError, match="config.yaml: prune: gate: unknown key 'settle_fractio'"):
        read_config(folder)


def test_a_model_without_a_decoder_is_not_chosen_by_one(cut_by_scores):
    ctc_alone = cut_by_scores("head")
    by = Namespace(best_model_criterion=[("valid", "acc", "max")])
    with pytest.raises(ConfigError, match=r"best_model_criterion: \[valid, acc, max\]: .*no att"):
        check_decoder_for(by, ctc_alone)
    check_decoder_for(Namespace(best_model_criterion=[("valid", "loss", "min")]), ctc_alone)


def test_an_experiment_that_was_moved_between_the_stages_is_cut(
    cut_by_scores, tmp_path, monkeypatch
):
    cut_by_scores("head")
    (tmp_path / "work/exp/teacher").mkdir(parents=True)
    (tmp_path / "teacher/model").rename(tmp_path / "work/exp/teacher/model")
    monkeypatch.chdir(tmp_path / "work")
    system = write_system(Path("exp"), {"method": "magnitude"})
    prune(system, read_config(system), {}, ngpu=0)
    monkeypatch.chdir(tmp_path)
    Path("work").rename("moved")
    monkeypatch.chdir("moved")
    cut_system(system, read_config(system))
    assert (system / "cut/model.safetensors").is_file()


def test_an_unknown_key_is_named_with_its_nearest():
    with pytest.raises(ConfigError, match="'optim_con'.*optim_conf"):
        adapted(optim_con={"lr": 0.01})


def test_the_average_of_the_last_run_counts(tmp_path):
    for name in ("valid.acc.ave_4best.pth", "valid.acc.ave_10best.pth"):
        (tmp_path / name).write_text(name)
    (tmp_path / "valid.acc.ave.pth").symlink_to("valid.acc.ave_10best.pth")
    config = {"best_model_criterion": [["valid", "acc", "max"]]}
    assert best_average(tmp_path, config).name == "valid.acc.ave_10best.pth"


def test_an_unfinished_training_has_no_average(tmp_path):
    (tmp_path / "valid.acc.ave.pth").symlink_to("valid.acc.ave_1best.pth")
    with pytest.raises(DataError, match=r"valid\.acc\.ave\.pth.*the same command again"):
        best_average(tmp_path, {"decoder": "transformer"})


def test_without_a_decoder_the_loss_chooses_by_default(tmp_path):
    (tmp_path / "valid.loss.ave.pth").touch()
    assert best_average(tmp_path, {"decoder": None}).name == "valid.loss.ave.pth"


@pytest.mark.parametrize("saved, epochs", [(0, 2), (6, 4), (-3, 1), (-6, 0)])
def test_finetuning_gives_and_takes_epochs(saved, epochs):
    assert finetuning_epochs(adapted(), saved) == epochs


@pytest.mark.parametrize(
    "saved, message", [(-9, "max_epoch 2 is less than the 3 epochs"), (4, "doesn't divide the 4")]
)
def test_epochs_that_finetuning_does_not_have_are_named(saved, message):
    with pytest.raises(ConfigError, match=f"finetune.yaml: .*{message}"):
        finetuning_epochs(adapted(), saved)


@pytest.fixture
def cut_by_scores(tmp_path):
    """Cuts a tiny model's units of score 0, all of the kinds given; returns what is left."""

    def call(*kinds: str) -> torch.nn.Module:
        encoder = dict(output_size=16, attention_heads=2, linear_units=24, num_blocks=2)
        encoder |= dict(macaron_style=True, rel_pos_type="latest", cnn_module_kernel=5)
        model = build_asr_model(
            dict(
                token_list=["<blank>", "<unk>", "A", "<sos/eos>"],
                token_type="char",
                frontend_conf=dict(n_mels=20),
                encoder="conformer",
                encoder_conf=encoder,
                model_conf=dict(ctc_weight=1.0),
            )
        )
        write_model(model, tmp_path / "teacher/model")
        site_map = sites_of(model.encoder, 10.0)
        units = {site.name: site for site in site_map.of_kinds(UNIT_KINDS)}
        scores = {n: torch.full((s.units,), float(s.kind not in kinds)) for n, s in units.items()}
        save_file(scores, tmp_path / "scores.safetensors")
        budget = Budget(site_map, list(units), "parameters")
        kept = resolve(site_map, scores)
        row = {
            "method": "importance",
            "target": float(budget.sparsity(budget.hard(kept))),
            "options": {
                "sites": list(UNIT_KINDS),
                "importance": {"file": str(tmp_path / "scores.safetensors")},
            },
        }
        cut_system(tmp_path / "system", system_config(row, tmp_path))
        return load(tmp_path / "system/cut")

    return call


def test_a_model_that_hears_nothing_is_named_before_it_is_finetuned(cut_by_scores, caplog):
    deaf = cut_by_scores("front_end_channel")
    texts = [deaf.encoder(torch.randn(1, 50, 20), torch.tensor([50]))[0] for _ in range(2)]
    assert texts[0].equal(texts[1])
    assert "system: no channel of the front-end is left" in caplog.text
    assert "sites: [head, feed_forward_unit, convolution_channel]" in caplog.text


def test_a_model_with_a_front_end_is_not(cut_by_scores, caplog):
    cut_by_scores("head")
    assert "front-end" not in caplog.text


def test_what_is_finetuned_anew_in_few_bits_is_recorded_so(cut_by_scores, tmp_path, monkeypatch):
    """As of a row that got ``bits`` later, whose pruning is the same and isn't made anew."""
    cut_by_scores("head")
    row, rounded = {"method": "magnitude", "as_cut": True}, []
    update_record(
        tmp_path / "system", row=system_config(row).own, saved_updates=0, weights_bytes={"dense": 9}
    )
    monkeypatch.setattr(stages, "round_on_data", lambda model, bits, config: rounded.append(bits))
    stages.finetune(tmp_path / "system", system_config({**row, "bits": 8}, tmp_path), {}, ngpu=0)
    record = read_record(tmp_path / "system")
    assert rounded == [8] and record["row"] == system_config({**row, "bits": 8}).own
    assert record["weights_bytes"].keys() == {"kept", "dense"}


def rates(options: dict, updates: int) -> list[float]:
    """Learning rates of the first updates by ESPnet's own schedule."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = FinetuneTask.weights_optimizer(
        Namespace(optim="adam", optim_conf={"lr": 0.001}), [weight], clip=1.0
    )
    scheduler, found = WarmupLR(optimizer, **options), []
    for _ in range(updates):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_continued_schedule_has_the_rates_of_one_training():
    warm = adapted(scheduler="warmuplr", scheduler_conf={"warmup_steps": 4})
    whole = rates(warm.training["scheduler_conf"], 9)
    later = rates(continued_schedule(warm, 6)["scheduler_conf"], 3)
    assert later == pytest.approx(whole[6:])
    assert later[0] < max(whole) and continued_schedule(warm, 0) == {}


def test_a_constant_rate_goes_on_by_itself():
    assert continued_schedule(adapted(), 6) == {}


def test_a_schedule_that_cannot_begin_later_is_named():
    stepped = adapted(scheduler="steplr", scheduler_conf={"step_size": 1})
    with pytest.raises(ConfigError, match="finetune.yaml.*continue_schedule.*'steplr'.*warmuplr"):
        continued_schedule(stepped, 6)

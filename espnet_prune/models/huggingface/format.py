"""Models of transformers as ``save`` describes them: class, configurations, plan."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.models.huggingface.build import check_class, from_config, generation_config
from espnet_prune.models.huggingface.teacher import TransformersTeacher, class_of, open_teacher
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.families import Format, family_of
from espnet_prune.surgery.plan import Plan, plan_of


class TransformersFormat(Format):
    """One of transformers' own classes."""

    kind = "transformers"
    origins = (
        "a folder of transformers' save_pretrained, or a name on the hub (as a teacher, wav2vec "
        "2.0, HuBERT, WavLM, Wav2Vec2-Conformer, Wav2Vec2-BERT and Parakeet with CTC)"
    )

    def is_origin(self, source: str) -> bool:
        return class_of(Path(source)) is not None

    def open_origin(self, source: str) -> AbstractContextManager[TransformersTeacher]:
        return open_teacher(source)

    def owns(self, model: nn.Module) -> bool:
        return type(model).__module__.partition(".")[0] == "transformers"

    def describe(self, model: nn.Module) -> dict:
        name, plan = type(model).__name__, plan_of(model)
        check_class(name, "model")
        description = {
            "class": name,
            "attention": model.config._attn_implementation,
            "config": family_of(model).dense_config(model),
            "plan": None if plan is None else plan.to_json(),
        }
        if getattr(model, "generation_config", None) is not None:
            description["generation_config"] = model.generation_config.to_dict()
        return description

    def build(self, config: Mapping) -> nn.Module:
        name, own = config.get("class"), config.get("config")
        check_class(name, "class")
        if not isinstance(own, Mapping):
            raise ModelError("config: no configuration of transformers; save the model again")
        model = from_config(name, own, config.get("attention"))
        if config.get("plan") is not None:
            plan = Plan.from_json(config["plan"], "plan")
            cut_to_plan(model, family_of(model).whole_plan(model, plan))
        if config.get("generation_config") is not None:
            model.generation_config = generation_config(config["generation_config"])
        return model

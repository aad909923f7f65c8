"""ESPnet's type checks, made where they are called: its functions refuse what they refused."""

import inspect
import subprocess
import sys

import pytest
import torch
import typeguard
from typeguard import TypeCheckError

from espnet_prune.models.espnet import choices  # noqa: F401  (ESPnet, as the project imports it)

from espnet2.legacy.nets.pytorch_backend.nets_utils import make_pad_mask  # isort: skip
from espnet2.tasks.abs_task import AbsTask  # isort: skip  (after the stubs)
from espnet2.train.collate_fn import CommonCollateFn  # isort: skip


def test_a_value_of_another_type_is_refused():
    for _ in range(2):  # the first call, which makes the checks, and a later one
        assert CommonCollateFn(int_pad_value=-1).int_pad_value == -1
        with pytest.raises(TypeCheckError, match="int_pad_value"):
            CommonCollateFn(int_pad_value="none")


def test_signatures_are_those_of_espnet():
    parameters = inspect.signature(CommonCollateFn.__init__).parameters
    assert parameters["int_pad_value"].default == -32768
    assert list(inspect.signature(AbsTask.build_iter_factory).parameters)[:2] == [
        "args",
        "distributed_option",
    ]


def test_typeguard_itself_stays_as_it_is():
    assert typeguard.typechecked is typeguard._decorators.typechecked


def test_what_espnet_imports_for_others_can_still_be_imported():
    from espnet2.gan_tts.jets.alignments import AlignmentModule
    from espnet2.text.qwen2audio_tokenizer import Qwen2AudioTokenizer
    from transformers.models.bart.modeling_bart import BartModel
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model

    assert issubclass(AlignmentModule, torch.nn.Module)
    assert issubclass(BartModel, torch.nn.Module)
    assert issubclass(Wav2Vec2Model, torch.nn.Module)
    assert inspect.isclass(Qwen2AudioTokenizer)


def test_neither_the_compiler_nor_models_of_transformers_are_imported():
    asked = "import espnet_prune.models.espnet.choices, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert "espnet2.tasks.asr" in found
    assert not {"torch._dynamo", "transformers.modeling_utils"} & set(found)


def test_masks_are_made_outside_of_what_is_compiled():
    traced = []

    def compiler(graph, inputs):
        traced.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    compiled = torch.compile(lambda x: make_pad_mask([1, 3]) | (x > 0), backend=compiler)
    masked = compiled(torch.zeros(2, 3))
    assert masked.tolist() == [[False, True, True], [False, False, False]]
    assert traced and not any("arange" in target for target in sum(traced, []))

"""What a model's folder holds: its configuration for ESPnet, and files in this place or another."""

import pytest

from espnet_prune.errors import DataError
from espnet_prune.models.espnet.folder import names_other_places, read_espnet_config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1,", "can't be read as YAML"),
        (b"\xff\xfe\xff", "can't be read as YAML"),
        (None, "can't be read as YAML"),
        (b"", "a mapping of keys was expected, not None"),
        (b"- 1", r"a mapping of keys was expected, not \[1\]"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"config.yaml: {message}.*make the model's folder again"):
        read_espnet_config(path)


@pytest.mark.parametrize(
    ("config", "elsewhere"),
    [
        ("bpemodel: null\nnormalize_conf: {{}}\n", False),
        ("bpemodel: {here}/bpe.model\nnormalize_conf: {{stats_file: {here}/s.npz}}\n", False),
        ("bpemodel: {here}/bpe.model\nnormalize_conf: {{stats_file: /gone/s.npz}}\n", True),
        ("bpemodel: /gone/bpe.model\n", True),
    ],
)
def test_files_of_another_place_are_noticed_also_through_a_link(tmp_path, config, elsewhere):
    folder = tmp_path / "model/espnet"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.format(here=folder.resolve()))
    (tmp_path / "link").symlink_to(tmp_path / "model")
    assert names_other_places(tmp_path / "model") == elsewhere
    assert names_other_places(tmp_path / "link") == elsewhere

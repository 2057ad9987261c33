"""generation_config.json of a directory that is exported again."""

import pytest

from models.config import ModelError
from sweet_jax.export import generation_settings


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"eos_token_id": "</s>"}', "eos_token_id is '</s>', expected a token id, a list of them, or null"),
        (b'{"eos_token_id": [1, null]}', "eos_token_id is [1, None], expected a token id, a list of them, or null"),
        (b"[]", "holds [], expected an object"),
        (b'{"a": "\xe9"}', "not UTF-8: invalid continuation byte at byte 7"),
    ],
)
def test_damaged_generation_settings_are_refused_with_their_file(tmp_path, content, sentence):
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(ModelError) as error:
        generation_settings(tmp_path)
    assert str(error.value) == f"{tmp_path}/generation_config.json: {sentence}"


def test_a_null_among_generation_settings_is_read(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": null, "top_k": 3}')
    assert generation_settings(tmp_path) == {"eos_token_id": None, "top_k": 3}

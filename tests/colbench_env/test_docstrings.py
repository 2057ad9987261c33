"""The examples in the docstrings of colbench_env's public names are true."""

import doctest

import pytest

import colbench_env

PUBLIC = {name: getattr(colbench_env, name) for name in colbench_env.__all__}


@pytest.mark.parametrize("name", [name for name, held in PUBLIC.items() if ">>>" in (held.__doc__ or "")])
def test_the_example_of_a_public_name_is_true_after_everything_is_imported_from_the_package(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    doctest.run_docstring_examples(PUBLIC[name], dict(PUBLIC), name=name)
    assert capsys.readouterr().out == ""

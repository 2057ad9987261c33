"""A file is replaced as a whole or stays as it was."""

import pytest

from colbench_env.replace_file import replace_file


@pytest.mark.parametrize("sync", [False, True])
def test_the_old_content_stays_until_the_new_one_is_complete(tmp_path, sync):
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    with replace_file(path, sync=sync) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError), replace_file(tmp_path / "none" / "rows"):
        pass

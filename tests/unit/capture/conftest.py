"""What the tests of capture share."""

import pytest


@pytest.fixture
def write(tmp_path):
    def write_file(data, name="capture"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write_file

import pytest
from traces import synthetic


@pytest.fixture
def place(tmp_path):
    """A folder with a tiny trace."""
    synthetic(tmp_path / "tiny.parquet", transpositions=0.2)
    return tmp_path

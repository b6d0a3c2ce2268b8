"""The device of a run: what there is, or an error that says how to get it."""

import pytest

from cluster.runs import machine
from enumerator.errors import InputError
from tests.support.project import PROJECT


def test_gpu_without_cuda_is_told_how_to_get_it_from_a_clone(monkeypatch):
    monkeypatch.setattr(machine, "available_gpus", lambda: 1)
    monkeypatch.setattr(machine, "jax_has_cuda", lambda: False)
    assert machine.choose_device("auto") == "cpu"
    with pytest.raises(InputError, match=r"type \.venv/bin/python -m pip install -c constraints\.txt -e '\.\[gpu\]'"):
        machine.choose_device("gpu")


def test_nobody_is_sent_to_a_package_of_our_name_on_an_index():
    """The project is installed from a clone."""
    for folder in ("enumerator", "cluster", "docs", "scripts"):
        for path in (PROJECT / folder).rglob("*"):
            if path.suffix in (".py", ".md"):
                content = path.read_text()
                assert "install enumerator" not in content and "'enumerator[" not in content, path
                assert "--upgrade enumerator" not in content, path

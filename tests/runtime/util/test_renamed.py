"""Old keyword arguments, for one release."""

from __future__ import annotations

import inspect

import pytest

from xclip_runtime.util.renamed import renamed


@renamed(batch="batch_size")
def run(name, *, batch_size=1):
    """Run."""
    return name, batch_size


def test_the_old_name_works_with_a_warning_that_says_the_new_one():
    with pytest.warns(DeprecationWarning, match="batch is now called batch_size") as caught:
        assert run("a", batch=3) == ("a", 3)

    assert caught[0].filename == __file__, "the warning points at the caller"


def test_the_new_name_and_the_default_warn_of_nothing(recwarn):
    assert (run("a", batch_size=3), run("b")) == (("a", 3), ("b", 1))
    assert not recwarn.list


def test_both_names_are_an_error():
    with pytest.raises(TypeError, match="give batch_size alone"):
        run("a", batch=3, batch_size=3)


def test_signature_and_docstring_are_those_of_the_new_names():
    assert list(inspect.signature(run).parameters) == ["name", "batch_size"]
    assert run.__doc__ == "Run."

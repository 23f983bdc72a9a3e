"""One error tree, drawn as it is."""

from __future__ import annotations

import inspect
import re

from xclip_runtime import errors


def classes():
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, errors.XClipError)}


def test_every_class_stands_in_the_tree_of_the_module_docstring():
    drawn = set(re.findall(r"([A-Z]\w+Error)", errors.__doc__)) - {
        "ValueError",
        "RuntimeError",
        "ImportError",
        "TypeError",
        "OSError",
        "PermissionError",
        "ConnectionError",
    }

    assert drawn - {"FileExistsError", "FileNotFoundError", "TimeoutError"} == set(classes())


def test_every_class_but_the_root_also_is_the_built_in_that_it_resembles():
    for name, cls in classes().items():
        if name != "XClipError":
            assert issubclass(cls, (ValueError, RuntimeError, ImportError, OSError)), name


def test_an_error_names_its_type_and_message_in_json():
    assert errors.NoFramesError("empty").to_dict() == {"type": "NoFramesError", "message": "empty"}

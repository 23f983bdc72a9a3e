"""Label sets: names, the texts that they are encoded from, and the files that list them."""

from __future__ import annotations

import csv
import io
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime.bundle import LabelSet
from xclip_runtime.errors import LabelsError
from xclip_runtime.util.plain_text import BLANKS, lines, read_text

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

PLACEHOLDER = "{}"
NAME_COLUMN = "name"
"""Column of a CSV file that holds the labels, in any case."""

BUILT_IN = {"hmdb51": Path(__file__).parents[1] / "data/hmdb51.txt"}
"""Label files that are named, not given by their path."""

SHOWN = 60
"""Characters of a text that a message quotes."""


def as_texts(texts: Iterable[str], name: str) -> tuple[str, ...]:
    """Raise a LabelsError for a single string where several are wanted, or anything else than strings among them.

    ``name`` is that of the argument, for the message.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        example = texts if isinstance(texts, str) and len(texts) <= SHOWN else "a dog running"
        message = f"{name} is {_shown(texts)}, not a list: give a list of strings, such as [{example!r}]"
        raise LabelsError(message)
    found = tuple(texts)
    wrong = next((i for i, text in enumerate(found) if not isinstance(text, str)), None)
    if wrong is not None:
        message = f"item {wrong + 1} of {name} is {_shown(found[wrong])}, not a string: give a list of strings"
        raise LabelsError(message)
    return found


def as_names(texts: Iterable[str], item: str, name: str) -> tuple[str, ...]:
    """Return texts of which there is one at least, and none is empty; ``item`` and ``name`` are for the messages.

    Raises:
        LabelsError: It is no list of strings, or a text is missing or empty.
    """
    found = as_texts(texts, name)
    if not found:
        message = f"{name} is empty: give at least one {item}"
        raise LabelsError(message)
    blank = next((i for i, text in enumerate(found) if not text.strip()), None)
    if blank is not None:
        message = f"{item} {blank + 1} of {len(found)} is empty: remove it, or fill it in"
        raise LabelsError(message)
    return found


def label_set(names: Iterable[str], template: str = PLACEHOLDER) -> LabelSet:
    """Make a label set from names, with the texts that a template makes of them; duplicates are kept and logged.

    Raises:
        LabelsError: There is no name, a name is empty, or the template has no ``{}``.
    """
    names = as_names(names, "label", "labels")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        shown = ", ".join(map(repr, repeated[:3])) + (", …" if len(repeated) > 3 else "")
        logger.warning("labels given more than once are kept and share their probability: %s", shown)
    return LabelSet(names, fill(template, names))


def fill(template: str, names: Sequence[str]) -> tuple[str, ...]:
    """Fill names into a template; one without ``{}`` is a LabelsError."""
    if PLACEHOLDER not in template:
        message = f"the template {template!r} has no {{}} for the label: write for example 'a video of {{}}'"
        raise LabelsError(message)
    return tuple(template.replace(PLACEHOLDER, name) for name in names)


def comparable(name: str) -> str:
    """Return what equal names have in common: NFC, without case, ``_``, ``-`` and blanks.

    ``Ride_Bike`` and ``RideBike`` are equal, and so are both forms of ``café``; ``C`` and ``C++`` are not.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return "".join(c for c in folded if c not in "_-\t" and unicodedata.category(c) != "Zs")


def read_label_names(path: str | os.PathLike[str]) -> list[str]:
    """Read label names from a text file with one a line, or from a CSV file with a column "name".

    "hmdb51" gives the names of HMDB-51. Blank lines are skipped. Numeric ids of a CSV are ignored, since lists number
    the same classes differently.

    Raises:
        LabelsError: The file is missing, not UTF-8, or a CSV without that column.
    """
    file = BUILT_IN.get(str(path)) or Path(path)
    text = read_text(file, LabelsError, content="labels", layout="one label a line")
    if file.suffix.lower() == ".csv":
        return _names_of_csv(file, text)
    return [name for line in lines(text) if (name := line.strip(BLANKS))]


def _names_of_csv(file: Path, text: str) -> list[str]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        fields, rows = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        message = f"{file} is not valid CSV ({error}): quote fields with commas, or use a .txt with one label a line"
        raise LabelsError(message) from error
    column = next((c for c in fields if c.strip().lower() == NAME_COLUMN), None)
    if column is None:
        fix = "add a header, or use a .txt with one label a line"
        message = f"{file} has no column {NAME_COLUMN!r} in its first line: {fix}"
        raise LabelsError(message)
    return [name for row in rows if (name := (row[column] or "").strip(BLANKS))]


def _shown(value: object) -> str:
    text = repr(value)
    kind = "" if value is None else f"the {type(value).__name__} "
    return kind + (text if len(text) <= SHOWN else f"{text[:SHOWN]}…")

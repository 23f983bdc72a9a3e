"""Honest requests among attacks, in short; `python tests/helpers/soak.py` is the long version, with times."""

from __future__ import annotations

from helpers.attacks import ATTACKS
from helpers.soak import MEMORY_RATIO, soak


def test_honest_requests_among_attacks_are_answered_and_the_server_does_not_grow():
    outcome = soak(2 * len(ATTACKS), 8)

    assert outcome.wrong == []
    assert outcome.attacks == len(ATTACKS)
    assert outcome.memory_ratio < MEMORY_RATIO

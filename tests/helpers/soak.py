"""Honest requests among attacks: all are answered right, as soon as before, and the server does not grow.

    python tests/helpers/soak.py --requests 10000 --clients 16 --json soak.json

Half of the clients are honest and half attack. The limits: memory of the server at most 1.5 times that of its start,
which is read when honest requests have warmed it up alone (what attacks load first, such as the stream graph, counts as
growth), every honest answer right, the 95th percentile of honest requests at most 3 times that without attacks.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script

from helpers.attacks import ATTACKS, PATIENCE, VIDEO, Target, run
from helpers.servers import process, resident
from xclip_runtime.demo import expected_label

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY_RATIO = 1.5
P95_RATIO = 3.0


@dataclass
class Soak:
    """Outcome of a soak test; memory in MiB, times in ms."""

    honest: int = 0
    attacks: int = 0
    wrong: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    """Numbers of the attacks' responses, by attack and status."""
    memory_start: float = 0.0
    memory_peak: float = 0.0
    p95_alone: float = 0.0
    p95_attacked: float = 0.0

    @property
    def memory_ratio(self) -> float:
        return self.memory_peak / self.memory_start

    @property
    def p95_ratio(self) -> float:
        return self.p95_attacked / self.p95_alone


class HonestClient:
    """A client that keeps its connection and checks its answers."""

    def __init__(self, target: Target) -> None:
        self._connection = HTTPConnection(target.host, target.port, timeout=PATIENCE)

    def ask(self) -> tuple[str | None, float]:
        """Return what is wrong with the answer, if anything, and the time in ms."""
        start = time.perf_counter()
        try:
            self._connection.request("POST", "/v1/classify?top_k=1", VIDEO)
            response = self._connection.getresponse()
            body = json.loads(response.read())
        except (OSError, ValueError) as error:
            self._connection.close()
            return repr(error), 1000 * (time.perf_counter() - start)
        right = response.status == 200 and body["labels"][0]["label"] == expected_label()
        return None if right else f"{response.status} {body}", 1000 * (time.perf_counter() - start)


def soak(requests: int, clients: int = 16, *options: str) -> Soak:
    """Start a server, ask it alone, then under attack; `requests` counts honest ones and attacks."""
    outcome = Soak()
    with process(*options) as (server, address):
        threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True).start()
        parts = urlsplit(address)
        target = Target(parts.hostname, parts.port)
        honest = [HonestClient(target) for _ in range(max(1, clients // 2))]
        alone = _ask(honest, max(len(honest), requests // 10), outcome)
        outcome.p95_alone = _p95(alone)
        outcome.memory_start = outcome.memory_peak = resident(server.pid)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                outcome.memory_peak = max(outcome.memory_peak, resident(server.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        statuses: Counter[str] = Counter()
        left = iter(_rounds(requests // 2))

        def attack() -> None:
            # next() of a generator in several threads needs a lock.
            while True:
                with turn:
                    one = next(left, None)
                if one is None:
                    return
                status = run(one, target)
                with turn:
                    statuses[f"{one.__name__} {status}"] += 1

        turn = threading.Lock()
        attackers = [threading.Thread(target=attack) for _ in range(max(1, clients - len(honest)))]
        for thread in attackers:
            thread.start()
        # Requests after the last attack are answered too soon to count.
        outcome.p95_attacked = _p95(
            _ask(
                honest, requests - requests // 2, outcome, counts=lambda: any(map(threading.Thread.is_alive, attackers))
            )
        )
        for thread in attackers:
            thread.join()
        _ask(honest, len(honest), outcome)
        over.set()
        watching.join()
        outcome.statuses = dict(sorted(statuses.items()))
        outcome.attacks = statuses.total()
    outcome.wrong += [f"{name} is answered with 500" for name in statuses if name.endswith(" 500")]
    return outcome


def _rounds(count: int):
    """Every attack in turn, in an order of chance."""
    while count > 0:
        yield from random.sample(ATTACKS, min(len(ATTACKS), count))
        count -= len(ATTACKS)


def _ask(
    clients: list[HonestClient], count: int, outcome: Soak, counts: Callable[[], bool] = lambda: True
) -> list[float]:
    """Share `count` requests among the clients; return the times of those that count as they begin, in ms."""
    with ThreadPoolExecutor(len(clients)) as executor:
        shares = [count // len(clients) + (number < count % len(clients)) for number in range(len(clients))]
        work = [
            executor.submit(lambda c, n: [(counts(), *c.ask()) for _ in range(n)], *pair)
            for pair in zip(clients, shares, strict=True)
        ]
        answers = [answer for future in work for answer in future.result()]
    outcome.honest += len(answers)
    outcome.wrong += [wrong for _, wrong, _ in answers if wrong]
    return [ms for counted, _, ms in answers if counted]


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]


def main() -> None:
    """Run, print, and exit with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    outcome = soak(options.requests, options.clients)
    document = {**asdict(outcome), "memory_ratio": outcome.memory_ratio, "p95_ratio": outcome.p95_ratio}
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    failed = outcome.wrong or outcome.memory_ratio > MEMORY_RATIO or outcome.p95_ratio > P95_RATIO
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

"""The same read-only question to many hosts at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from smallq_deploy.fleet.bundles import NodeBundle
from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.node import Answer, command_for, read_answer
from smallq_deploy.fleet.transport import Outcome, Task, Transport

TIMEOUT = 120.0  # seconds for a question; a change has a longer time of its own


def task_for(host: Host, bundle: NodeBundle, words: Sequence[str], timeout: float) -> Task:
    """The bundle, and the command ``words`` of it, within the host's own time or ``timeout`` seconds."""
    command = command_for(host, bundle.name, words, carries_python=bundle.carries_python)
    return Task(host, command, (bundle.upload,), host.timeout or timeout)


def ask(
    hosts: Iterable[Host],
    bundle: NodeBundle,
    words: Sequence[str],
    transport: Transport,
    *,
    timeout: float = TIMEOUT,
    on_answer: Callable[[Answer], None] = lambda answer: None,
    stop: threading.Event | None = None,
) -> list[Answer]:
    """The answers in the order of ``hosts``; ``on_answer`` sees each as it comes. A host's failure is an answer too."""
    asked = {host.name: host for host in hosts}
    answers: dict[str, Answer] = {}

    def take(outcome: Outcome) -> None:
        answer = read_answer(asked[outcome.host], outcome)
        answers[outcome.host] = answer
        on_answer(answer)

    transport.run([task_for(host, bundle, words, timeout) for host in asked.values()], take, stop)
    return [answers[name] for name in asked]

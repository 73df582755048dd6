"""Runs each subject in a new process, so that subjects do not affect each other."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from benchmarks.measure import Comparison, Settings


def other_process() -> ProcessPoolExecutor:
    """Runs functions in one new process, which shares nothing with this one."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def in_fresh_process(function: Callable, *args: Any) -> Any:
    """Calls a function in a new process.

    Raises:
        concurrent.futures.BrokenExecutor: The process was killed.
    """
    with other_process() as process:
        return process.submit(function, *args).result()


def measure_subject(name: str, settings: Settings) -> tuple[str, list[Comparison]]:
    """Measures a subject by the name of its module, and returns its heading and comparisons."""
    module = import_module(f"benchmarks.{name}")
    return module.__doc__.splitlines()[0].rstrip("."), module.measure(settings)

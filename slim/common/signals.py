"""Ctrl-C and SIGTERM as a request to stop, which what is under way can answer in its own time."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals(note: str) -> Iterator[list[int]]:
    """A list that the first Ctrl-C or SIGTERM is put into; the second ends the process at once.

    A thread takes them, since the main thread may be waiting in TensorFlow for other machines.

    Args:
        note: Printed when the first one comes.
    """
    received: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def receive() -> None:
        while number := os.read(reader, 1):
            if received:
                os._exit(128 + number[0])
            received.append(number[0])
            print(f"{note}; once more to end at once", flush=True)
        os.close(reader)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    waked_before = signal.set_wakeup_fd(writer)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waked_before)
        os.close(writer)
        thread.join()

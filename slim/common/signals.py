"""Ctrl-C and SIGTERM as requests to stop."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals(note: str) -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM while the block runs.

    Yields a list that receives the first signal, at which the note is printed; the second ends the
    process at once.
    """
    # A thread receives the signals, since the main thread may be waiting in TensorFlow.
    received: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def receive() -> None:
        while number := os.read(reader, 1):
            if received:
                os._exit(128 + number[0])
            received.append(number[0])
            print(f"{note}; repeat to end at once", flush=True)
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

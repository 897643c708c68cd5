"""A measure of work that no clock and no other process disturbs: lines of Python executed."""

import gc
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def count_lines() -> Callable[[Callable[[], object]], int]:
    """Return a counter of the lines of Python that a call executes, libraries included.

    The call is made twice and the second one counted, so that what is imported or cached once does not count; nor
    does what others do at a collection of garbage (hypothesis times them), which comes when it comes.
    """
    before = sys.gettrace()

    def count(call: Callable[[], object]) -> int:
        lines = 0

        def trace(frame, event, argument):
            nonlocal lines
            lines += event == "line"
            return trace

        call()
        gc.disable()
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
            gc.enable()
        return lines

    return count

"""One view that works, one that leaks and one that hangs."""

import itertools
import os

from django.http import HttpResponse

MIB = 1024 * 1024
LEAK: list = []


def index(request):
    """Answer at once."""
    return HttpResponse(f"ok from {os.getpid()}\n")


def grow(request):
    """Keep 90 MiB more on each request."""
    LEAK.append(b"x" * (90 * MIB))
    return HttpResponse(f"{len(LEAK) * 90} MiB in {os.getpid()}\n")


def hang(request):
    """Hang in C code for ever: deaf to SIGABRT, so that only SIGKILL ends the worker."""
    return HttpResponse(str(0 in itertools.repeat(1)))

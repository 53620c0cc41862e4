"""One view that works, one that leaks, one that hangs, and one that repeats in the log what a visitor sends."""

import itertools
import os
import sys

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


def say(request):
    """Print the visitor's words, newlines and all, as careless programs do."""
    sys.stdout.write(request.GET["words"] + "\n")
    sys.stdout.flush()
    return HttpResponse("said\n")

#!/usr/bin/python3
"""Django's command line for the lab's site."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "teaching_panel.settings")
execute_from_command_line(sys.argv)

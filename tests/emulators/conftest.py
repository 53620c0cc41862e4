"""Whoever imports aiogram first decides how its models are built: here as the product does, unless a run asks otherwise."""

import os

from bot.chat import _deferred

_deferred.load(light=os.environ.get("MEMWARDEN_TEST_AIOGRAM") != "plain")

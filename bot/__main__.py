"""`python -m bot` is `memwarden`."""

from bot.cli import main

main()

"""`python -m train.ridge`."""

from train.ridge.command import command

command()

"""`python -m train.ridge`."""

from train.command_line import run_command
from train.ridge.command import command

run_command(command, "train.ridge", stopped="nothing is written")

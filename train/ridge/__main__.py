"""`python -m train.ridge`."""

from train.ridge.command import command

if __name__ == "__main__":
    command()

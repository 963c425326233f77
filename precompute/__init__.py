"""Stage 1: run frozen encoders once over all images, questions and answer texts.

`pipeline.py` is the main path; `python -m precompute --help` lists the command.
"""

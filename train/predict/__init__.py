"""Answers about new images and questions, by a run and the encoders of the cache that it read.

__main__.py      the command
predictor.py     images and questions -> answers with probabilities
sources.py       what a run needs beside its weights: from a cache, or from an export
model.py         the trained model, and rows as it is given them
encoding.py      rows of new items; loads encoders
calibration.py   the temperature that makes probabilities fit the validation split
asked.py         what was asked: one question, a folder of images, a file of questions
"""

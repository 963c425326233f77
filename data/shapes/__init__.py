"""The built-in dataset: scenes of overlapping coloured shapes, and questions about them.

`scene` draws the lots, `render` the pictures, `programs` answers, `questions` asks, `annotators`
disagree, `dataset` writes and reads.
"""

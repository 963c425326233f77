"""Lanes: K models of one shape that train side by side on the same batches.

A batch is gathered once and the first layer is one matrix product over all lanes; learning rate,
weight decay, dropout, loss options and seed differ by lane. Plain arguments and tensors, torch
alone; `train/sweep/` turns experiments into lanes.

    layers.py      K layers of a kind as one
    stack.py       K models as one
    loss.py        the cross-entropy of every lane
    optimizer.py   AdamW with rates by lane
    step.py        one update of every lane
"""

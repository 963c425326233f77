"""Lanes: K models of one shape that train side by side on the same batches.

A batch is gathered once and the first layer is one matrix product over all lanes; learning rate,
weight decay, dropout, loss options and seed differ by lane. A component says itself what may differ
(`lane_options`) and whether its forward works with lanes (`lanes_alike`); one that does not takes
its lanes in turn. An optimiser or loss names its form with lanes (`lane_form`). Plain arguments and
tensors, torch alone; `train/sweep/` turns experiments into lanes.

    layers.py      K layers of a kind as one
    stack.py       K models as one
    each.py        K models of any kind as one, lane by lane
    loss.py        the cross-entropy of every lane
    optimizer.py   AdamW with rates by lane
    step.py        one update of every lane
"""

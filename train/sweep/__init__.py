"""`python -m train.sweep`: many settings of an experiment, those of one shape in one pass.

space.py       what varies, from the command line, checked
request.py     what was asked for, and the trials that come of it
propose.py     which settings come next (Optuna proposes, in memory)
pack.py        settings that share a pass: groups, and training one group
engine.py      where packs are trained: here, or (engine_ray.py) on a cluster
record.py      the sweep's folder and trials.jsonl, the only record
winners.py     the best trials, trained alone
run.py         the main path: propose, train, record, and the winners
report.py      tables and JSON
"""

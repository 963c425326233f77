"""`python -m train.sweep`: many settings of an experiment, those of one shape in one pass.

space.py     what varies, from the command line, checked
propose.py   which settings come next (Optuna proposes, in memory)
pack.py      settings that share a pass: groups, and training one group
record.py    the sweep's folder and trials.jsonl, the only record
run.py       the main path: propose, train, record, and the winners trained alone
report.py    tables and JSON
"""

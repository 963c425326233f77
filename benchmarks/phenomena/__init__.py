"""What five published journals found, found again over one generated dataset.

`settings` says what is trained and compared, `analysis` how it is judged; both were committed
before their figures were seen, only the budget was lowered for time. `command` runs them.
"""

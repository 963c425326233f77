"""What five published journals found, found again over one generated dataset.

`settings` says what is trained and compared, `analysis` how it is judged; both were written before
the first run. `command` runs them.
"""

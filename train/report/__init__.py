"""A page about runs: one HTML file that needs no network and no other file.

__main__.py   what to report, where to
runs.py       a run's folder -> what the page says about it
judged.py     its predictions beside the truths of a cache, question by question
figures.py    figures of those: by type, by answer, confusions, calibration, risk and coverage
samples.py    questions to page through, with small pictures
sweeps.py     a sweep's folder -> its trials and what decided them
charts.py     pictures, drawn by matplotlib as inline SVG that takes the page's colours
table.py      a table of the page
page.py       all of it into page.html, with page.css and page.js
"""

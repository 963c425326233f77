"""Instruments: turns, memory, kills, stage 1 as it is timed."""

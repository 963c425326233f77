"""Run folders, which are the truth about runs, and what is built over them."""

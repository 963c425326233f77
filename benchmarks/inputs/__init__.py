"""What is measured over: generated photographs, questions, caches, rows."""

"""From a name in an experiment to the class or function behind it; users' own code."""

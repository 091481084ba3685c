# Not tests: a doctest run would import the mutants a second time, under another name.
collect_ignore = ["gallery", "run.py"]

"""A report for people: on the terminal, as Markdown, as pictures."""

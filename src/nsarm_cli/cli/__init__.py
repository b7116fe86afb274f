"""The command line: the only place with Typer and Rich.

Modules here import nothing heavy at the top, so `nsarm --help` answers at once; a command
imports what it needs when it runs.
"""

"""The tasks of the own suite, one file each; `suite.TASKS` lists them."""

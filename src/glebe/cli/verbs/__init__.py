"""One module per verb. Each imports what it needs inside its function, so that ``glebe --help`` stays quick."""

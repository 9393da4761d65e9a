"""``glebe demo``: the story, and the stage it is told on."""

"""A request on its way in: where it points, what it carries, which answer it wants."""

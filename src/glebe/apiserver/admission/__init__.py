"""What changes or refuses objects before they are stored."""

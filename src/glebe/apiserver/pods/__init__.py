"""What can be done to pods besides writing them."""

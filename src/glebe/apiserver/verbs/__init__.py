"""What can be asked of an object: the verbs of the API and the steps that they share."""

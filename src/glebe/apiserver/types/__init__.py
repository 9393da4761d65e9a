"""The API's types: which resources there are, their schemas, defaults and rules."""

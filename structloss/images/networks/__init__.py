"""Networks that start from pixels: a module a family, imported when a name is first looked up."""

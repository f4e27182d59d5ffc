"""Code independent of the method: settings, registries, files, figures."""

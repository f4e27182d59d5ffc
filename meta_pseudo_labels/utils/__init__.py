"""What knows nothing of the method: settings, registries, files, figures."""

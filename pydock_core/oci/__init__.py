"""Documents of the OCI image specification: pure data, no input or output."""

"""The Jupyter server extension: the port proxy and the HTTP API, behind Jupyter's authentication."""

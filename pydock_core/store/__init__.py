"""The store: database, blobs, layers and volumes on disk."""

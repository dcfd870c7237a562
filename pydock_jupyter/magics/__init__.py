"""The ``%dock`` and ``%%dock`` magics: words, completion, and running them."""

"""The ``%dock`` and ``%%dock`` magics: how a line becomes words, how they are completed, and how they are run."""

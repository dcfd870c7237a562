"""The ``%dock`` and ``%%dock`` magics: parsing, completion, execution."""

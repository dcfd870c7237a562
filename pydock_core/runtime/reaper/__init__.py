"""The init of ``--init``; see :mod:`pydock_core.runtime.reaper.image`."""

"""Pulls a missing image for ``run`` and ``create``, as Docker does.

``--pull`` says when: missing (the default), always, never.  The environment variable PYDOCK_PULL gives another default,
for hosts that reach no registry.  What it tells goes to standard error.
"""

from __future__ import annotations

import os

from pydock_core.commands.context import Context
from pydock_core.commands.progress import reporting
from pydock_core.engine import parse_reference
from pydock_core.errors import InvalidError, NotFoundError, PyDockError

VARIABLE = "PYDOCK_PULL"
POLICIES = ("missing", "always", "never")


def ensure_image(
    context: Context, reference: str, policy: str | None, platform: str | None, *, quiet: bool
) -> None:
    """Pull an image where the policy says so.

    Args:
        context: of the command.
        reference: a name, or an id, which is never pulled.
        policy: the option's value.
        platform: the option's value; an image that is here for another one counts as missing.
        quiet: tell nothing of the pull.

    Raises:
        InvalidError: there is no such policy or platform.
        NotFoundError: it is not here and not to be pulled, or the registry does not have it.
        what a pull raises; all with exit code 125.
    """
    wanted = policy or os.environ.get(VARIABLE) or "missing"
    source = "--pull" if policy else VARIABLE
    try:
        if wanted not in POLICIES:
            raise InvalidError(f"{source} {wanted}: no such policy", f"there are {', '.join(POLICIES)}")
        if wanted != "always" or _is_id(context, reference):
            try:
                _look(context, reference, platform)
            except NotFoundError:
                if wanted == "never" or _is_id(context, reference):
                    raise
                name = parse_reference(reference).with_default_tag()
                if not quiet:
                    context.stderr.write(f"Unable to find image '{name.familiar}' locally\n")
            else:
                return
        with reporting(
            context, "auto", f"pulled {reference}", quiet=quiet, lines=True, stdout_is_free=False
        ) as report:
            context.engine.registries.pull(reference, platform=platform, progress=report.progress)
    except PyDockError as error:
        error.exit_code = 125 if error.exit_code is None else error.exit_code
        raise


def _look(context: Context, reference: str, platform: str | None) -> None:
    """Raise NotFoundError if there is no such image, or one for another platform."""
    if platform:
        context.engine.images.require_platform(reference, platform)
    else:
        context.engine.images.resolve(reference)


def _is_id(context: Context, reference: str) -> bool:
    """Whether it can only be an id, or is the beginning of one that is here."""
    if reference.startswith("sha256:"):
        return True
    try:
        parse_reference(reference)
    except InvalidError:
        return True  # whoever looks for the image says what is wrong with it
    try:
        row = context.engine.images.resolve(reference)
    except PyDockError:
        return False
    return row.id.removeprefix("sha256:").startswith(reference)

"""Pulls a missing image for ``run`` and ``create``, as Docker does.

``--pull`` sets the policy: missing (the default), always, never.  The environment variable PYDOCK_PULL sets another
default, for hosts that reach no registry.  Messages go to standard error.
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
    """Pull an image if the policy requires it.

    Args:
        context: of the command.
        reference: a name, or an id, which is never pulled.
        policy: the option's value.
        platform: the option's value; a local image for another platform counts as missing.
        quiet: do not show the pull.

    Raises:
        InvalidError: the policy or the platform is unknown.
        NotFoundError: the image is missing and must not be pulled, or the registry does not have it.
        PyDockError: as in a pull; all with exit code 125.
    """
    chosen = policy or os.environ.get(VARIABLE) or "missing"
    source = "--pull" if policy else VARIABLE
    try:
        if chosen not in POLICIES:
            raise InvalidError(f"{source} {chosen}: no such policy", f"there are {', '.join(POLICIES)}")
        if chosen != "always" or _is_id(context, reference):
            try:
                _look(context, reference, platform)
            except NotFoundError as error:
                if chosen == "never" or _is_id(context, reference):
                    raise
                name = parse_reference(reference).with_default_tag()
                if not quiet:
                    context.stderr.write(
                        f"{error.message}: pulling it for {platform}\n"
                        if platform and _is_there(context, reference)
                        else f"Unable to find image '{name.familiar}' locally\n"
                    )
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
    """Raise NotFoundError if there is no such image, or only one for another platform."""
    if platform:
        context.engine.images.require_platform(reference, platform)
    else:
        context.engine.images.resolve(reference)


def _is_there(context: Context, reference: str) -> bool:
    """Whether there is such an image, for any platform."""
    try:
        context.engine.images.resolve(reference)
    except PyDockError:
        return False
    return True


def _is_id(context: Context, reference: str) -> bool:
    """Whether a reference can only be an id, or is the prefix of a local one."""
    if reference.startswith("sha256:"):
        return True
    try:
        parse_reference(reference)
    except InvalidError:
        return True  # the later look-up of the image reports the error
    try:
        row = context.engine.images.resolve(reference)
    except PyDockError:
        return False
    return row.id.removeprefix("sha256:").startswith(reference)

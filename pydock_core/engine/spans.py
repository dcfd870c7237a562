"""Words a span of time as Docker does."""

from __future__ import annotations


def human_duration(seconds: float) -> str:
    """Return a time span as Docker words it: "5 seconds", "About a minute", "3 weeks"."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{int(seconds)} second" + ("s" if int(seconds) != 1 else "")
    if (minutes := int(seconds / 60)) < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if (hours := int(seconds / 3600 + 0.5)) < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"

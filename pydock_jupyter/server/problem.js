// In a page that says what went wrong: the theme of a JupyterLab around it, and trying again.  See problem.py.
"use strict";
(() => {
  const root = document.documentElement;
  try {
    const isLight = parent.document.body.dataset.jpThemeLight;
    if (isLight !== undefined) {
      root.style.colorScheme = isLight === "true" ? "light" : "dark";
    }
  } catch {
    // A window of its own (it has no body yet), or a frame of another origin.
  }
  const first = Number(root.dataset.retrySeconds);
  if (!(first > 0)) {
    return;
  }

  // A reload by script, since a refresh by <meta> or header does nothing to an address with a fragment.
  const key = `pydock-retry ${location.pathname}`;
  const longest = 15;
  let seconds = first;
  try {
    const last = JSON.parse(sessionStorage.getItem(key));
    if (last !== null && Date.now() - last.time < 2000 * longest) {
      seconds = Math.min(1.5 * last.seconds, longest);
    }
  } catch {
    // No storage, as in a sandboxed frame: no back-off.
  }
  const retry = () => {
    if (document.visibilityState !== "visible" || innerWidth === 0) {
      setTimeout(retry, 1000); // a frame in a hidden tab of JupyterLab has no width
      return;
    }
    try {
      sessionStorage.setItem(key, JSON.stringify({ seconds, time: Date.now() }));
    } catch {
      // As above.
    }
    location.reload();
  };
  setTimeout(retry, 1000 * seconds);
})();

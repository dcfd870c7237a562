// Runs in an error page: applies the theme of the surrounding JupyterLab, and retries.  See problem.py.
"use strict";
(() => {
  const root = document.documentElement;
  try {
    const isLight = parent.document.body.dataset.jpThemeLight;
    if (isLight !== undefined) {
      root.style.colorScheme = isLight === "true" ? "light" : "dark";
    }
  } catch {
    // A top-level window (which has no body yet), or a frame in a page of another origin.
  }
  const first = Number(root.dataset.retrySeconds);
  if (!(first > 0)) {
    return;
  }

  // A refresh by <meta> or header has no effect at an address with a fragment.
  const key = `pydock-retry ${location.pathname}`;
  const maxSeconds = 15;
  let seconds = first;
  try {
    const last = JSON.parse(sessionStorage.getItem(key));
    if (last !== null && Date.now() - last.time < 2000 * maxSeconds) {
      seconds = Math.min(1.5 * last.seconds, maxSeconds);
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

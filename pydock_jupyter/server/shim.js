// Runs before the scripts of an application's page.  The application believes that it lives at "/"; what its
// scripts ask of "/" on this origin is asked of the application, not of Jupyter.  An address below the prefix
// and one of another host stay.  What a script cannot intercept stays too: location.href, import(), CSS.
(() => {
  "use strict";
  const script = document.currentScript;
  const { prefix, authority } = script.dataset;
  script.remove(); // a framework that hydrates the whole document finds what it rendered
  // Behind two proxies the inner one's prefix follows the outer one's.
  const at = location.pathname.indexOf(`${prefix}/`);
  const root = location.pathname.slice(0, Math.max(at, 0)) + prefix;

  function place(url) {
    let parsed;
    try {
      parsed = new URL(url, document.baseURI);
    } catch {
      return url;
    }
    if (!/^(https?|wss?):$/.test(parsed.protocol)) {
      return url;
    }
    const isOwnIdea = parsed.host === authority; // the application's of its address
    if (isOwnIdea) {
      parsed.protocol = location.protocol.replace("http", parsed.protocol.startsWith("ws") ? "ws" : "http");
      parsed.host = location.host;
    } else if (parsed.host !== location.host) {
      return url;
    }
    const isBelow = parsed.pathname === root || parsed.pathname.startsWith(`${root}/`);
    if (!isBelow) {
      parsed.pathname = root + parsed.pathname;
    }
    return isOwnIdea || !isBelow ? parsed.href : url;
  }

  const isAddress = value => typeof value === "string" || value instanceof URL;

  function placing(index) {
    const change = values => values.map((value, i) => (i === index && isAddress(value) ? place(value) : value));
    return {
      apply: (target, self, values) => Reflect.apply(target, self, change(values)),
      construct: (target, values, made) => Reflect.construct(target, change(values), made)
    };
  }

  function wrap(owner, name, index) {
    if (owner && typeof owner[name] === "function") {
      owner[name] = new Proxy(owner[name], placing(index));
    }
  }

  for (const name of ["Request", "WebSocket", "EventSource", "Worker", "SharedWorker", "fetch", "open"]) {
    wrap(window, name, 0);
  }
  wrap(XMLHttpRequest.prototype, "open", 1);
  wrap(Navigator.prototype, "sendBeacon", 0);
  wrap(window.ServiceWorkerContainer && ServiceWorkerContainer.prototype, "register", 0);
  wrap(History.prototype, "pushState", 2);
  wrap(History.prototype, "replaceState", 2);

  const attributes = {
    HTMLAnchorElement: "href",
    HTMLFormElement: "action",
    HTMLIFrameElement: "src",
    HTMLImageElement: "src",
    HTMLLinkElement: "href",
    HTMLMediaElement: "src",
    HTMLScriptElement: "src",
    HTMLSourceElement: "src"
  };
  for (const [element, attribute] of Object.entries(attributes)) {
    const prototype = window[element].prototype;
    const property = Object.getOwnPropertyDescriptor(prototype, attribute);
    Object.defineProperty(prototype, attribute, {
      ...property,
      set(value) {
        property.set.call(this, isAddress(value) ? place(value) : value);
      }
    });
  }
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    const isKnown = Object.entries(attributes).some(
      ([element, attribute]) => attribute === String(name).toLowerCase() && this instanceof window[element]
    );
    return setAttribute.call(this, name, isKnown && isAddress(value) ? place(value) : value);
  };
})();
